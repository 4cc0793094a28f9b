//! Commands that go to the node's control socket: only the node's own user can give them.

use serde_json::Value;

use super::{Stop, options::OwnNode};
use crate::socket::{self, AskError, Request};

/// Asks the node whose data the options name.
///
/// # Errors
/// An unreachable [`Stop`] when no node runs there, a failed one with what the node says.
pub(super) async fn ask(node: &OwnNode, request: Request) -> Result<Value, Stop> {
    socket::ask(&node.data, request).await.map_err(|error| match error {
        AskError::Unreachable(message) => {
            Stop::unreachable(format!("{message}; --data names the directory of a running node"))
        }
        AskError::Refused(message) => Stop::failed(message),
    })
}
