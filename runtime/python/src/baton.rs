//! Who leads: one word that says whether the leader waits, works, or is inside a call.

use std::sync::atomic::{AtomicU64, Ordering};

use pyo3::Python;

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
/// until it has passed it on. Whoever changes the word holds the GIL, so that entering and leaving user code costs no
/// locked instruction; the monitor, which does not hold it, only looks.
pub(crate) struct Baton(AtomicU64);

/// What [`Baton::look`] saw.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Look(u64);

impl Look {
    /// As a number that is neither 0 nor 1 if it is of a call.
    pub(crate) fn packed(self) -> u64 {
        self.0
    }

    pub(crate) fn unpack(packed: u64) -> Self {
        Self(packed)
    }

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
    pub(crate) fn work(&self, _: Python<'_>) {
        self.set(WORKING, Ordering::SeqCst);
    }

    /// The leader is about to wait for input.
    pub(crate) fn wait(&self, _: Python<'_>) {
        self.set(WAITING, Ordering::SeqCst);
    }

    /// The leader gives leadership up; the caller passes it on.
    pub(crate) fn release(&self, _: Python<'_>) {
        self.set(FREE, Ordering::Release);
    }

    /// The leader enters user code.
    #[inline]
    pub(crate) fn enter(&self, _: Python<'_>) -> Look {
        let next = ((self.0.load(Ordering::Relaxed) >> STATE_BITS) + 1) << STATE_BITS | CALLING;
        self.0.store(next, Ordering::Relaxed);
        Look(next)
    }

    /// The thread that entered user code is back. False if leadership was taken from it meanwhile.
    #[inline]
    pub(crate) fn leave(&self, _: Python<'_>, entered: Look) -> bool {
        self.replace(entered, WORKING)
    }

    /// Takes leadership from a thread that is still inside the call that was seen. Then the caller owns it.
    pub(crate) fn take(&self, _: Python<'_>, seen: Look) -> bool {
        self.replace(seen, WORKING)
    }

    /// No exchange: see [`Self`].
    #[inline]
    fn replace(&self, expected: Look, state: u64) -> bool {
        let still = self.0.load(Ordering::Relaxed) == expected.0;
        if still {
            self.0.store(expected.0 & !STATE_MASK | state, Ordering::Relaxed);
        }
        still
    }

    fn set(&self, state: u64, order: Ordering) {
        let number = self.0.load(Ordering::Relaxed) & !STATE_MASK;
        self.0.store(number | state, order);
    }
}
