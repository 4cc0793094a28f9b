use serde::Deserialize;

use super::{
    OK, Stop,
    client::Client,
    options::{Nodes, NodesCommand, RemoveNode},
    own,
};
use crate::{
    socket::Request,
    table::{self, Row},
    terminal::{self, ERROR, GOOD, NAME, WARNING},
};

/// A node as `/_/nodes` describes it.
#[derive(Debug, Deserialize)]
struct Node {
    node: String,
    name: Option<String>,
    zone: Option<String>,
    address: String,
    http: Option<String>,
    status: Option<String>,
    reachable: bool,
    #[serde(rename = "self")]
    is_self: bool,
    apps: Vec<String>,
}

pub(super) async fn nodes(options: Nodes) -> Result<u8, Stop> {
    if let Some(NodesCommand::Rm(options)) = options.command {
        return remove(options).await;
    }
    let client = Client::new(&options.query.target.node)?;
    let list = client.list("/_/nodes", "nodes").await?;
    if options.query.json {
        terminal::print(&format!("{}\n", list.json));
        return Ok(OK);
    }
    let header = ["NODE", "NAME", "ZONE", "MESH ADDRESS", "HTTP", "APPS", "STATE"];
    terminal::print(&table::render(&header, list.read()?.into_iter().map(row).collect()));
    Ok(OK)
}

async fn remove(options: RemoveNode) -> Result<u8, Stop> {
    let result = own::ask(&options.own, Request::RemoveNode { node: options.node }).await?;
    let text = match result.as_str() {
        Some(node) if !options.own.json => format!("{NAME}{node}{NAME:#} is removed from the mesh\n"),
        _ => format!("{result}\n"),
    };
    terminal::print(&text);
    Ok(OK)
}

fn row(node: Node) -> Row {
    let (state, last) = match (node.reachable, node.status) {
        (false, _) => ("unreachable".to_owned(), ERROR),
        (true, None) => ("not known yet".to_owned(), WARNING),
        (true, Some(status)) if status == "serving" => (status, GOOD),
        (true, Some(status)) => (status, WARNING),
    };
    let state = if node.is_self { format!("{state}, this node") } else { state };
    let text = |text: Option<String>| text.unwrap_or_default();
    let cells =
        vec![node.node, text(node.name), text(node.zone), node.address, text(node.http), node.apps.join(", "), state];
    Row { cells, first: NAME, last }
}
