//! Bodies: reading a request's, and the type of an answer's.

use std::{
    future::poll_fn,
    pin::{Pin, pin},
    task::{Context, Poll, ready},
};

use bytes::{Bytes, BytesMut};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::sleep;

use crate::{Config, connection::Connection, refusal::Refusal, stream::StreamBody};

/// The body of an answer.
#[derive(Debug)]
pub(crate) enum Answer {
    Empty,
    Full(Bytes),
    Stream(Box<StreamBody>),
}

impl Answer {
    pub(crate) fn is_empty(&self) -> bool {
        self.is_end_stream()
    }
}

/// A streamed answer ended with an error that can only be shown by breaking off.
#[derive(Debug, thiserror::Error)]
#[error("the streamed answer broke off: {0}")]
pub(crate) struct BrokeOff(pub(crate) String);

impl Body for Answer {
    type Data = Bytes;
    type Error = BrokeOff;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BrokeOff>>> {
        let this = self.get_mut();
        match this {
            Self::Empty => Poll::Ready(None),
            Self::Full(bytes) => {
                let bytes = std::mem::take(bytes);
                *this = Self::Empty;
                Poll::Ready((!bytes.is_empty()).then(|| Ok(Frame::data(bytes))))
            }
            Self::Stream(stream) => {
                let item = ready!(stream.poll_item(cx));
                if !matches!(item, Some(Ok(_))) {
                    *this = Self::Empty;
                }
                Poll::Ready(item.map(|item| item.map(Frame::data)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Full(bytes) => bytes.is_empty(),
            Self::Stream(_) => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Full(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Self::Stream(_) => SizeHint::default(),
        }
    }
}

/// Refuses a body whose announced length is over the limit, before a byte of it is read.
pub(crate) fn check_length(body: &Incoming, config: &Config) -> Result<(), Refusal> {
    if body.size_hint().lower() > config.max_body_bytes as u64 { Err(too_large(config)) } else { Ok(()) }
}

/// Reads a body, if its announced length is allowed.
pub(crate) async fn read(body: Incoming, connection: &Connection, config: &Config) -> Result<Bytes, Refusal> {
    check_length(&body, config)?;
    collect(body, connection, config).await
}

/// Reads a whole body; without a copy where it comes in one piece.
pub(crate) async fn collect(mut body: Incoming, connection: &Connection, config: &Config) -> Result<Bytes, Refusal> {
    // A pause after the announced end is no pause: there is nothing to read.
    const MOST_RESERVED: u64 = 256 * 1024;
    let mut first = Bytes::new();
    let mut all = BytesMut::new();
    while !body.is_end_stream() {
        let Some(frame) = next_frame(&mut body, config).await? else { break };
        let Ok(data) = frame.map_err(|error| broken(connection, &error))?.into_data() else { continue };
        if data.len() > config.max_body_bytes - all.len().max(first.len()) {
            return Err(too_large(config));
        }
        if first.is_empty() && all.is_empty() {
            first = data;
            continue;
        }
        if all.is_empty() {
            let coming = body.size_hint().lower().min(MOST_RESERVED);
            all.reserve(first.len() + data.len() + usize::try_from(coming).unwrap_or(0));
            all.extend_from_slice(&std::mem::take(&mut first));
        }
        all.extend_from_slice(&data);
    }
    Ok(if all.is_empty() { first } else { all.freeze() })
}

type Incomings = Option<Result<Frame<Bytes>, hyper::Error>>;

async fn next_frame(body: &mut Incoming, config: &Config) -> Result<Incomings, Refusal> {
    // Most bodies come with their head: no timer for those.
    let mut body = Pin::new(body);
    if let Poll::Ready(frame) = poll_fn(|cx| Poll::Ready(body.as_mut().poll_frame(cx))).await {
        return Ok(frame);
    }
    let mut pause = pin!(sleep(config.body_timeout));
    poll_fn(|cx| {
        if let Poll::Ready(frame) = body.as_mut().poll_frame(cx) {
            return Poll::Ready(Ok(frame));
        }
        ready!(pause.as_mut().poll(cx));
        let limit = config.body_timeout;
        Poll::Ready(Err(Refusal::timeout(format!("no byte of the request body came for {limit:?}"))))
    })
    .await
}

fn broken(connection: &Connection, error: &hyper::Error) -> Refusal {
    let why = connection.refused.take();
    why.unwrap_or_else(|| Refusal::malformed(format!("the request body broke off: {error}")))
}

fn too_large(config: &Config) -> Refusal {
    Refusal::too_large(format!("request body is larger than the limit of {} bytes", config.max_body_bytes))
}
