//! `fnmesh dev`: one node, or a mesh of several that ends with the command.

mod arguments;
mod child;
mod mesh;
mod node;

use std::future;

pub(super) use node::run as node;

use super::{Stop, client, logs, options::Dev, serve};
use crate::Config;

/// What is shown: requests too, which `serve` keeps to itself.
const LEVELS: &str = "info,fnmesh::request=debug";

pub(super) fn dev(options: Dev) -> Result<u8, Stop> {
    if options.nodes > 1 {
        return client::block_on(mesh::run(options));
    }
    start_logs(options.node.log.as_deref())?;
    serve::run(options.node, |config| Config { watch: true, ..config }, future::pending())
}

fn start_logs(levels: Option<&str>) -> Result<(), Stop> {
    serve::start_logs(logs::Format::Dev, levels.unwrap_or(LEVELS))
}
