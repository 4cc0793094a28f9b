use std::{sync::Arc, time::Instant};

use fnmesh_invoke::{AppStatus, Error, Function, Invocation, Invoke, Reply, Room, Target};

use crate::{Handle, balance::Local, membership::Load, remote::Remote};

/// How often a call may be forwarded between nodes, or from function to function.
pub const MAX_HOPS: u8 = 8;

/// Sends each call to where it runs: here if this node serves the function, else to a peer. One for each gateway
/// thread.
#[derive(Debug)]
pub struct Dispatch<L> {
    local: L,
    remote: Option<Remote>,
}

impl<L: Invoke> Dispatch<L> {
    /// Runs calls on `local`, and those of functions it does not serve at the peers of `mesh`. With a mesh it has tasks
    /// on its thread: call it where [`tokio::task::spawn_local`] works.
    pub fn new(local: L, mesh: Option<Handle>) -> Self {
        Self { local, remote: mesh.map(Remote::new) }
    }
}

impl<L: Invoke> Dispatch<L> {
    async fn resolve_elsewhere(
        &self,
        remote: &Remote,
        app: &str,
        name: &str,
        unknown: Error,
    ) -> Result<Arc<Function>, Error> {
        // It may come here.
        if remote.route_comes(app).await?
            && let Ok(function) = self.local.resolve(app, name).await
        {
            return Ok(function);
        }
        let is_here = || self.local.apps().iter().any(|status| status.name == app);
        remote.resolve(app, name, unknown, is_here).await
    }
}

impl<L: Invoke> Invoke for Dispatch<L> {
    async fn resolve(&self, app: &str, name: &str) -> Result<Arc<Function>, Error> {
        match (self.local.resolve(app, name).await, &self.remote) {
            // Boxed, as the way to a peer is long and should not make that of every call larger.
            (Err(error @ Error::UnknownFunction { .. }), Some(remote)) => {
                Box::pin(self.resolve_elsewhere(remote, app, name, error)).await
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
        let Some(remote) = &self.remote else { return self.local.call(invocation).await };
        let room = if invocation.function.target == Target::ELSEWHERE {
            Local::Absent
        } else {
            match self.local.room(&invocation.function) {
                Room::Free => return self.local.call(invocation).await,
                Room::Full { calls, capacity } => Local::Saturated(Load::new(calls, capacity)),
                // It was served here when the call came in.
                Room::Gone => Local::Absent,
            }
        };
        Box::pin(remote.call(&self.local, room, invocation)).await
    }

    fn room(&self, function: &Function) -> Room {
        self.local.room(function)
    }

    fn apps(&self) -> Vec<AppStatus> {
        self.local.apps()
    }
}
