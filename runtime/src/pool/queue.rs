//! The calls of a pool that wait, first come, first served across all calling threads.
//!
//! A waiting call has a [`Place`], which counts against the limits, and, once nothing but room in an instance is
//! missing, a [`Turn`] in the line. Whoever makes room wakes the first of the line that has not been woken, and no
//! other. A call looks for room only when it was woken or is the first.
//!
//! No wake-up is lost: a call is in the line before it looks; room that is made later finds it there. One that leaves
//! with a wake-up it did not need, or sees more room than calls that were woken, wakes the next.

mod drain;
#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

use drain::Drain;
use fnmesh_invoke::Deadline;

/// A longer line is no nuisance as long as it is served within this time.
const SHORT_WAIT: Duration = Duration::from_secs(1);

/// How much may wait.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Calls, whatever their pace.
    pub(crate) calls: usize,
    /// Calls that are served within [`SHORT_WAIT`].
    pub(crate) quick_calls: usize,
    /// Bytes of their arguments. One call may wait whatever its size.
    pub(crate) bytes: usize,
}

/// Why a call may not wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Full {
    /// As many calls as may wait do; how many.
    Calls(usize),
    /// The arguments of those that wait take as many bytes as may.
    Bytes,
    /// It would wait about so long, which is longer than it has.
    TooLong(Duration),
}

/// What waits, for people.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Length {
    pub(crate) calls: usize,
    pub(crate) bytes: usize,
}

/// The waiting calls.
#[derive(Debug)]
pub(crate) struct Queue {
    limits: Limits,
    /// Length of the line. Changed under the lock, read by every call.
    in_line: AtomicUsize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    length: Length,
    /// By ticket; tickets rise.
    line: BTreeMap<u64, Waiter>,
    next: u64,
    /// Every ticket below has been woken.
    woken_below: u64,
    /// Calls that were woken and have not looked since: room that is there may be theirs.
    woken: usize,
    drain: Drain,
}

#[derive(Debug)]
struct Waiter {
    waker: Waker,
    /// Woken, and has not looked for room since.
    woken: bool,
    since: Instant,
}

impl Queue {
    pub(crate) fn new(limits: Limits) -> Self {
        Self { limits, in_line: AtomicUsize::new(0), state: Mutex::default() }
    }

    /// Whether calls wait for room; newcomers then wait behind them.
    pub(crate) fn has_line(&self) -> bool {
        self.in_line.load(SeqCst) > 0
    }

    /// All that waits.
    pub(crate) fn length(&self) -> Length {
        self.lock().length
    }

    /// How many calls may wait at present.
    pub(crate) fn most_calls(&self, now: Instant) -> usize {
        self.lock().most_calls(self.limits, now)
    }

    /// How many calls wait for room, and since when the first of them has.
    pub(crate) fn line(&self) -> (usize, Option<Instant>) {
        let state = self.lock();
        (state.line.len(), state.line.first_key_value().map(|(_, first)| first.since))
    }

    /// How long until what waits now will have been served.
    pub(crate) fn drained_in(&self, now: Instant) -> Option<Duration> {
        let state = self.lock();
        state.drain.wait(state.line.len(), now)
    }

    /// The calls that all instances together can have in flight have become so many.
    pub(crate) fn set_capacity(&self, calls: usize, now: Instant) {
        self.lock().drain.set_capacity(calls, now);
    }

    /// A place for a call with so many bytes of arguments.
    ///
    /// # Errors
    /// When a limit is reached.
    pub(crate) fn enter(&self, bytes: usize, now: Instant) -> Result<Place<'_>, Full> {
        let mut state = self.lock();
        if state.length.calls >= self.limits.calls {
            let most = state.most_calls(self.limits, now);
            if state.length.calls >= most {
                return Err(Full::Calls(most));
            }
        }
        let Length { calls, bytes: held } = &mut state.length;
        if *held > 0 && held.saturating_add(bytes) > self.limits.bytes {
            return Err(Full::Bytes);
        }
        *calls += 1;
        *held += bytes;
        Ok(Place { queue: self, bytes })
    }

    /// Tells the first of the line that has not been told that there may be room.
    pub(crate) fn wake_one(&self) {
        self.wake_many(1);
    }

    /// Tells as many, in order.
    pub(crate) fn wake_many(&self, count: usize) {
        // Not more often than there are calls: one that was woken in vain waits again.
        for _ in 0..count.min(self.in_line.load(SeqCst)) {
            // Not under the lock: the woken thread wants it next.
            let Some(waker) = self.lock().wake_from(0) else { return };
            waker.wake();
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn most_calls(&self, Limits { calls, quick_calls, .. }: Limits, now: Instant) -> usize {
        self.drain.served_within(SHORT_WAIT, now).min(quick_calls).max(calls)
    }

    /// Marks the first at or behind `ticket` that has not been woken.
    fn wake_from(&mut self, ticket: u64) -> Option<Waker> {
        let from = self.woken_below.max(ticket);
        let (ticket, waiter) = self.line.range_mut(from..).find(|(_, waiter)| !waiter.woken)?;
        waiter.woken = true;
        self.woken += 1;
        if from == self.woken_below {
            self.woken_below = ticket + 1;
        }
        Some(waiter.waker.clone())
    }
}

/// A waiting call's share of what may wait; given back on drop.
#[derive(Debug)]
pub(crate) struct Place<'a> {
    queue: &'a Queue,
    bytes: usize,
}

impl<'a> Place<'a> {
    /// Joins the line of those that need nothing but room.
    ///
    /// # Errors
    /// [`Full::TooLong`] when the deadline is sure to pass before its turn comes.
    pub(crate) fn line_up(&self, deadline: Deadline, now: Instant) -> Result<Turn<'a>, Full> {
        let mut state = self.queue.lock();
        let position = state.line.len() + 1;
        if let Some(wait) = state.drain.wait(position, now).filter(|wait| *wait > deadline.remaining(now)) {
            return Err(Full::TooLong(wait));
        }
        let ticket = state.next;
        state.next += 1;
        if position == 1 {
            state.drain.begin(now);
        }
        let waiter = Waiter { waker: Waker::noop().clone(), woken: false, since: now };
        state.line.insert(ticket, waiter);
        self.queue.in_line.store(position, SeqCst);
        Ok(Turn { queue: self.queue, ticket, left: false })
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let Length { calls, bytes } = &mut self.queue.lock().length;
        *calls -= 1;
        *bytes -= self.bytes;
    }
}

/// What a call finds when it looks for room.
#[derive(Debug)]
pub(crate) enum Look<T> {
    /// What it waited for; how much room is left for others.
    Found { what: T, room: usize },
    /// A reason not to wait, which is everybody's in the line.
    FoundByAll(T),
    /// Nothing; whether there is room that its thread cannot see yet, which may be another's.
    Nothing { elsewhere: bool },
}

/// A call's position in the line; given up on drop.
#[derive(Debug)]
pub(crate) struct Turn<'a> {
    queue: &'a Queue,
    ticket: u64,
    left: bool,
}

impl Turn<'_> {
    /// Calls `look` when it may.
    pub(crate) fn poll<T>(&mut self, cx: &Context<'_>, look: impl FnOnce() -> Look<T>) -> Poll<T> {
        let Some(was_woken) = self.may_look(cx.waker()) else { return Poll::Pending };
        match look() {
            Look::Found { what, room } => {
                self.leave(true, room);
                Poll::Ready(what)
            }
            Look::FoundByAll(what) => {
                // One that joined the line while this one looked has not been woken, and is not the first.
                self.leave(false, usize::MAX);
                Poll::Ready(what)
            }
            Look::Nothing { elsewhere } => {
                // Only then: else each of the line would wake the next, for nothing.
                let next = if was_woken && elsewhere { self.queue.lock().wake_from(self.ticket + 1) } else { None };
                next.into_iter().for_each(Waker::wake);
                Poll::Pending
            }
        }
    }

    /// Since when it has waited.
    pub(crate) fn since(&self) -> Option<Instant> {
        self.queue.lock().line.get(&self.ticket).map(|waiter| waiter.since)
    }

    fn may_look(&self, waker: &Waker) -> Option<bool> {
        let mut state = self.queue.lock();
        let state = &mut *state;
        let is_first = state.line.first_key_value().is_some_and(|(first, _)| *first == self.ticket);
        let waiter = state.line.get_mut(&self.ticket).expect("it is in the line until it leaves");
        waiter.waker.clone_from(waker);
        // Before it looks: room that is made while it does shall wake it again.
        let was_woken = std::mem::take(&mut waiter.woken);
        state.woken -= usize::from(was_woken);
        state.woken_below = state.woken_below.min(self.ticket);
        (was_woken || is_first).then_some(was_woken)
    }

    fn leave(&mut self, served: bool, room: usize) {
        self.left = true;
        let mut state = self.queue.lock();
        let was_woken = state.line.remove(&self.ticket).is_some_and(|it| it.woken);
        state.woken -= usize::from(was_woken);
        let length = state.line.len();
        self.queue.in_line.store(length, SeqCst);
        if served {
            state.drain.leave(Instant::now());
        }
        if length == 0 {
            state.drain.end();
        }
        let next = if was_woken || room > state.woken { state.wake_from(0) } else { None };
        drop(state);
        next.into_iter().for_each(Waker::wake);
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        if !self.left {
            self.leave(false, 0);
        }
    }
}
