//! Commands that go to the node's control socket: only the node's own user can give them.

use std::path::PathBuf;

use serde_json::Value;

use super::{Stop, options::OwnNode};
use crate::{
    running,
    socket::{self, AskError, Request},
    terminal::{self, DIM},
};

/// Asks the node whose data the options name, or the only one that runs here; shows the steps it tells.
///
/// # Errors
/// An unreachable [`Stop`] when no node runs there, a failed one with what the node says.
pub(super) async fn ask(node: &OwnNode, request: Request) -> Result<Value, Stop> {
    let data = match &node.data {
        Some(data) => data.clone(),
        None => only().await?,
    };
    let tell = |step: &str| {
        if !node.json {
            terminal::print_error(format!("{DIM}{step}{DIM:#}\n").as_bytes());
        }
    };
    socket::ask(&data, request, tell).await.map_err(|error| match error {
        AskError::Unreachable(message) => {
            Stop::unreachable(format!("{message}; --data names the directory of a running node"))
        }
        AskError::Refused(message) => Stop::failed(message),
    })
}

/// The data of the only node of a mesh that this user runs on this machine.
async fn only() -> Result<PathBuf, Stop> {
    let mut all = running::nodes().await;
    match (all.pop(), all.is_empty()) {
        (Some(data), true) => Ok(data),
        (Some(data), false) => {
            all.push(data);
            let list: String = all.iter().map(|data| format!("\n  --data {}", data.display())).collect();
            Err(Stop::usage(format!("several nodes run on this machine; say which one:{list}")))
        }
        (None, _) => Err(Stop::unreachable(
            "no node of a mesh runs on this machine; start one with `fnmesh serve --mesh 127.0.0.1:0 --data DIR`, or \
             name the directory of one with --data",
        )),
    }
}
