//! The node's end of channel 0.

use std::{io, os::unix::net::UnixStream as StdUnixStream, time::Duration};

use fnmesh_invoke::{Failure, InvocationId};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
    time::timeout,
};

use super::{
    life::{Start, wait_or_kill},
    zygote::Answer,
};
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

    /// Has the worker load the app; `aux` as the protocol says.
    pub(super) async fn send_load(&mut self, load: &[u8], aux: u16) -> io::Result<()> {
        self.send(Header::new(Kind::Load, 0).aux(aux), load).await
    }

    /// Has the worker load the app if it has not, and waits until it takes calls. `enter` is for one that was started
    /// for no app in particular.
    pub(super) async fn become_ready(
        &mut self,
        start: &Start,
        enter: Option<&[u8]>,
        load: Option<&[u8]>,
    ) -> Result<Vec<Inspected>, LoadError> {
        if let Some(enter) = enter {
            self.send(Header::new(Kind::Enter, 0), enter).await?;
        }
        if let Some(load) = load {
            self.send_load(load, 0).await?;
        }
        self.ready(start).await
    }

    /// Waits until a zygote has loaded the app.
    pub(super) async fn loaded(&mut self, pool: &Pool) -> Result<(), LoadError> {
        self.answer(pool, Kind::Ready).await.map(drop)
    }

    /// Waits until the app is started, and tells the worker the parameters it could not read itself.
    async fn ready(&mut self, start: &Start) -> Result<Vec<Inspected>, LoadError> {
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
                        self.send(Header::new(Kind::Bind, 0), &bind).await?;
                    }
                    return Ok(inspected);
                }
                Kind::Error => return Err(failed(&body)),
                _ => {}
            }
        }
    }

    /// Waits for what a zygote says to a request.
    pub(super) async fn forked(&mut self, pool: &Pool) -> Result<Answer, LoadError> {
        let body = self.answer(pool, Kind::Forked).await?;
        Ok(serde_json::from_slice(&body).map_err(io::Error::from)?)
    }

    /// Waits for a frame of this kind, and passes on what is logged before it.
    async fn answer(&mut self, pool: &Pool, kind: Kind) -> Result<Vec<u8>, LoadError> {
        loop {
            let (header, body) = self.next().await?;
            match header.kind {
                Kind::Log => drop(logs::app_log(pool, None::<InvocationId>, header.aux, &body)),
                Kind::Error => return Err(failed(&body)),
                found if found == kind => return Ok(body),
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
        if self.send(Header::new(Kind::Stop, 0), &[]).await.is_ok() {
            let _ = timeout(STOP_TIMEOUT, self.serve(pool)).await;
        }
        wait_or_kill(process, STOP_TIMEOUT).await
    }

    async fn send(&mut self, header: Header, body: &[u8]) -> io::Result<()> {
        let format = if body.is_empty() { BodyFormat::None } else { BodyFormat::Json };
        let mut out = Vec::new();
        frame::encode(header.format(format), &[], body, &mut out);
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

fn failed(body: &[u8]) -> LoadError {
    serde_json::from_slice(body).map_or_else(|error| LoadError::Lost(error.into()), LoadError::Failed)
}
