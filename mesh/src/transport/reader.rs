//! Frames out of one stream.

use std::{
    future::poll_fn,
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::BytesMut;
use quinn::RecvStream;
use tokio_util::io::poll_read_buf;

use super::{
    frame::{self, Frame, FrameError, Limits},
    turn,
};

/// A buffer holds this much, in bytes, and many reads: bodies are parts of it.
const READ_BYTES: usize = 64 * 1024;
/// With less room, in bytes, there is a new buffer.
const SPARE_BYTES: usize = 4 * 1024;
/// After so many frames other tasks have a turn: what these frames lead to is sent while the next are read, and the peer
/// works on it meanwhile.
const TURN_FRAMES: u32 = 16;

#[derive(Debug)]
pub(crate) struct Reader {
    stream: RecvStream,
    input: BytesMut,
    limits: Limits,
    /// How many frames were read since others had a turn.
    frames: u32,
}

/// Why no more frames can be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReadError {
    #[error("{0}")]
    Frame(#[from] FrameError),
    /// The stream was reset, ended within a frame, or its connection is lost.
    #[error("{0}")]
    Stream(#[from] io::Error),
}

impl Reader {
    pub(crate) fn new(stream: RecvStream, limits: Limits) -> Self {
        Self { stream, input: BytesMut::new(), limits, frames: 0 }
    }

    /// Whether a part of the next frame is there.
    pub(crate) fn is_within_frame(&self) -> bool {
        !self.input.is_empty()
    }

    /// The next frame; `None` at the end of the stream. Cancel safe.
    pub(crate) async fn next(&mut self) -> Result<Option<Frame>, ReadError> {
        poll_fn(|cx| self.poll_next(cx)).await
    }

    pub(crate) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Frame>, ReadError>> {
        loop {
            if self.frames >= TURN_FRAMES && !self.input.is_empty() {
                self.frames = 0;
                return turn::poll_pass(cx);
            }
            if let Some(frame) = frame::decode(&mut self.input, self.limits)? {
                self.frames += 1;
                return Poll::Ready(Ok(Some(frame)));
            }
            if self.input.capacity() - self.input.len() < SPARE_BYTES {
                self.input.reserve(READ_BYTES);
            }
            let read = poll_read_buf(Pin::new(&mut self.stream), cx, &mut self.input);
            if ready!(read)? == 0 {
                let cut = || ReadError::from(io::Error::from(io::ErrorKind::UnexpectedEof));
                return Poll::Ready(if self.input.is_empty() { Ok(None) } else { Err(cut()) });
            }
        }
    }
}
