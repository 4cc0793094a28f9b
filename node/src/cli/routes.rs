use anstyle::Style;
use serde::Deserialize;
use serde_json::Value;

use super::{OK, Stop, client::Client, options::Routes};
use crate::{
    table::{self, Row},
    terminal::{self, NAME},
};

/// A version of an app as `/_/routes` describes it.
#[derive(Debug, Deserialize)]
struct Route {
    app: String,
    version: u64,
    hash: String,
    functions: Vec<String>,
    nodes: Vec<String>,
}

pub(super) async fn routes(options: Routes) -> Result<u8, Stop> {
    let client = Client::new(&options.query.target.node)?;
    let list = client.list("/_/routes", "routes").await?;
    let wanted = |app: &str| options.app.as_deref().is_none_or(|name| name == app);
    let mut found: Vec<Value> = list.read()?;
    found.retain(|route| route["app"].as_str().is_some_and(wanted));
    if let (Some(name), true) = (&options.app, found.is_empty()) {
        return Err(Stop::failed(format!("no node in reach of {} serves an app {name:?}", client.url())));
    }
    if options.query.json {
        terminal::print(&format!("{}\n", Value::Array(found)));
        return Ok(OK);
    }
    let mut routes: Vec<Route> = list.read()?;
    routes.retain(|route| wanted(&route.app));
    let rows = match options.app {
        Some(_) => routes.iter().flat_map(functions).collect(),
        None => routes.iter().map(|route| row(format!("{}/", route.app), route)).collect(),
    };
    terminal::print(&table::render(&["ROUTE", "VERSION", "NODES"], rows));
    Ok(OK)
}

fn functions(route: &Route) -> Vec<Row> {
    route.functions.iter().map(|function| row(format!("{}/{function}", route.app), route)).collect()
}

fn row(name: String, route: &Route) -> Row {
    // What is served from a directory has no number.
    let version = if route.version == 0 { route.hash.clone() } else { format!("v{} {}", route.version, route.hash) };
    Row { cells: vec![name, version, route.nodes.join(" ")], first: NAME, last: Style::new() }
}
