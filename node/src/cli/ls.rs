use super::{
    OK, Stop,
    client::Client,
    listing::{App, Listing},
    options::Ls,
};
use crate::{
    table::{self, Row},
    terminal::{self, ERROR, GOOD, NAME, WARNING},
};

pub(super) async fn ls(options: Ls) -> Result<u8, Stop> {
    let client = Client::new(&options.query.target.node)?;
    let listing = Listing::fetch(&client).await?;
    if options.query.json {
        terminal::print(&format!("{}\n", listing.json));
    } else if listing.apps.is_empty() {
        terminal::print(&format!("{} serves no app; start it with `fnmesh serve DIR`\n", client.url()));
    } else {
        let rows = listing.apps.iter().flat_map(rows).collect();
        terminal::print(&table::render(&["FUNCTION", "LANGUAGE", "SIGNATURE", "STATE"], rows));
    }
    Ok(OK)
}

fn rows(app: &App) -> Vec<Row> {
    let last = state_style(&app.state);
    if app.functions.is_empty() {
        let why = app.error.as_ref().map(ToString::to_string).unwrap_or_default();
        let why = why.lines().next().unwrap_or_default().to_owned();
        return vec![Row {
            cells: vec![format!("{}/", app.name), String::new(), why, app.state.clone()],
            first: NAME,
            last,
        }];
    }
    let row = |function: &super::listing::Function| {
        let state = if function.public { app.state.clone() } else { format!("{}, private", app.state) };
        let cells = vec![function.id.clone(), function.language.clone(), function.signature(), state];
        Row { cells, first: NAME, last }
    };
    app.functions.iter().map(row).collect()
}

/// How an app's state is coloured.
pub(super) fn state_style(state: &str) -> anstyle::Style {
    match state {
        "ready" => GOOD,
        "failed" => ERROR,
        _ => WARNING,
    }
}
