//! Nodes that are said to be dead, and what is kept of nodes that are gone.

use std::time::Duration;

use fnmesh_invoke::Invoke;
use tokio::time::sleep;

use super::{Driver, Input};
use crate::{NodeId, links::shows_life};

/// How long a node that is said to be dead and answers has to tell the mesh so.
const OBJECTION: Duration = Duration::from_secs(1);
/// Why the links to it are closed.
const DEAD: &str = "this node is taken for dead";

impl<L: Invoke + Clone> Driver<L> {
    /// Sees whether a node that membership takes for dead answers this one: a part of the mesh that was cut off takes
    /// the others for dead, and says so when it is back. Such a node says at once that it lives; until then its routes
    /// and the calls on its link stay.
    pub(super) fn doubt(&mut self, node: NodeId, doubted: &mut Vec<NodeId>) {
        let Some(caller) = self.links.callers().get(node) else { return self.bury(node) };
        doubted.push(node);
        let inputs = self.inputs.clone();
        self.tasks.spawn_local(async move {
            let verdict = if shows_life(&caller).await {
                tracing::info!(target: "fnmesh::mesh", peer = %node, "node is said to be down, and answers");
                sleep(OBJECTION).await;
                Input::Objected(node)
            } else {
                Input::Silent(node)
            };
            let _ = inputs.send(verdict);
        });
    }

    /// Ends the links to a node that is dead, unless it has come back while it was asked.
    pub(super) fn bury(&mut self, node: NodeId) {
        if self.membership.borrow().member(node).is_none() {
            tracing::warn!(target: "fnmesh::mesh", peer = %node, "node is down");
            self.links.close(node, DEAD);
            self.forget_gone(node);
        }
        self.follow([node]);
    }

    /// Keeps nothing of a node that is gone; if it comes back it is told what is deployed, and answers anew.
    pub(super) fn forget_gone(&mut self, node: NodeId) {
        if self.is_gone(node) {
            self.unknowing.remove(&node);
        }
    }

    pub(super) fn is_gone(&self, node: NodeId) -> bool {
        self.membership.borrow().member(node).is_none() && self.links.callers().get(node).is_none()
    }
}
