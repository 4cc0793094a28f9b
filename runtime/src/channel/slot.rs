//! One call on a channel, as its caller and the worker see it. No I/O.

use std::{
    collections::VecDeque,
    mem,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

use fnmesh_invoke::{Deadline, Error, Function, InvocationId, Payload, Reply, ReplyBody, ResponseHead};
use tokio::sync::OwnedSemaphorePermit;

/// What the worker said about a call, as far as the caller has not taken it yet.
#[derive(Debug)]
enum Answer {
    /// Nothing yet.
    Pending,
    /// A value, or why there is none.
    Whole(Result<Reply, Error>),
    /// Items that wait to be taken. `opened` once the caller knows that it is a stream.
    Stream { head: Option<Box<ResponseHead>>, items: VecDeque<Payload>, end: Option<Result<(), Error>>, opened: bool },
    /// The caller has all it will get.
    Taken,
}

/// What a poll of a call gives its caller.
#[derive(Debug)]
pub(super) enum Opened {
    /// The answer; the caller is done with the slot.
    Whole(Result<Reply, Error>),
    /// The answer streams: go on with [`Slot::poll_item`].
    Stream(Option<Box<ResponseHead>>),
}

/// One call. Free to be reused once the worker has answered and the caller is done: [`Slot::is_over`].
#[derive(Debug)]
pub(super) struct Slot {
    pub(super) id: InvocationId,
    pub(super) function: Arc<Function>,
    pub(super) deadline: Deadline,
    answer: Answer,
    waker: Option<Waker>,
    worker_done: bool,
    caller_done: bool,
    cancelled: bool,
    /// A place under the function's own limit, held while the worker has the call.
    permit: Option<OwnedSemaphorePermit>,
}

impl Slot {
    pub(super) fn new(
        id: InvocationId,
        function: Arc<Function>,
        deadline: Deadline,
        permit: Option<OwnedSemaphorePermit>,
    ) -> Self {
        let answer = Answer::Pending;
        let (worker_done, caller_done, cancelled) = (false, false, false);
        Self { id, function, deadline, answer, waker: None, worker_done, caller_done, cancelled, permit }
    }

    /// Whether the id may be used again.
    pub(super) fn is_over(&self) -> bool {
        self.worker_done && self.caller_done
    }

    /// Whether the worker still has it.
    pub(super) fn is_running(&self) -> bool {
        !self.worker_done
    }

    /// Whether the worker still has it although the caller no longer waits.
    pub(super) fn is_abandoned(&self) -> bool {
        self.caller_done && !self.worker_done
    }

    /// Whether the worker should have given it up by `now`.
    pub(super) fn is_stuck(&self, now: Instant, grace: Duration) -> bool {
        !self.worker_done && now.saturating_duration_since(self.deadline.instant()) > grace
    }

    /// Whether the worker has yet to be told that its answer is no longer wanted; true once.
    pub(super) fn cancel(&mut self) -> bool {
        !self.worker_done && !mem::replace(&mut self.cancelled, true)
    }

    /// The worker sent a result. Ends the stream if one is open.
    pub(super) fn result(&mut self, reply: Option<Reply>) {
        self.worker_done = true;
        self.permit = None;
        match (&mut self.answer, reply) {
            (Answer::Stream { end, .. }, _) => *end = Some(Ok(())),
            (Answer::Pending, Some(reply)) => self.answer = Answer::Whole(Ok(reply)),
            (Answer::Pending, None) => {
                let items = VecDeque::new();
                self.answer = Answer::Stream { head: None, items, end: Some(Ok(())), opened: false };
            }
            (Answer::Whole(_) | Answer::Taken, _) => {}
        }
        self.wake();
    }

    /// The worker sent an error, or died.
    pub(super) fn worker_error(&mut self, error: Error) {
        self.worker_done = true;
        self.permit = None;
        self.caller_error(error);
    }

    /// The caller gets this error although the worker still has the call.
    pub(super) fn caller_error(&mut self, error: Error) {
        match &mut self.answer {
            Answer::Pending => self.answer = Answer::Whole(Err(error)),
            Answer::Stream { end: end @ None, .. } => *end = Some(Err(error)),
            _ => {}
        }
        self.wake();
    }

    /// The worker sent an item.
    pub(super) fn chunk(&mut self, head: Option<Box<ResponseHead>>, item: Option<Payload>) {
        if matches!(self.answer, Answer::Pending) {
            self.answer = Answer::Stream { head, items: VecDeque::new(), end: None, opened: false };
        }
        if let Answer::Stream { items, end: None, .. } = &mut self.answer {
            items.extend(item);
        }
        self.wake();
    }

    /// The caller no longer waits.
    pub(super) fn abandon(&mut self) {
        self.caller_done = true;
        self.answer = Answer::Taken;
        self.waker = None;
    }

    /// Waits for the answer to begin. Marks the caller done unless it is a stream.
    pub(super) fn poll_open(&mut self, cx: &Context<'_>) -> Poll<Opened> {
        match &mut self.answer {
            Answer::Stream { head, opened, .. } if !*opened => {
                *opened = true;
                Poll::Ready(Opened::Stream(head.take()))
            }
            Answer::Whole(_) => {
                self.caller_done = true;
                let Answer::Whole(answer) = mem::replace(&mut self.answer, Answer::Taken) else {
                    unreachable!("matched above")
                };
                Poll::Ready(Opened::Whole(answer))
            }
            _ => self.park(cx),
        }
    }

    /// Waits for the next item of an opened stream. Marks the caller done at its end.
    pub(super) fn poll_item(&mut self, cx: &Context<'_>) -> Poll<Option<Result<Payload, Error>>> {
        let Answer::Stream { items, end, .. } = &mut self.answer else {
            return Poll::Ready(None);
        };
        if let Some(item) = items.pop_front() {
            return Poll::Ready(Some(Ok(item)));
        }
        let Some(end) = end.take() else {
            return self.park(cx);
        };
        self.caller_done = true;
        self.answer = Answer::Taken;
        Poll::Ready(end.err().map(Err))
    }

    fn park<T>(&mut self, cx: &Context<'_>) -> Poll<T> {
        match &mut self.waker {
            Some(waker) => waker.clone_from(cx.waker()),
            None => self.waker = Some(cx.waker().clone()),
        }
        Poll::Pending
    }

    fn wake(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

/// A reply as a result frame carries it; `None` for the end of a stream.
pub(super) fn reply(head: Option<Box<ResponseHead>>, payload: Option<Payload>) -> Option<Reply> {
    payload.map(|payload| Reply::new(head, ReplyBody::Full(payload)))
}
