//! What all threads of a gateway together may hold: connections, and memory for large bodies.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use bytes::Bytes;
use fnmesh_invoke::Error;

/// Connections beyond the limit that are kept for looks at the node's health.
const RESERVED: usize = 64;
/// Bodies up to this size are not counted: what is buffered for their connections takes as much.
const SMALL_BYTES: usize = 64 * 1024;
/// When a client that was refused may try again.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Counts open connections.
#[derive(Debug)]
pub(crate) struct Connections {
    open: AtomicUsize,
    most: usize,
}

/// What a new connection may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Admission {
    /// Anything.
    Full,
    /// Ask for the node's state; calls are refused.
    ControlOnly,
    /// Nothing: it is to be closed.
    Refused,
}

impl Connections {
    pub(crate) fn new(most: usize) -> Self {
        Self { open: AtomicUsize::new(0), most }
    }

    /// Counts a new connection until the guard is dropped.
    pub(crate) fn open(self: &Arc<Self>) -> (Admission, OpenGuard) {
        let before = self.open.fetch_add(1, Relaxed);
        let admission = match before {
            before if before < self.most => Admission::Full,
            before if before < self.most.saturating_add(RESERVED) => Admission::ControlOnly,
            _ => Admission::Refused,
        };
        (admission, OpenGuard(Arc::clone(self)))
    }

    /// Whether so few are left that idle ones should make room.
    pub(crate) fn are_scarce(&self) -> bool {
        self.open.load(Relaxed) >= self.most - self.most / 8
    }

    /// Why a call on a connection beyond the limit is refused.
    pub(crate) fn refusal(&self) -> Error {
        throttled(format!("the node has {} connections, its limit", self.most))
    }
}

/// An open connection.
#[derive(Debug)]
pub(crate) struct OpenGuard(Arc<Connections>);

impl Drop for OpenGuard {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Relaxed);
    }
}

/// Counts the bytes of large bodies: requests that are read or run, and answers that slow clients have
/// yet to take.
#[derive(Debug)]
pub(crate) struct Memory {
    held: AtomicUsize,
    most: usize,
}

impl Memory {
    pub(crate) fn new(most: usize) -> Self {
        Self { held: AtomicUsize::new(0), most }
    }

    /// Counts nothing yet.
    pub(crate) fn lease(self: &Arc<Self>) -> Lease {
        Lease { memory: Arc::clone(self), bytes: 0 }
    }

    /// Refuses a call while more is held than should be: answers can only be bounded before they are made.
    ///
    /// # Errors
    /// [`Error::Throttled`].
    pub(crate) fn check(&self) -> Result<(), Error> {
        if self.held.load(Relaxed) > self.most { Err(self.refusal()) } else { Ok(()) }
    }

    fn refusal(&self) -> Error {
        throttled(format!("request bodies and answers in flight take more than {} bytes, the limit", self.most))
    }
}

/// Bytes that are held; given back on drop.
#[derive(Debug)]
pub(crate) struct Lease {
    memory: Arc<Memory>,
    bytes: usize,
}

impl Lease {
    /// Counts a body that has grown, or will grow, to this size.
    ///
    /// # Errors
    /// [`Error::Throttled`] when all together would hold more than they may.
    pub(crate) fn grow(&mut self, bytes: usize) -> Result<(), Error> {
        let Some(more) = bytes.checked_sub(self.bytes).filter(|_| bytes > SMALL_BYTES) else { return Ok(()) };
        let before = self.memory.held.fetch_add(more, Relaxed);
        self.bytes = bytes;
        if before.saturating_add(more) > self.memory.most { Err(self.memory.refusal()) } else { Ok(()) }
    }

    /// Counts a body that is there already, until the last reference to it is gone.
    pub(crate) fn hold(mut self, body: Bytes) -> Bytes {
        if body.len() <= SMALL_BYTES {
            return body;
        }
        // It is held, whether it should be or not: later calls are refused.
        let _ = self.grow(body.len());
        Bytes::from_owner(Held { body, _lease: self })
    }
}

struct Held {
    body: Bytes,
    _lease: Lease,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.body
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if self.bytes > 0 {
            self.memory.held.fetch_sub(self.bytes, Relaxed);
        }
    }
}

fn throttled(reason: String) -> Error {
    Error::Throttled { reason, retry_after: RETRY_AFTER, rate: false }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_beyond_the_limit_are_for_control() {
        let connections = Arc::new(Connections::new(2));
        let mut guards: Vec<_> = (0..2).map(|_| connections.open()).collect();
        assert!(guards.iter().all(|(admission, _)| *admission == Admission::Full));
        assert!(connections.are_scarce());
        guards.extend((0..RESERVED).map(|_| connections.open()));
        assert_eq!(guards.last().unwrap().0, Admission::ControlOnly);
        assert_eq!(connections.open().0, Admission::Refused);
        guards.clear();
        assert_eq!(connections.open().0, Admission::Full);
        assert!(!connections.are_scarce());
    }

    #[test]
    fn large_bodies_share_what_there_is() {
        let memory = Arc::new(Memory::new(300_000));
        let mut first = memory.lease();
        first.grow(100_000).unwrap();
        first.grow(200_000).unwrap();
        let mut second = memory.lease();
        second.grow(SMALL_BYTES).unwrap();
        assert!(second.grow(100_001).unwrap_err().retry_after().is_some());
        assert!(memory.check().is_err());
        drop(second);
        memory.check().unwrap();
        drop(first);
        assert_eq!(memory.held.load(Relaxed), 0);
    }

    #[test]
    fn answers_are_held_and_stop_further_calls() {
        let memory = Arc::new(Memory::new(100_000));
        let answer = memory.lease().hold(vec![b'x'; 1_000_000].into());
        let part = answer.slice(10..20);
        drop(answer);
        assert!(memory.check().is_err());
        drop(part);
        memory.check().unwrap();
        memory.lease().hold(Bytes::from_static(b"small"));
        assert_eq!(memory.held.load(Relaxed), 0);
    }
}
