//! One socket pair's end: what was read from it and what is still to be written to it.

use std::{
    cell::UnsafeCell,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use rustix::{
    io::Errno,
    net::{RecvFlags, SendFlags},
};

use crate::frame::{self, Decoded, Frame, FrameError, Header};

/// Room a channel starts with for what it reads, and goes back to after a large frame.
const INPUT_BYTES: usize = 64 * 1024;
/// Buffers that grew beyond this are given back when they are empty.
const KEPT_BYTES: usize = 1024 * 1024;
/// A thread that adds logs or items to more unsent bytes than this waits until there are fewer.
const UNSENT_BYTES: usize = 1024 * 1024;
/// Sanity limit of a frame to the worker; the node's own limits are far below.
const MAX_FRAME_BYTES: usize = 1024 * 1024 * 1024;

/// A channel to the node.
pub(crate) struct Channel {
    socket: OwnedFd,
    input: UnsafeCell<Input>,
    output: Mutex<Output>,
    sent: Condvar,
}

// SAFETY: `input` is only reached through `Channel::input`, whose callers own leadership, and leadership passes from
// thread to thread with release and acquire. Everything else is `Sync` by itself.
unsafe impl Sync for Channel {}

/// Bytes that were read and not yet used.
pub(crate) struct Input {
    bytes: Vec<u8>,
    start: usize,
    end: usize,
    /// False after end of file.
    pub(crate) open: bool,
}

#[derive(Default)]
struct Output {
    bytes: Vec<u8>,
    start: usize,
    /// The socket is full; the writer thread goes on when it is not.
    stuck: bool,
    /// The other end is gone: nothing is kept any more.
    closed: bool,
}

/// How far [`Channel::flush`] got.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flushed {
    /// Everything is written, or the writer thread is at it.
    Yes,
    /// The socket is full. The caller has to tell the writer thread.
    Stuck,
}

impl Channel {
    pub(crate) fn new(socket: OwnedFd) -> Self {
        let input = Input { bytes: vec![0; INPUT_BYTES], start: 0, end: 0, open: true };
        Self { socket, input: UnsafeCell::new(input), output: Mutex::default(), sent: Condvar::new() }
    }

    pub(crate) fn socket(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// What was read from this channel.
    ///
    /// # Safety
    /// The caller owns leadership, and no other reference from this function is in use.
    #[allow(clippy::mut_from_ref, reason = "leadership makes the access exclusive")]
    pub(crate) unsafe fn input(&self) -> &mut Input {
        // SAFETY: exclusive by the contract above.
        unsafe { &mut *self.input.get() }
    }

    /// Adds a frame to what is to be written.
    pub(crate) fn push(&self, header: Header, meta: &[u8], body: &[u8]) {
        let mut output = self.output();
        if !output.closed {
            frame::encode(header, meta, body, &mut output.bytes);
        }
    }

    /// Writes what the socket takes, without waiting.
    pub(crate) fn flush(&self) -> Flushed {
        let mut output = self.output();
        if output.stuck || output.bytes.is_empty() {
            return Flushed::Yes;
        }
        output.stuck = !output.write(self.socket());
        if output.stuck { Flushed::Stuck } else { Flushed::Yes }
    }

    /// Goes on with a socket that was full. The writer thread's part.
    pub(crate) fn resume(&self) -> Flushed {
        let mut output = self.output();
        output.stuck = !output.write(self.socket());
        self.sent.notify_all();
        if output.stuck { Flushed::Stuck } else { Flushed::Yes }
    }

    /// Whether so much is unsent that the thread that adds more should wait.
    pub(crate) fn is_crowded(&self) -> bool {
        self.output().unsent() > UNSENT_BYTES
    }

    /// Waits, without the GIL, until the node has read enough of what [`Self::is_crowded`] saw.
    pub(crate) fn wait_for_room(&self) {
        let output = self.output();
        let crowded = |output: &mut Output| output.stuck && output.unsent() > UNSENT_BYTES;
        drop(self.sent.wait_while(output, crowded).unwrap_or_else(PoisonError::into_inner));
    }

    /// Waits until everything is written, at most until `deadline`.
    pub(crate) fn wait_until_sent(&self, deadline: Instant) {
        let output = self.output();
        let left = deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
        drop(self.sent.wait_timeout_while(output, left, |output| output.stuck));
    }

    /// What would be written, in place of writing it.
    #[cfg(feature = "bench")]
    pub(crate) fn take_unsent(&self, unsent: &mut Vec<u8>) {
        let mut output = self.output();
        unsent.clear();
        std::mem::swap(&mut output.bytes, unsent);
    }

    fn output(&self) -> MutexGuard<'_, Output> {
        self.output.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Output {
    fn unsent(&self) -> usize {
        self.bytes.len() - self.start
    }

    /// False if the socket is full.
    fn write(&mut self, socket: BorrowedFd<'_>) -> bool {
        while self.start < self.bytes.len() {
            match rustix::net::send(socket, &self.bytes[self.start..], SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
                Ok(written) => self.start += written,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return false,
                // The node closed this channel: it no longer wants any answer on it.
                Err(_) => {
                    self.closed = true;
                    break;
                }
            }
        }
        self.start = 0;
        self.bytes.clear();
        if self.bytes.capacity() > KEPT_BYTES {
            self.bytes = Vec::new();
        }
        true
    }
}

impl Input {
    /// Reads once, without waiting. `Ok(false)` at end of file.
    pub(crate) fn fill(&mut self, socket: BorrowedFd<'_>) -> rustix::io::Result<bool> {
        self.make_room();
        match rustix::net::recv(socket, &mut self.bytes[self.end..], RecvFlags::DONTWAIT) {
            Ok((_, 0)) => {
                self.open = false;
                Ok(false)
            }
            Ok((_, read)) => {
                self.end += read;
                Ok(true)
            }
            Err(Errno::INTR | Errno::AGAIN) => Ok(true),
            Err(error) => Err(error),
        }
    }

    /// Takes `bytes` as if they had been read.
    #[cfg(feature = "bench")]
    pub(crate) fn add(&mut self, bytes: &[u8]) {
        self.bytes[self.end..self.end + bytes.len()].copy_from_slice(bytes);
        self.end += bytes.len();
    }

    /// The first frame that is complete.
    pub(crate) fn frame(&self) -> Result<Option<Frame<'_>>, FrameError> {
        match frame::decode(&self.bytes[self.start..self.end], MAX_FRAME_BYTES)? {
            Decoded::Frame(frame) => Ok(Some(frame)),
            Decoded::Incomplete(_) => Ok(None),
        }
    }

    /// Drops the first `length` bytes.
    pub(crate) fn consume(&mut self, length: usize) {
        self.start += length;
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
            if self.bytes.len() > KEPT_BYTES {
                self.bytes = vec![0; INPUT_BYTES];
            }
        }
    }

    /// Grows by doubling as bytes arrive, so that a frame's length alone allocates nothing.
    fn make_room(&mut self) {
        if self.end < self.bytes.len() {
            return;
        }
        if self.start > 0 {
            self.bytes.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        } else {
            self.bytes.resize(self.bytes.len() * 2, 0);
        }
    }
}
