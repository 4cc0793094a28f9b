//! What peers are told of removed nodes and of deployments.

use std::sync::Arc;

use fnmesh_invoke::Invoke;
use tokio::{
    sync::mpsc,
    time::{sleep, timeout},
};

use super::{Driver, FETCH_TIMEOUT, Input, LAST_REDIAL};
use crate::{
    NodeId,
    deployments::{Cause, Deployment},
    rpc::{self, PeerError},
};

impl<L: Invoke + Clone> Driver<L> {
    /// Cuts nodes off, and tells the others.
    pub(super) fn exclude(&mut self, nodes: &[NodeId]) {
        for node in nodes {
            tracing::warn!(target: "fnmesh::mesh", peer = %node, "node is removed from the mesh");
            self.links.exclude(*node);
        }
        for node in self.links.callers().nodes() {
            self.tell_denied(node);
        }
    }

    /// Tells a peer which nodes are removed.
    pub(super) fn tell_denied(&mut self, node: NodeId) {
        let denied = self.denied.snapshot();
        if denied.iter().next().is_none() {
            return;
        }
        if let Some(caller) = self.links.callers().get(node) {
            self.tasks.spawn_local(async move {
                // It is told again with the next link.
                if let Ok(Err(PeerError::Failed(error))) = timeout(FETCH_TIMEOUT, rpc::deny(&caller, &denied)).await {
                    tracing::warn!(target: "fnmesh::mesh", peer = %node, %error, "peer does not take removals over");
                }
            });
        }
    }

    /// Tells peers what is deployed; `heard` is dropped once all have heard.
    pub(super) fn spread(&mut self, cause: Cause, heard: Option<mpsc::Sender<()>>) {
        let peers = self.links.callers().nodes();
        let (told, records) = cause.spread(&self.deployments.snapshot(), peers, &mut fastrand::Rng::new());
        for peer in told {
            self.tell_deployed(peer, Arc::clone(&records), heard.clone());
        }
    }

    /// Tells a peer what is deployed, and goes on trying as long as there is a link; `heard` is dropped then. The answer
    /// tells whether it knows of deployments at all.
    pub(super) fn tell_deployed(
        &mut self,
        node: NodeId,
        records: Arc<[Arc<Deployment>]>,
        heard: Option<mpsc::Sender<()>>,
    ) {
        let (callers, inputs) = (self.links.callers().clone(), self.inputs.clone());
        self.tasks.spawn_local(async move {
            let _heard = heard;
            while let Some(caller) = callers.get(node) {
                match timeout(FETCH_TIMEOUT, rpc::announce(&caller, &records)).await {
                    Ok(Ok(deploys)) => {
                        let _ = inputs.send(Input::Deploys(node, deploys));
                        return;
                    }
                    Ok(Err(PeerError::Failed(error))) => {
                        tracing::warn!(target: "fnmesh::mesh", peer = %node, %error, "peer does not take deployments over");
                        return;
                    }
                    // It is told everything with the next link, if this one is gone.
                    Ok(Err(PeerError::NotSent(_) | PeerError::Lost(_))) | Err(_) => sleep(LAST_REDIAL).await,
                }
            }
        });
    }

    /// Notes whether a peer takes part in deployments, which may change with each link to it.
    pub(super) fn note_deploys(&mut self, node: NodeId, deploys: bool) {
        if self.is_gone(node) {
            return;
        }
        let has_changed = if deploys { self.unknowing.remove(&node) } else { self.unknowing.insert(node) };
        if has_changed {
            if !deploys {
                tracing::info!(target: "fnmesh::mesh", peer = %node, "peer is of a version without deployments");
            }
            self.follow([node]);
        }
    }
}
