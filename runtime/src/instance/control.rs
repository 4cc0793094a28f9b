//! The node's end of channel 0.

use std::{io, os::unix::net::UnixStream as StdUnixStream, time::Duration};

use fnmesh_invoke::{Failure, InvocationId};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
    time::timeout,
};

use super::life::{Start, wait_or_kill};
use crate::{
    config::Config,
    inspect::{self, Inspected},
    logs,
    pool::Pool,
    worker::{
        frame::{self, BodyFormat, Decoded, Header, Kind},
        process::Process,
    },
};

/// How long a worker may take for its finalize hooks once it was told to stop.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);

/// Why loading ended without functions.
pub(super) enum LoadError {
    /// The app's code raised.
    Failed(Failure),
    /// The worker went away, or broke the protocol.
    Lost(io::Error),
}

impl From<io::Error> for LoadError {
    fn from(error: io::Error) -> Self {
        Self::Lost(error)
    }
}

/// The node's end of channel 0.
pub(super) struct Control {
    stream: UnixStream,
    input: Vec<u8>,
    max_frame_bytes: usize,
}

impl Control {
    pub(super) fn new(stream: StdUnixStream, config: &Config) -> io::Result<Self> {
        let stream = UnixStream::from_std(stream)?;
        Ok(Self { stream, input: Vec::new(), max_frame_bytes: config.max_frame_bytes() })
    }

    /// Loads the app, and tells the worker the parameters it could not read itself.
    pub(super) async fn load(&mut self, start: &Start) -> Result<Vec<Inspected>, LoadError> {
        self.send(Kind::Load, &start.load).await?;
        loop {
            let (header, body) = self.next().await?;
            match header.kind {
                Kind::Log => {
                    logs::app_log(&start.pool, None::<InvocationId>, header.aux, &body);
                }
                Kind::Ready => {
                    let ready: inspect::Ready = serde_json::from_slice(&body).map_err(io::Error::from)?;
                    let (inspected, bind) = start.describe.apply(ready);
                    if let Some(bind) = bind {
                        self.send(Kind::Bind, &bind).await?;
                    }
                    return Ok(inspected);
                }
                Kind::Error => {
                    return Err(LoadError::Failed(serde_json::from_slice(&body).map_err(io::Error::from)?));
                }
                _ => {}
            }
        }
    }

    /// Handles what the worker sends outside calls; resolves when it closes the channel.
    pub(super) async fn serve(&mut self, pool: &Pool) {
        while let Ok((header, body)) = self.next().await {
            if header.kind == Kind::Log {
                logs::app_log(pool, None, header.aux, &body);
            }
        }
    }

    /// Lets the worker finalize, and kills it if it takes too long.
    pub(super) async fn stop(&mut self, process: &mut Process, pool: &Pool) -> String {
        if self.send(Kind::Stop, &[]).await.is_ok() {
            let _ = timeout(STOP_TIMEOUT, self.serve(pool)).await;
        }
        wait_or_kill(process, STOP_TIMEOUT).await
    }

    async fn send(&mut self, kind: Kind, body: &[u8]) -> io::Result<()> {
        let format = if body.is_empty() { BodyFormat::None } else { BodyFormat::Json };
        let mut out = Vec::new();
        frame::encode(Header::new(kind, 0).format(format), &[], body, &mut out);
        self.stream.write_all(&out).await
    }

    /// The next frame. Cancel safe: what was read stays in `input`.
    async fn next(&mut self) -> io::Result<(Header, Vec<u8>)> {
        loop {
            if let Decoded::Frame(found) = frame::decode(&self.input, self.max_frame_bytes).map_err(io::Error::other)? {
                let (header, body, length) = (found.header, found.body.to_vec(), found.len());
                self.input.drain(..length);
                return Ok((header, body));
            }
            if self.stream.read_buf(&mut self.input).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }
}
