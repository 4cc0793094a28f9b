//! Where a call runs: here, or at a peer.

use std::{cell::RefCell, collections::HashMap, sync::Arc, time::Instant};

use fnmesh_invoke::{AppStatus, Error, Function, FunctionId, Invocation, Invoke, Reply, Retry, Target};
use tokio::time::timeout_at;

use crate::{
    Handle, NodeId,
    rpc::{self, PeerError},
};

/// How often a call may be forwarded between nodes, or from function to function.
pub const MAX_HOPS: u8 = 8;

/// To how many peers one call is sent at most.
const ATTEMPTS: usize = 3;

/// Functions of peers that a thread remembers; with more it forgets them all and asks again.
const REMEMBERED: usize = 10_000;

/// Sends each call to where it runs. One for each gateway thread.
#[derive(Debug)]
pub struct Dispatch<L> {
    local: L,
    mesh: Option<Handle>,
    /// The functions of peers that were called here, with the content hash of the version they are of.
    remote: RefCell<HashMap<FunctionId, ([u8; 32], Arc<Function>)>>,
}

impl<L: Invoke> Dispatch<L> {
    /// Runs calls on `local`, and those it does not serve at the peers of `mesh`.
    pub fn new(local: L, mesh: Option<Handle>) -> Self {
        Self { local, mesh, remote: RefCell::default() }
    }

    /// What a peer says of a function that this node does not serve.
    async fn resolve_remote(
        &self,
        mesh: &Handle,
        app: &str,
        name: &str,
        unknown: Error,
    ) -> Result<Arc<Function>, Error> {
        let Some((hash, peers)) = peers_of(mesh, app, name) else { return Err(nearer(mesh, app, name, unknown)) };
        let id = FunctionId { app: app.into(), name: name.into() };
        if let Some((known, function)) = self.remote.borrow().get(&id)
            && *known == hash
        {
            return Ok(Arc::clone(function));
        }
        let mut last = unknown;
        for peer in shuffled(peers).into_iter().take(ATTEMPTS) {
            let described = match mesh.callers().get(peer) {
                Some(caller) => rpc::describe(&caller, id.clone()).await,
                None => Err(PeerError::NotSent("there is no link to it".to_owned())),
            };
            match described {
                Ok(function) => {
                    let function = Arc::new(function);
                    let mut remote = self.remote.borrow_mut();
                    if remote.len() >= REMEMBERED {
                        remote.clear();
                    }
                    remote.insert(id, (hash, Arc::clone(&function)));
                    return Ok(function);
                }
                Err(PeerError::NotSent(reason) | PeerError::Lost(reason)) => {
                    last = Error::PeerUnreachable { peer: peer.to_string(), reason };
                }
                Err(PeerError::Failed(error)) => last = error,
            }
        }
        Err(last)
    }

    async fn call_remote(&self, mesh: &Handle, invocation: Invocation) -> Result<Reply, Error> {
        let id = invocation.function.id.clone();
        let peers = peers_of(mesh, &id.app, &id.name).map(|(_, peers)| shuffled(peers)).unwrap_or_default();
        let mut last =
            Error::PeerUnreachable { peer: "any".to_owned(), reason: format!("no node that serves {id} is in reach") };
        for peer in peers.into_iter().take(ATTEMPTS) {
            let outcome = self.forward(mesh, peer, &invocation).await;
            match outcome {
                Err(error) if may_retry(&error, &invocation) => last = error,
                outcome => return outcome,
            }
        }
        Err(last)
    }

    async fn forward(&self, mesh: &Handle, peer: NodeId, invocation: &Invocation) -> Result<Reply, Error> {
        let function = &invocation.function;
        let unreachable = |reason| Error::PeerUnreachable { peer: peer.to_string(), reason };
        let Some(caller) = mesh.callers().get(peer) else {
            return Err(unreachable("there is no link to it".to_owned()));
        };
        let answer = timeout_at(invocation.deadline.instant().into(), rpc::invoke(&caller, invocation)).await;
        match answer {
            Ok(Ok(reply)) => Ok(reply),
            Ok(Err(PeerError::Failed(error))) => Err(error),
            Ok(Err(PeerError::NotSent(reason))) => Err(unreachable(reason)),
            Ok(Err(PeerError::Lost(reason))) => {
                Err(Error::OutcomeUnknown { function: function.id.clone(), peer: peer.to_string(), reason })
            }
            Err(_) => Err(Error::DeadlineExceeded { function: function.id.clone(), timeout: function.limits.timeout }),
        }
    }
}

impl<L: Invoke> Invoke for Dispatch<L> {
    async fn resolve(&self, app: &str, name: &str) -> Result<Arc<Function>, Error> {
        match (self.local.resolve(app, name).await, &self.mesh) {
            (Err(error @ Error::UnknownFunction { .. }), Some(mesh)) => {
                Box::pin(self.resolve_remote(mesh, app, name, error)).await
            }
            (resolved, _) => resolved,
        }
    }

    async fn call(&self, invocation: Invocation) -> Result<Reply, Error> {
        if invocation.hops > MAX_HOPS {
            return Err(Error::LoopDetected { hops: invocation.hops });
        }
        // A call that begins here has all of its time left.
        if invocation.hops > 0 && invocation.deadline.is_over(Instant::now()) {
            let function = &invocation.function;
            return Err(Error::DeadlineExceeded { function: function.id.clone(), timeout: function.limits.timeout });
        }
        match &self.mesh {
            Some(mesh) if invocation.function.target == Target::ELSEWHERE => {
                Box::pin(self.call_remote(mesh, invocation)).await
            }
            _ => self.local.call(invocation).await,
        }
    }

    fn apps(&self) -> Vec<AppStatus> {
        self.local.apps()
    }
}

/// Whether the same call may be sent to another peer: the function did not run, or the caller said that running it
/// twice is running it once.
fn may_retry(error: &Error, invocation: &Invocation) -> bool {
    match error.retry() {
        Retry::Safe => true,
        // An answer of the function itself is an answer.
        Retry::IfIdempotent => {
            matches!(error, Error::OutcomeUnknown { .. } | Error::InstanceLost { .. })
                && invocation.idempotency_key.is_some()
        }
        Retry::Never => false,
    }
}

/// The peers that serve a function in its newest version, and that version's content hash.
fn peers_of(mesh: &Handle, app: &str, name: &str) -> Option<([u8; 32], Vec<NodeId>)> {
    let table = mesh.routes().load();
    let route = table.lookup(app, name)?;
    let own = mesh.node();
    let peers: Vec<_> = route.version.peers().iter().map(|peer| peer.node).filter(|peer| *peer != own).collect();
    (!peers.is_empty()).then(|| (*route.version.hash(), peers))
}

fn shuffled(mut peers: Vec<NodeId>) -> Vec<NodeId> {
    fastrand::shuffle(&mut peers);
    peers
}

/// The names of the whole mesh that look like the wanted one, in place of those of this node.
fn nearer(mesh: &Handle, app: &str, name: &str, unknown: Error) -> Error {
    match unknown {
        Error::UnknownFunction { function, nearest: here } => {
            let everywhere = mesh.routes().load().nearest(app, name);
            Error::UnknownFunction { function, nearest: if everywhere.is_empty() { here } else { everywhere } }
        }
        other => other,
    }
}
