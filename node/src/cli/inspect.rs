use fnmesh_invoke::nearest;
use serde_json::Value;

use super::{
    OK, Stop,
    client::Client,
    listing::{App, Function, Listing},
    ls::state_style,
    options::Inspect,
};
use crate::terminal::{self, DIM, ERROR, HEADING, NAME};

pub(super) async fn inspect(options: Inspect) -> Result<u8, Stop> {
    let client = Client::new(&options.query.target.node)?;
    let listing = Listing::fetch(&client).await?;
    let text = if options.query.json {
        format!("{}\n", json(&listing, options.name.as_deref())?)
    } else {
        describe(&listing, options.name.as_deref(), client.url())?
    };
    terminal::print(&text);
    Ok(OK)
}

/// What a name on the command line stands for.
enum Subject<'a> {
    App(&'a App),
    Function(&'a App, &'a Function),
}

fn find<'a>(listing: &'a Listing, name: &str) -> Result<Subject<'a>, Stop> {
    let name = name.trim_matches('/');
    for app in &listing.apps {
        if app.name == name {
            return Ok(Subject::App(app));
        }
        if let Some(function) = app.functions.iter().find(|function| function.id == name) {
            return Ok(Subject::Function(app, function));
        }
    }
    let apps = listing.apps.iter().map(|app| app.name.as_str());
    let functions = listing.apps.iter().flat_map(|app| &app.functions).map(|function| function.id.as_str());
    let alike = nearest(name, apps.chain(functions));
    let hint = if alike.is_empty() { String::new() } else { format!("; did you mean {}?", alike.join(" or ")) };
    Err(Stop::failed(format!("the node has no app or function {name:?}{hint}")))
}

fn describe(listing: &Listing, name: Option<&str>, url: &str) -> Result<String, Stop> {
    Ok(match name.map(|name| find(listing, name)).transpose()? {
        Some(Subject::App(app)) => describe_app(app, url),
        Some(Subject::Function(app, function)) => describe_function(app, function, url),
        None if listing.apps.is_empty() => format!("{url} serves no app; start it with `fnmesh serve DIR`\n"),
        None => listing.apps.iter().map(|app| describe_app(app, url)).collect::<Vec<_>>().join("\n"),
    })
}

/// The part of the node's JSON that `name` stands for.
fn json(listing: &Listing, name: Option<&str>) -> Result<String, Stop> {
    let Some(name) = name else { return Ok(listing.json.get().to_owned()) };
    let all: Value = serde_json::from_str(listing.json.get()).map_err(|error| Stop::failed(error.to_string()))?;
    let with = |list: &Value, key: &str, wanted: &str| {
        list.as_array().and_then(|list| list.iter().find(|item| item[key] == wanted)).cloned().unwrap_or_default()
    };
    Ok(match find(listing, name)? {
        Subject::App(app) => with(&all, "name", &app.name),
        Subject::Function(app, function) => with(&with(&all, "name", &app.name)["functions"], "id", &function.id),
    }
    .to_string())
}

fn describe_app(app: &App, url: &str) -> String {
    let style = state_style(&app.state);
    let mut out = format!("{HEADING}{}{HEADING:#}  {style}{}{style:#}\n", app.name, app.state);
    out += &format!("  {DIM}directory{DIM:#}  {}\n", app.directory);
    if !app.version.is_empty() {
        out += &format!("  {DIM}version{DIM:#}    {}\n", app.version);
    }
    for pool in &app.pools {
        let pids: Vec<_> = pool.instances.iter().map(|instance| instance.pid.to_string()).collect();
        let pids = if pids.is_empty() { "no instance".to_owned() } else { format!("pid {}", pids.join(", ")) };
        let (language, in_flight, queued) = (&pool.language, pool.in_flight, pool.queued);
        out += &format!("  {DIM}{language:<9}{DIM:#}  {pids}, {in_flight} calls in flight, {queued} queued\n");
    }
    if let Some(error) = &app.error {
        out += &format!("\n{ERROR}{}:{ERROR:#} {}\n", error.kind, error.message);
        out += &indented(&error.stack, "");
    }
    for function in &app.functions {
        out += &format!("\n{}", function_lines(function, url));
    }
    out
}

fn describe_function(app: &App, function: &Function, url: &str) -> String {
    let style = state_style(&app.state);
    let mut out = function_lines(function, url);
    out += &format!("  {DIM}directory{DIM:#}  {}\n", app.directory);
    out += &format!("  {DIM}state{DIM:#}      {style}{}{style:#}, version {}\n", app.state, app.version);
    out
}

fn function_lines(function: &Function, url: &str) -> String {
    let mut out = format!("{NAME}{}{NAME:#} {}\n", function.id, function.signature());
    if let Some(doc) = &function.signature.doc {
        out += &indented(doc, "  ");
    }
    let mut limits = format!("timeout {} s", function.timeout);
    if let Some(concurrency) = function.concurrency {
        limits += &format!(", at most {concurrency} calls in flight");
    }
    if !function.public {
        limits += ", private: HTTP callers get 404";
    }
    out += &format!("  {DIM}file{DIM:#}       {} ({})\n", function.file, function.language);
    out += &format!("  {DIM}limits{DIM:#}     {limits}\n");
    if function.public {
        out += &format!("  {DIM}try{DIM:#}        {}\n", function.curl(url));
    }
    out
}

fn indented(text: &str, by: &str) -> String {
    text.trim_end().lines().map(|line| format!("{}\n", format!("{by}{line}").trim_end())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listing() -> Listing {
        let json = serde_json::json!([{
            "name": "shop", "directory": "/srv/shop", "version": "0123456789ab", "state": "ready",
            "pools": [super::super::ps::sample()],
            "functions": [{"id": "shop/total", "module": "cart", "file": "cart.js", "language": "node", "timeout": 2.5,
                           "public": true, "doc": "Adds.\n\nAll of it.", "parameters": [{"name": "items"}]}],
        }])
        .to_string();
        Listing { apps: serde_json::from_str(&json).unwrap(), json: serde_json::from_str(&json).unwrap() }
    }

    fn plain(name: Option<&str>) -> String {
        anstream::adapter::strip_str(&describe(&listing(), name, "http://n").unwrap()).to_string()
    }

    #[test]
    fn function_shows_file_limits_doc_and_curl() {
        let text = plain(Some("shop/total"));
        for part in [
            "shop/total (items)",
            "  Adds.\n\n  All of it.\n",
            "cart.js (node)",
            "timeout 2.5 s",
            "curl http://n/shop/total -d",
            "ready",
        ] {
            assert!(text.contains(part), "{part:?} in {text}");
        }
    }

    #[test]
    fn app_shows_its_pools_and_functions() {
        let text = plain(Some("shop"));
        assert!(text.contains("pid 7, 0 calls in flight, 2 queued") && text.contains("shop/total"), "{text}");
        assert_eq!(text, plain(None));
    }

    #[test]
    fn json_is_the_part_that_was_named() {
        let function: Value = serde_json::from_str(&json(&listing(), Some("shop/total")).unwrap()).unwrap();
        assert_eq!(function["file"], "cart.js");
        let app: Value = serde_json::from_str(&json(&listing(), Some("shop")).unwrap()).unwrap();
        assert_eq!(app["pools"][0]["started"], 1);
    }

    #[test]
    fn unknown_name_gets_the_nearest() {
        let stop = describe(&listing(), Some("shop/totl"), "http://n").unwrap_err();
        assert!(stop.message.contains("shop/total"), "{}", stop.message);
    }
}
