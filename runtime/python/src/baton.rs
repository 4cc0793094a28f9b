//! Who leads: one word that says whether the leader waits, works, or is inside a call.

use std::sync::atomic::{AtomicU64, Ordering};

/// Nobody leads at this moment; leadership is on its way from one thread to another.
const FREE: u64 = 0;
/// The leader waits for input without the GIL.
const WAITING: u64 = 1;
/// The leader parses, writes, or does anything else that is short.
const WORKING: u64 = 2;
/// The leader is inside user code. Only now leadership can be taken from it.
const CALLING: u64 = 3;

const STATE_BITS: u32 = 2;
const STATE_MASK: u64 = (1 << STATE_BITS) - 1;

/// Leadership as an atomic word: a state, and above it a number that grows with each call.
///
/// Exactly one thread owns leadership whenever the state is not free, and the thread that made it free owns it
/// until it has passed it on. All stores but [`Baton::take`] are the owner's.
pub(crate) struct Baton(AtomicU64);

/// What [`Baton::look`] saw.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Look(u64);

impl Look {
    pub(crate) fn calling(self) -> bool {
        self.0 & STATE_MASK == CALLING
    }

    pub(crate) fn waiting(self) -> bool {
        self.0 & STATE_MASK == WAITING
    }
}

impl Baton {
    pub(crate) const fn new() -> Self {
        Self(AtomicU64::new(FREE))
    }

    /// The state now, from any thread.
    #[inline]
    pub(crate) fn look(&self) -> Look {
        Look(self.0.load(Ordering::SeqCst))
    }

    /// Starts work as the leader.
    pub(crate) fn work(&self) {
        self.set(WORKING, Ordering::SeqCst);
    }

    /// The leader is about to wait for input.
    pub(crate) fn wait(&self) {
        self.set(WAITING, Ordering::SeqCst);
    }

    /// The leader gives leadership up; the caller passes it on.
    pub(crate) fn release(&self) {
        self.set(FREE, Ordering::Release);
    }

    /// The leader enters user code.
    #[inline]
    pub(crate) fn enter(&self) -> Look {
        let next = ((self.0.load(Ordering::Relaxed) >> STATE_BITS) + 1) << STATE_BITS | CALLING;
        self.0.store(next, Ordering::Release);
        Look(next)
    }

    /// The thread that entered user code is back. False if leadership was taken from it meanwhile.
    #[inline]
    pub(crate) fn leave(&self, entered: Look) -> bool {
        let working = entered.0 & !STATE_MASK | WORKING;
        self.0.compare_exchange(entered.0, working, Ordering::AcqRel, Ordering::Relaxed).is_ok()
    }

    /// Takes leadership from a thread that is still inside the call that was seen. The caller passes it on.
    pub(crate) fn take(&self, seen: Look) -> bool {
        let free = seen.0 & !STATE_MASK | FREE;
        self.0.compare_exchange(seen.0, free, Ordering::AcqRel, Ordering::Relaxed).is_ok()
    }

    fn set(&self, state: u64, order: Ordering) {
        let number = self.0.load(Ordering::Relaxed) & !STATE_MASK;
        self.0.store(number | state, order);
    }
}
