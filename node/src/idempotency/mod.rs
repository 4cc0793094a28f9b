//! Calls with an `Idempotency-Key`: who repeats one gets its stored answer.
//!
//! [`Idempotent`] stands between a gateway thread and what runs calls. The first call with a key runs in a task of its
//! own, so that it ends even when its caller gives up; all others with that key wait for it or get what it answered.
//! `docs/functions.md` has the rules, `docs/adr/0034-idempotency-store.md` the reasons.

mod answer;
mod disk;
mod index;
mod store;
mod table;
#[cfg(test)]
mod tests;

use std::{
    rc::Rc,
    sync::Arc,
    time::{Duration, SystemTime},
};

use fnmesh_invoke::{AppStatus, Deadline, Error, Function, Invocation, Invoke, Reply, ReplyBody, Room};
use tokio::{sync::oneshot, time::timeout_at};
use tokio_util::task::TaskTracker;

use answer::{Answer, Identity};
use index::Ended;
pub(crate) use store::Store;
use store::{Begun, Run};

/// Answers calls with a key from the store, if they ran before; all others go to `I`. One for each gateway thread.
pub(crate) struct Idempotent<I> {
    inner: Rc<I>,
    store: Arc<Store>,
    runs: TaskTracker,
}

impl<I: Invoke> Idempotent<I> {
    pub(crate) fn new(inner: I, store: Arc<Store>) -> Self {
        Self { inner: Rc::new(inner), store, runs: TaskTracker::new() }
    }

    async fn once(&self, invocation: Invocation) -> Result<Reply, Error> {
        let key = invocation.idempotency_key.as_deref().unwrap_or_default();
        if key.is_empty() {
            return Err(Error::invalid("the header Idempotency-Key is empty; make a new key for each new call"));
        }
        // The items of a stream are not kept.
        if invocation.function.signature.is_generator {
            return self.inner.call(invocation).await;
        }
        let id = Identity::of(&invocation, key);
        let deadline = invocation.deadline.instant().into();
        let late = || {
            let function = &invocation.function;
            Error::DeadlineExceeded { function: function.id.clone(), timeout: function.limits.timeout }
        };
        loop {
            match self.store.begin(id, unix_ms()) {
                Begun::Run(run) => return self.run(run, invocation).await,
                Begun::OtherArguments => return Err(Error::KeyReused { function: invocation.function.id.clone() }),
                Begun::Stored(place) => {
                    let read = timeout_at(deadline, self.store.read(id, place)).await.map_err(|_| late())?;
                    if let Some(answer) = read {
                        return answer.replay();
                    }
                }
                Begun::Running(mut ended) => {
                    let waited = timeout_at(deadline, ended.wait_for(Option::is_some)).await.map_err(|_| late())?;
                    // An error: who ran it is gone, and has left no answer.
                    match waited.ok().and_then(|ended| ended.clone()) {
                        Some(Ended::Answer(answer)) => return answer.replay(),
                        Some(Ended::Error(error)) => return Err(error),
                        Some(Ended::Streamed) | None => {}
                    }
                }
            }
        }
    }

    /// Runs a call to its end, whatever becomes of its caller.
    async fn run(&self, run: Run, invocation: Invocation) -> Result<Reply, Error> {
        let (to, answer) = oneshot::channel();
        let inner = Rc::clone(&self.inner);
        self.runs.spawn_local(async move {
            let deadline = invocation.deadline;
            let result = finish(run, inner.call(invocation).await, deadline).await;
            // The caller may have gone.
            let _ = to.send(result);
        });
        answer.await.unwrap_or_else(|_| Err(Error::internal("the call was dropped before it ended")))
    }
}

/// Stores the answer, if it is one to store, before anybody gets it.
async fn finish(run: Run, result: Result<Reply, Error>, deadline: Deadline) -> Result<Reply, Error> {
    let answer = match &result {
        Ok(Reply { head, body: ReplyBody::Full(payload), .. }) => {
            Answer::Value { head: head.clone(), payload: payload.clone() }
        }
        Ok(Reply { body: ReplyBody::Stream(_), .. }) => {
            run.end(Ended::Streamed);
            return result;
        }
        Err(Error::FunctionFailed(failure)) => Answer::Failure(failure.clone()),
        Err(error) => {
            run.end(Ended::Error(error.clone()));
            return result;
        }
    };
    let answer = Arc::new(answer);
    run.keep(&answer, deadline, unix_ms()).await;
    run.end(Ended::Answer(answer));
    result
}

impl<I: Invoke> Invoke for Idempotent<I> {
    async fn resolve(&self, app: &str, name: &str) -> Result<Arc<Function>, Error> {
        self.inner.resolve(app, name).await
    }

    async fn call(&self, invocation: Invocation) -> Result<Reply, Error> {
        // Where a call came from a peer, that one has the answer.
        if invocation.idempotency_key.is_some() && invocation.hops == 0 {
            return Box::pin(self.once(invocation)).await;
        }
        self.inner.call(invocation).await
    }

    fn room(&self, function: &Function) -> Room {
        self.inner.room(function)
    }

    fn apps(&self) -> Vec<AppStatus> {
        self.inner.apps()
    }
}

/// Milliseconds since 1970.
fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO);
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
