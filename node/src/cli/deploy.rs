//! What is deployed on the mesh: changed and listed.

use std::{
    env,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use bytesize::ByteSize;
use serde::Deserialize;

use super::{
    FAILED, OK, Stop,
    client::Client,
    options::{Deploy, Deployments, Rm},
    own,
};
use crate::{
    report,
    socket::Request,
    table::{self, Row},
    terminal::{self, GOOD, NAME, WARNING},
};

/// What a node says of a deployment that it has made.
#[derive(Debug, Deserialize)]
struct Deployed {
    app: String,
    version: u64,
    hash: String,
    changed: bool,
    nodes: Vec<String>,
    wanted: usize,
}

/// A deployment as `/_/deployments` describes it.
#[derive(Debug, Deserialize)]
struct Deployment {
    app: String,
    version: u64,
    hash: String,
    replicas: String,
    bundle_bytes: u64,
    deployed_unix_ms: u64,
    nodes: Vec<String>,
}

pub(super) async fn deploy(options: Deploy) -> Result<u8, Stop> {
    // The node has another working directory.
    let here = env::current_dir().map_err(|error| Stop::failed(format!("no working directory: {error}")))?;
    let directory = here.join(&options.directory);
    let request = Request::Deploy { directory, name: options.name, replicas: options.replicas };
    let result = own::ask(&options.node, request).await?;
    let unreadable = |error| Stop::failed(format!("the answer cannot be read: {error}"));
    let deployed: Deployed = serde_json::from_value(result.clone()).map_err(unreadable)?;
    let is_complete = deployed.nodes.len() >= deployed.wanted;
    terminal::print(&if options.node.json { format!("{result}\n") } else { text(&deployed) });
    Ok(if is_complete { OK } else { FAILED })
}

fn text(Deployed { app, version, hash, changed, nodes, wanted }: &Deployed) -> String {
    let what = if *changed { "deployed" } else { "unchanged" };
    let on = nodes.join(", ");
    let mut text = format!("{GOOD}{what}{GOOD:#} {NAME}{app}{NAME:#} v{version} ({hash}) on {on}\n");
    if nodes.len() < *wanted {
        text += &format!(
            "{WARNING}warning:{WARNING:#} {} of {wanted} nodes serve it so far; `fnmesh routes {app}` shows which, and \
             the log of the others why not\n",
            nodes.len()
        );
    }
    text
}

pub(super) async fn remove(options: Rm) -> Result<u8, Stop> {
    let result = own::ask(&options.node, Request::Remove { app: options.app.clone() }).await?;
    terminal::print(&if options.node.json {
        format!("{result}\n")
    } else {
        format!("removed {NAME}{}{NAME:#} v{}\n", options.app, result["version"])
    });
    Ok(OK)
}

pub(super) async fn deployments(options: Deployments) -> Result<u8, Stop> {
    let client = Client::new(&options.query.target.node)?;
    let list = client.list("/_/deployments", "deployments").await?;
    if options.query.json {
        terminal::print(&format!("{}\n", list.json));
        return Ok(OK);
    }
    let deployments = list.read::<Deployment>()?;
    if deployments.is_empty() {
        terminal::print("nothing is deployed; `fnmesh deploy DIR` deploys an app\n");
    } else {
        let header = ["APP", "VERSION", "REPLICAS", "BUNDLE", "DEPLOYED", "NODES"];
        terminal::print(&table::render(&header, deployments.into_iter().map(row).collect()));
    }
    Ok(OK)
}

fn row(deployment: Deployment) -> Row {
    let age = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let age = age.saturating_sub(Duration::from_millis(deployment.deployed_unix_ms));
    let last = if deployment.nodes.is_empty() { WARNING } else { GOOD };
    let nodes = if deployment.nodes.is_empty() { "none".to_owned() } else { deployment.nodes.join(" ") };
    let cells = vec![
        deployment.app,
        format!("v{} {}", deployment.version, deployment.hash),
        deployment.replicas,
        ByteSize::b(deployment.bundle_bytes).to_string(),
        format!("{} ago", report::elapsed(age)),
        nodes,
    ];
    Row { cells, first: NAME, last }
}
