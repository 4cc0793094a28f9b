//! Connections that threads of peers have dialled for their calls.

use std::{cell::RefCell, collections::BTreeMap};

use quinn::{Connection, VarInt};
use tokio::sync::Notify;

use crate::NodeId;

/// So many are served at a time; calls of other threads come over the link of their node.
const MOST: usize = 1024;

/// Which they are, so that they end with the link beside them.
#[derive(Default)]
pub(super) struct Served {
    connections: RefCell<BTreeMap<NodeId, Vec<Connection>>>,
    /// Told when the last one has ended.
    ended: Notify,
}

impl Served {
    /// Remembers a connection; `false` if there are too many.
    pub(super) fn add(&self, peer: NodeId, connection: &Connection) -> bool {
        let mut served = self.connections.borrow_mut();
        let has_room = served.values().map(Vec::len).sum::<usize>() < MOST;
        if has_room {
            served.entry(peer).or_default().push(connection.clone());
        }
        has_room
    }

    /// Forgets a connection.
    pub(super) fn remove(&self, peer: NodeId, connection: &Connection) {
        let mut served = self.connections.borrow_mut();
        if let Some(connections) = served.get_mut(&peer) {
            connections.retain(|other| other.stable_id() != connection.stable_id());
            if connections.is_empty() {
                served.remove(&peer);
            }
        }
        if served.is_empty() {
            self.ended.notify_one();
        }
    }

    /// Resolves when there is none.
    pub(super) async fn ended(&self) {
        while !self.connections.borrow().is_empty() {
            self.ended.notified().await;
        }
    }

    /// Closes all of a peer's. Requests that are still answered on them are withdrawn.
    pub(super) fn close(&self, peer: NodeId, code: VarInt, reason: &str) {
        for connection in self.connections.borrow_mut().remove(&peer).unwrap_or_default() {
            connection.close(code, reason.as_bytes());
        }
    }
}
