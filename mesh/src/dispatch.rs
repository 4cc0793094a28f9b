use std::{sync::Arc, time::Instant};

use fnmesh_invoke::{AppStatus, Error, Function, Invocation, Invoke, Reply};

/// How often a call may be forwarded between nodes, or from function to function.
pub const MAX_HOPS: u8 = 8;

/// Sends each call to where it runs: here.
#[derive(Clone, Debug)]
pub struct Dispatch<L> {
    local: L,
}

impl<L: Invoke> Dispatch<L> {
    /// Runs calls on `local`.
    pub fn new(local: L) -> Self {
        Self { local }
    }
}

impl<L: Invoke> Invoke for Dispatch<L> {
    async fn resolve(&self, app: &str, name: &str) -> Result<Arc<Function>, Error> {
        self.local.resolve(app, name).await
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
        self.local.call(invocation).await
    }

    fn apps(&self) -> Vec<AppStatus> {
        self.local.apps()
    }
}
