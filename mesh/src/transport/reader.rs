//! Frames out of one stream.

use bytes::BytesMut;
use quinn::RecvStream;
use tokio::io::AsyncReadExt as _;

use super::frame::{self, Frame, FrameError, Limits};

/// Room for one read, in bytes.
const READ_BYTES: usize = 64 * 1024;

#[derive(Debug)]
pub(crate) struct Reader {
    stream: RecvStream,
    input: BytesMut,
    limits: Limits,
}

/// Why no more frames can be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReadError {
    #[error("{0}")]
    Frame(#[from] FrameError),
    /// The stream was reset, ended within a frame, or its connection is lost.
    #[error("{0}")]
    Stream(#[from] std::io::Error),
}

impl Reader {
    pub(crate) fn new(stream: RecvStream, limits: Limits) -> Self {
        Self { stream, input: BytesMut::new(), limits }
    }

    /// The next frame; `None` at the end of the stream. Cancel safe.
    pub(crate) async fn next(&mut self) -> Result<Option<Frame>, ReadError> {
        loop {
            if let Some(frame) = frame::decode(&mut self.input, self.limits)? {
                return Ok(Some(frame));
            }
            self.input.reserve(READ_BYTES);
            if self.stream.read_buf(&mut self.input).await? == 0 {
                let whole = self.input.is_empty();
                return if whole {
                    Ok(None)
                } else {
                    Err(std::io::Error::from(std::io::ErrorKind::UnexpectedEof).into())
                };
            }
        }
    }
}
