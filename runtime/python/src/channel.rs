//! One socket pair's end: what was read from it and what is still to be written to it.

use std::{
    cell::UnsafeCell,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
    net::{RecvFlags, SendFlags},
};

use crate::frame::{self, Decoded, Frame, FrameError, Header, Kind};

/// Room a channel starts with for what it reads, and goes back to after a large frame.
const INPUT_BYTES: usize = 64 * 1024;
/// Buffers that grew beyond this are given back when they are empty.
const KEPT_BYTES: usize = 1024 * 1024;
/// A thread that adds logs or items to more unsent bytes than this waits until there are fewer.
pub(crate) const UNSENT_BYTES: usize = 1024 * 1024;
/// Sanity limit of a frame to the worker; the node's own limits are far below.
const MAX_FRAME_BYTES: usize = 1024 * 1024 * 1024;

/// A channel to the node.
pub(crate) struct Channel {
    socket: OwnedFd,
    input: UnsafeCell<Input>,
    /// Answers of the leader's round.
    answers: UnsafeCell<Vec<u8>>,
    output: Mutex<Output>,
    sent: Condvar,
}

// SAFETY: `input` and `answers` are only reached by callers that own leadership, and leadership passes from thread to
// thread with release and acquire. Everything else is `Sync` by itself.
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
        let answers = UnsafeCell::default();
        Self { socket, input: UnsafeCell::new(input), answers, output: Mutex::default(), sent: Condvar::new() }
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

    /// Answers that go out at the end of the leader's round: no other thread adds to them, so that they need no lock.
    ///
    /// # Safety
    /// As with [`Self::input`].
    #[allow(clippy::mut_from_ref, reason = "leadership makes the access exclusive")]
    pub(crate) unsafe fn answers(&self) -> &mut Vec<u8> {
        // SAFETY: exclusive by the contract above.
        unsafe { &mut *self.answers.get() }
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
        self.output().flush(self.socket())
    }

    /// The same with the round's answers.
    ///
    /// # Safety
    /// As with [`Self::input`].
    pub(crate) unsafe fn flush_round(&self) -> Flushed {
        let mut output = self.output();
        // SAFETY: exclusive by the contract above.
        output.take(unsafe { self.answers() });
        output.flush(self.socket())
    }

    /// Writes until at most `left` bytes are unsent, or until `deadline`: in a process without the writer thread.
    pub(crate) fn write_until(&self, left: usize, deadline: Option<Instant>) {
        loop {
            let mut output = self.output();
            if output.write(self.socket()) || output.unsent() <= left {
                return;
            }
            drop(output);
            let patience = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            if patience.is_some_and(|patience| patience.is_zero()) {
                return;
            }
            let patience = patience.and_then(|patience| Timespec::try_from(patience).ok());
            // Interrupted or not, the next round sees what there is.
            let _ = poll(&mut [PollFd::from_borrowed_fd(self.socket(), PollFlags::OUT)], patience.as_ref());
        }
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
    ///
    /// # Safety
    /// As with [`Self::input`].
    #[cfg(feature = "bench")]
    pub(crate) unsafe fn take_answers(&self, taken: &mut Vec<u8>) {
        taken.clear();
        // SAFETY: exclusive by the contract above.
        std::mem::swap(unsafe { self.answers() }, taken);
    }

    fn output(&self) -> MutexGuard<'_, Output> {
        self.output.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Output {
    fn unsent(&self) -> usize {
        self.bytes.len() - self.start
    }

    /// Moves the answers of a round here, and leaves a buffer for the next round's.
    fn take(&mut self, answers: &mut Vec<u8>) {
        if self.bytes.is_empty() && !self.closed {
            std::mem::swap(&mut self.bytes, answers);
        } else if !self.closed {
            self.bytes.extend_from_slice(answers);
        }
        clear(answers);
    }

    fn flush(&mut self, socket: BorrowedFd<'_>) -> Flushed {
        if self.stuck || self.bytes.is_empty() {
            return Flushed::Yes;
        }
        self.stuck = !self.write(socket);
        if self.stuck { Flushed::Stuck } else { Flushed::Yes }
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
        clear(&mut self.bytes);
        true
    }
}

/// Empties a buffer, and gives it back if it is large.
fn clear(buffer: &mut Vec<u8>) {
    buffer.clear();
    if buffer.capacity() > KEPT_BYTES {
        *buffer = Vec::new();
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
    #[inline]
    pub(crate) fn frame(&self) -> Result<Option<Frame<'_>>, FrameError> {
        match frame::decode(&self.bytes[self.start..self.end], MAX_FRAME_BYTES)? {
            Decoded::Frame(frame) => Ok(Some(frame)),
            Decoded::Incomplete(_) => Ok(None),
        }
    }

    /// How many bytes wait.
    pub(crate) fn unused(&self) -> usize {
        self.end - self.start
    }

    /// Whether a `cancel` frame for this call lies among what was read.
    pub(crate) fn cancels(&self, id: u32) -> bool {
        let mut at = self.start;
        while let Ok(Decoded::Frame(frame)) = frame::decode(&self.bytes[at..self.end], MAX_FRAME_BYTES) {
            if frame.header.kind == Kind::Cancel && frame.header.id == id {
                return true;
            }
            at += frame.len();
        }
        false
    }

    /// Drops the first `length` bytes.
    #[inline]
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
