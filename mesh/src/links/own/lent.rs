//! A link while a call uses it.

use std::{
    cell::Cell,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
    time::Duration,
};

use fnmesh_invoke::{ChunkStream, Error, Payload, Reply, ReplyBody};
use futures_core::Stream;
use tokio::time::{Instant, sleep};

use crate::transport::Caller;

/// How much an own link is used.
pub(super) struct Usage {
    calls: Cell<usize>,
    /// When one ended last.
    last: Cell<Instant>,
}

impl Default for Usage {
    fn default() -> Self {
        Self { calls: Cell::default(), last: Cell::new(Instant::now()) }
    }
}

impl Usage {
    /// Waits until there was no call for this long.
    pub(super) async fn idle(&self, enough: Duration) {
        loop {
            let idle = if self.calls.get() > 0 { Duration::ZERO } else { self.last.get().elapsed() };
            match enough.checked_sub(idle).filter(|left| !left.is_zero()) {
                Some(left) => sleep(left).await,
                None => return,
            }
        }
    }
}

/// Keeps an own link from being taken for idle.
struct Using(Rc<Usage>);

impl Drop for Using {
    fn drop(&mut self) {
        self.0.calls.update(|calls| calls - 1);
        self.0.last.set(Instant::now());
    }
}

/// What one call uses.
pub(super) struct Lent {
    caller: Caller,
    /// Of an own link.
    using: Option<Using>,
}

impl Lent {
    pub(super) fn shared(caller: Caller) -> Self {
        Self { caller, using: None }
    }

    pub(super) fn own(caller: Caller, usage: &Rc<Usage>) -> Self {
        usage.calls.update(|calls| calls + 1);
        Self { caller, using: Some(Using(Rc::clone(usage))) }
    }

    pub(super) fn caller(&self) -> &Caller {
        &self.caller
    }

    /// Whether it is a link of the thread, so that there is another way to the peer.
    pub(super) fn is_own(&self) -> bool {
        self.using.is_some()
    }

    /// Lends it until all of `reply` is read.
    pub(super) fn until_read(self, reply: Reply) -> Reply {
        match (reply, self.using) {
            (Reply { head, body: ReplyBody::Stream(chunks), .. }, Some(using)) => {
                Reply::new(head, ReplyBody::Stream(Box::pin(Held { chunks, _using: using })))
            }
            (reply, _) => reply,
        }
    }
}

/// A streamed answer that is read from an own link.
struct Held {
    chunks: ChunkStream,
    _using: Using,
}

impl Stream for Held {
    type Item = Result<Payload, Error>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.chunks.as_mut().poll_next(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::timeout;

    use super::*;

    const ENOUGH: Duration = Duration::from_secs(60);

    fn using(usage: &Rc<Usage>) -> Using {
        usage.calls.update(|calls| calls + 1);
        Using(Rc::clone(usage))
    }

    #[tokio::test(start_paused = true)]
    async fn idle_begins_when_the_last_call_ends() {
        let usage = Rc::<Usage>::default();
        let (first, second) = (using(&usage), using(&usage));
        assert!(timeout(ENOUGH * 3, usage.idle(ENOUGH)).await.is_err());
        drop(first);
        assert!(timeout(ENOUGH * 3, usage.idle(ENOUGH)).await.is_err());
        drop(second);
        let ended = Instant::now();
        usage.idle(ENOUGH).await;
        assert_eq!(ended.elapsed(), ENOUGH);
    }
}
