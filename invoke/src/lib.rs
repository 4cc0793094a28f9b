//! What a call is. The leaf every other crate builds on; it does no I/O.
//!
//! A caller resolves a name with [`Invoke::resolve`], builds an [`Invocation`] and awaits
//! [`Invoke::call`]; it gets a [`Reply`] or one [`Error`], never nothing.
//!
//! Invariants:
//! - every call ends in a result, an error or a timeout, at the latest at its [`Deadline`];
//! - an [`Error`] knows whether the function may have run ([`Error::retry`]);
//! - dropping the future of a call cancels it.

#![forbid(unsafe_code)]

mod catalog;
mod deadline;
mod error;
mod function;
mod invocation;
mod name;
mod payload;
mod stats;

use std::{future::Future, rc::Rc, sync::Arc};

pub use catalog::{AppState, AppStatus, CircuitState, InstanceState, InstanceStatus, PoolStatus, nearest};
pub use deadline::Deadline;
pub use error::{Error, Failure, Retry};
pub use function::{Function, FunctionId, Language, Limits, Parameter, ParameterKind, Signature, Target, ValueType};
pub use invocation::{Invocation, InvocationId, Traceparent};
pub use name::{MAX_APP_NAME_BYTES, app_name_fault};
pub use payload::{ChunkStream, Format, Payload, Reply, ReplyBody, RequestHead, ResponseHead};
pub use stats::{LATENCY_BUCKETS, Outcome, Stats};

/// Runs functions: here, or wherever the implementation decides.
///
/// One value serves one thread, so that a call does not change threads on its way in or out;
/// futures and replies are therefore not `Send`.
pub trait Invoke: 'static {
    /// Finds the function `app/name`, where `name` is `function` or `module.function`.
    ///
    /// Waits while the app is still starting, for at most its start timeout.
    ///
    /// # Errors
    /// [`Error::UnknownFunction`] with the nearest names, [`Error::InvalidInput`] when a short
    /// name fits two modules, [`Error::StartFailed`] while the app cannot be loaded,
    /// [`Error::Draining`] when the node is stopping.
    fn resolve(&self, app: &str, name: &str) -> impl Future<Output = Result<Arc<Function>, Error>>;

    /// Runs one invocation. Dropping the future cancels it.
    ///
    /// # Errors
    /// Any [`Error`]; at the invocation's deadline [`Error::DeadlineExceeded`].
    fn call(&self, invocation: Invocation) -> impl Future<Output = Result<Reply, Error>>;

    /// Whether a call of `function` could begin now. Cheap to ask before each call; it may be otherwise when the call
    /// comes.
    fn room(&self, function: &Function) -> Room {
        let _ = function;
        Room::Free
    }

    /// Every app, with its functions and state, sorted by name.
    fn apps(&self) -> Vec<AppStatus>;
}

/// Whether a call could begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Room {
    /// At once, or as soon as another instance has started.
    Free,
    /// It would wait for others to end: there are as many instances as there may be, and all are busy.
    Full {
        /// Calls that run and wait.
        calls: usize,
        /// Calls that can run at a time.
        capacity: usize,
    },
    /// The function is not served here any more.
    Gone,
}

impl<I: Invoke> Invoke for Rc<I> {
    async fn resolve(&self, app: &str, name: &str) -> Result<Arc<Function>, Error> {
        (**self).resolve(app, name).await
    }

    async fn call(&self, invocation: Invocation) -> Result<Reply, Error> {
        (**self).call(invocation).await
    }

    fn room(&self, function: &Function) -> Room {
        (**self).room(function)
    }

    fn apps(&self) -> Vec<AppStatus> {
        (**self).apps()
    }
}
