//! What waits to be written to one stream: many add, one task writes what has come together.

use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::BytesMut;
use quinn::{SendStream, WriteError};
use tokio::sync::Notify;

use super::turn;

/// With more bytes than this unsent, [`Outbox::room`] waits.
const CROWDED_BYTES: usize = 1024 * 1024;
/// What is handed to QUIC at a time: small enough to know which requests were not.
const CHUNK_BYTES: usize = 64 * 1024;
/// Buffers are this large at least, in bytes, so that many messages share one.
const BUFFER_BYTES: usize = 16 * 1024;
/// A buffer with less room, in bytes, is left as it is: a small message would outgrow it.
const SPARE_BYTES: usize = 1024;

#[derive(Default)]
pub(crate) struct Outbox {
    state: Mutex<State>,
    filled: Notify,
    emptied: Notify,
}

#[derive(Default)]
struct State {
    bytes: BytesMut,
    /// How many bytes were handed to the stream before those in `bytes`.
    taken: u64,
    /// Nobody writes any more.
    closed: bool,
}

/// What [`Outbox::add`] has added.
#[must_use = "the writer sleeps until it is woken"]
pub(crate) struct Added {
    /// Where it begins in the stream.
    pub(crate) offset: u64,
    /// The writer may sleep.
    was_empty: bool,
}

impl Outbox {
    /// Adds what `write` appends, unless the stream is closed.
    pub(crate) fn push(&self, write: impl FnOnce(&mut BytesMut)) {
        if let Some(added) = self.add(write) {
            self.wake(&added);
        }
    }

    /// The first half of [`Outbox::push`], for who holds a lock; [`Outbox::wake`] is the second. `None` when the
    /// stream is closed.
    pub(crate) fn add(&self, write: impl FnOnce(&mut BytesMut)) -> Option<Added> {
        let mut state = self.state();
        if state.closed {
            return None;
        }
        let was_empty = state.bytes.is_empty();
        let offset = state.taken + state.bytes.len() as u64;
        if state.bytes.capacity() - state.bytes.len() < SPARE_BYTES {
            state.bytes.reserve(BUFFER_BYTES);
        }
        write(&mut state.bytes);
        Some(Added { offset, was_empty })
    }

    /// Lets the writer know what was added.
    pub(crate) fn wake(&self, added: &Added) {
        if added.was_empty {
            self.filled.notify_one();
        }
    }

    /// Waits while more than [`CROWDED_BYTES`] are unsent. Cancel safe.
    pub(crate) async fn room(&self) {
        loop {
            let emptied = self.emptied.notified();
            if !self.is_crowded() {
                return;
            }
            emptied.await;
        }
    }

    /// Whether [`Outbox::room`] would wait.
    pub(crate) fn is_crowded(&self) -> bool {
        let state = self.state();
        !state.closed && state.bytes.len() > CROWDED_BYTES
    }

    /// How many bytes of the stream have been handed to QUIC: what starts there or later never left this node.
    pub(crate) fn taken(&self) -> u64 {
        self.state().taken
    }

    /// Takes nothing more, and lets the writer end when it has written what there is.
    pub(crate) fn close(&self) {
        self.state().closed = true;
        self.filled.notify_one();
        self.emptied.notify_waiters();
    }

    /// Writes to `stream` until [`Outbox::close`] and all is written, or until the stream fails.
    pub(crate) async fn write(&self, stream: &mut SendStream) -> Result<(), WriteError> {
        let written = self.write_all(stream).await;
        self.close();
        written
    }

    async fn write_all(&self, stream: &mut SendStream) -> Result<(), WriteError> {
        loop {
            let filled = self.filled.notified();
            let (bytes, crowded) = {
                let mut state = self.state();
                let crowded = state.bytes.len() > CROWDED_BYTES;
                let length = state.bytes.len().min(CHUNK_BYTES);
                let bytes = state.bytes.split_to(length).freeze();
                state.taken += bytes.len() as u64;
                if bytes.is_empty() && state.closed {
                    return Ok(());
                }
                (bytes, crowded && state.bytes.len() <= CROWDED_BYTES)
            };
            if bytes.is_empty() {
                filled.await;
                // What other tasks are about to send now goes into the same packets.
                turn::pass().await;
                continue;
            }
            stream.write_chunk(bytes).await?;
            if crowded {
                self.emptied.notify_waiters();
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // What is done under the lock leaves the state whole at every step but in a panic of `push`'s writer, which
        // leaves a cut frame; the peer then refuses the stream.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
