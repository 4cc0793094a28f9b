//! One gateway thread's socket to one instance, and the calls in flight on it.
//!
//! Callers append frames to a buffer; a driver task writes what one tick of the thread gathered in one
//! write, and reads replies until there are none. Everything here lives on one thread.
//!
//! Invariants: an id is in use until the worker answered and the caller is done; each call on a channel
//! that closes gets an error; only calls whose frame reached the socket can be lost.

mod driver;
mod pace;
mod slot;

use std::{
    cell::{Cell, RefCell},
    future::poll_fn,
    pin::Pin,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll, Waker, ready},
    time::{Duration, Instant},
};

use bytes::Bytes;
use fnmesh_invoke::{Error, Format, Invocation, Payload, Reply, ReplyBody, ResponseHead};
use futures_core::Stream;
use serde::Serialize;
use slab::Slab;
use tokio::sync::OwnedSemaphorePermit;

pub(crate) use driver::drive;
use pace::Pace;
use slot::{Opened, Slot};

use crate::{
    instance::{Counter, Instance},
    worker::{
        code,
        frame::{self, BodyFormat, Header, INVOKE_META_BYTES, Kind},
    },
};

/// Why a worker should stop working on a call; the `aux` of a cancel frame.
const CALLER_GONE: u16 = 0;
const DEADLINE_PASSED: u16 = 1;
/// Credit is granted in portions, so that not every item costs a frame.
const CREDIT_PORTION: u16 = frame::INITIAL_CREDIT / 2;

/// The sending half and the calls; the receiving half is [`drive`].
pub(crate) struct Channel {
    instance: Arc<Instance>,
    /// The calls of this thread.
    calls: Arc<Counter>,
    pace: Pace,
    state: RefCell<State>,
}

#[derive(Default)]
struct State {
    /// Frames on their way out; `written` bytes of it are already gone.
    out: Vec<u8>,
    written: usize,
    slots: Slab<Slot>,
    driver: Option<Waker>,
    driver_woken: bool,
    closed: bool,
}

impl State {
    fn wake_driver(&mut self) {
        if !self.driver_woken {
            self.driver_woken = true;
            if let Some(driver) = &self.driver {
                driver.wake_by_ref();
            }
        }
    }

    fn slot(&mut self, id: u32) -> Option<&mut Slot> {
        self.slots.get_mut((id as usize).wrapping_sub(1))
    }

    /// Answers a call that came from the worker.
    fn refuse(&mut self, id: u32) {
        let header = Header::new(Kind::Error, id).format(BodyFormat::Json).aux(code::UNKNOWN_FUNCTION);
        let body = br#"{"type":"UnknownFunction","message":"functions cannot call others through this node"}"#;
        frame::encode(header, &[], body, &mut self.out);
        self.wake_driver();
    }

    fn send(&mut self, header: Header) {
        frame::encode(header, &[], &[], &mut self.out);
        self.wake_driver();
    }
}

impl Channel {
    pub(crate) fn new(instance: Arc<Instance>) -> Rc<Self> {
        Rc::new(Self { calls: instance.counter(), instance, pace: Pace::default(), state: RefCell::default() })
    }

    pub(crate) fn instance(&self) -> &Arc<Instance> {
        &self.instance
    }

    /// Counts one more call, of this function, on the instance, if it has room for one.
    pub(crate) fn begin(&self, function: u16) -> bool {
        let begun = self.instance.begin(function);
        if begun {
            self.calls.add_one();
        }
        begun
    }

    /// Whether calls of this thread have been waiting long for their answers.
    pub(crate) fn is_slow(&self) -> bool {
        self.pace.is_slow()
    }

    /// As if a sweep had found so many calls without an answer.
    #[cfg(test)]
    pub(crate) fn tick(&self, running: usize) {
        self.pace.tick(running);
    }

    /// Whether no call will be taken any more.
    pub(crate) fn is_closed(&self) -> bool {
        self.state.borrow().closed
    }

    /// Queues the call and waits for its answer. Dropping the future cancels it.
    ///
    /// The caller has already counted the call on the instance ([`Channel::begin`]); the channel
    /// uncounts it when the worker is done with it.
    /// `permit` is given back then, too.
    pub(crate) async fn call(
        self: &Rc<Self>,
        invocation: Invocation,
        permit: Option<OwnedSemaphorePermit>,
    ) -> Result<Reply, Error> {
        let call = Call { channel: Rc::clone(self), id: self.start(invocation, permit), done: Cell::new(false) };
        match poll_fn(|cx| call.poll_open(cx)).await {
            Opened::Whole(answer) => answer,
            Opened::Stream(head) => Ok(Reply::new(head, ReplyBody::Stream(Box::pin(Chunks { call, taken: 0 })))),
        }
    }

    fn start(&self, invocation: Invocation, permit: Option<OwnedSemaphorePermit>) -> u32 {
        let Invocation { id, function, payload, request, deadline, traceparent, .. } = invocation;
        let budget = deadline.remaining(Instant::now()).as_millis().min(u128::from(u32::MAX)) as u32;
        let mut fixed = [0; INVOKE_META_BYTES];
        fixed[..16].copy_from_slice(&id.to_bytes());
        fixed[16..].copy_from_slice(&budget.to_le_bytes());
        let format = match payload.format {
            Format::Json => BodyFormat::Json,
            Format::Bytes => BodyFormat::Bytes,
            Format::Text => BodyFormat::Text,
        };
        let mut state = self.state.borrow_mut();
        let index = function.target.index;
        let call = state.slots.insert(Slot::new(id, function, deadline, permit)) as u32 + 1;
        let header = Header::new(Kind::Invoke, call).format(format).aux(index);
        if request.is_none() && traceparent.is_none() {
            frame::encode(header, &fixed, &payload.body, &mut state.out);
        } else {
            #[derive(Serialize)]
            struct Meta<'a> {
                #[serde(skip_serializing_if = "Option::is_none")]
                traceparent: Option<&'a str>,
                #[serde(skip_serializing_if = "Option::is_none")]
                request: Option<&'a fnmesh_invoke::RequestHead>,
            }
            let traceparent = traceparent.map(|parent| parent.child(id));
            let meta = Meta { traceparent: traceparent.as_ref().map(|it| it.as_str()), request: request.as_deref() };
            let mut bytes = fixed.to_vec();
            serde_json::to_writer(&mut bytes, &meta).expect("strings always serialize into memory");
            frame::encode(header, &bytes, &payload.body, &mut state.out);
        }
        state.wake_driver();
        call
    }

    /// Removes the slot once both sides are done with it; counts it as abandoned when only the caller is.
    fn caller_done(&self, state: &mut State, id: u32) {
        let index = id as usize - 1;
        let Some(slot) = state.slots.get(index) else { return };
        if slot.is_over() {
            state.slots.remove(index);
        } else {
            self.instance.abandon();
        }
    }

    /// Uncounts a call the worker has answered, and removes its slot if the caller is done too.
    fn worker_done(&self, state: &mut State, id: u32, was_abandoned: bool) {
        self.instance.end(was_abandoned);
        self.pace.note_answer();
        self.forget(state, id);
    }

    /// As [`Channel::worker_done`], for a call that died with the worker.
    fn worker_lost(&self, state: &mut State, id: u32, was_abandoned: bool) {
        self.instance.lose(was_abandoned);
        self.forget(state, id);
    }

    fn forget(&self, state: &mut State, id: u32) {
        let index = id as usize - 1;
        if state.slots.get(index).is_some_and(Slot::is_over) {
            state.slots.remove(index);
        }
    }

    /// Ends calls whose deadline passed and reports an instance that does not give them up.
    /// Returns whether there is anything left to watch.
    fn sweep(&self, now: Instant, grace: Duration) -> bool {
        let mut state = self.state.borrow_mut();
        let State { slots, out, .. } = &mut *state;
        self.pace.tick(slots.iter().filter(|(_, slot)| slot.is_running()).count());
        let mut stuck = None;
        let mut cancelled = false;
        for (index, slot) in slots.iter_mut().filter(|(_, slot)| slot.is_running() && slot.deadline.is_over(now)) {
            if slot.is_stuck(now, grace) {
                stuck = Some(slot.function.id.clone());
            }
            let timeout = slot.function.limits.timeout;
            slot.caller_error(Error::DeadlineExceeded { function: slot.function.id.clone(), timeout });
            if slot.cancel() {
                cancelled = true;
                frame::encode(Header::new(Kind::Cancel, index as u32 + 1).aux(DEADLINE_PASSED), &[], &[], out);
            }
        }
        if cancelled {
            state.wake_driver();
        }
        if let Some(function) = stuck {
            self.instance.condemn(format!("{function} did not stop within {grace:?} after its deadline"));
        }
        !state.slots.is_empty()
    }
}

/// A call in flight. Dropped before its answer, it is cancelled.
struct Call {
    channel: Rc<Channel>,
    id: u32,
    /// The slot may belong to another call by now.
    done: Cell<bool>,
}

impl Call {
    fn poll_open(&self, cx: &Context<'_>) -> Poll<Opened> {
        let mut state = self.channel.state.borrow_mut();
        let opened = ready!(state.slot(self.id).expect("a slot lives until its caller is done").poll_open(cx));
        if matches!(opened, Opened::Whole(_)) {
            self.finish(&mut state);
        }
        Poll::Ready(opened)
    }

    fn poll_item(&self, cx: &Context<'_>, taken: &mut u16) -> Poll<Option<Result<Payload, Error>>> {
        if self.done.get() {
            return Poll::Ready(None);
        }
        let mut state = self.channel.state.borrow_mut();
        let slot = state.slot(self.id).expect("a slot lives until its caller is done");
        let item = ready!(slot.poll_item(cx));
        let running = slot.is_running();
        if !matches!(item, Some(Ok(_))) {
            self.finish(&mut state);
        } else if running {
            *taken += 1;
            if *taken == CREDIT_PORTION {
                *taken = 0;
                state.send(Header::new(Kind::Credit, self.id).aux(CREDIT_PORTION));
            }
        }
        Poll::Ready(item)
    }

    fn finish(&self, state: &mut State) {
        self.done.set(true);
        self.channel.caller_done(state, self.id);
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        if self.done.get() {
            return;
        }
        let mut state = self.channel.state.borrow_mut();
        let slot = state.slot(self.id).expect("a slot lives until its caller is done");
        slot.abandon();
        if slot.cancel() {
            state.send(Header::new(Kind::Cancel, self.id).aux(CALLER_GONE));
        }
        self.finish(&mut state);
    }
}

/// The items of a streamed answer.
struct Chunks {
    call: Call,
    /// Items taken since credit was last granted.
    taken: u16,
}

impl Stream for Chunks {
    type Item = Result<Payload, Error>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let Self { call, taken } = &mut *self;
        call.poll_item(cx, taken)
    }
}

/// Reads the response head a frame's meta carries.
fn response_head(meta: &[u8]) -> Result<Option<Box<ResponseHead>>, serde_json::Error> {
    if meta.is_empty() { Ok(None) } else { serde_json::from_slice(meta).map(Some) }
}

fn payload(format: BodyFormat, body: Bytes) -> Option<Payload> {
    match format {
        BodyFormat::Json => Some(Payload::json(body)),
        BodyFormat::Bytes => Some(Payload::bytes(body)),
        BodyFormat::Text => Some(Payload::text(body)),
        BodyFormat::None => None,
    }
}

#[cfg(test)]
pub(crate) mod tests;
