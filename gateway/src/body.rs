//! Bodies: reading a request's, and the type of an answer's.

use std::{
    future::poll_fn,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Bytes, BytesMut};
use http_body::{Frame, SizeHint};
use hyper::body::{Body as _, Incoming};
use tokio::time::{Instant, timeout_at};

use crate::{Config, guard::Lease, http1::Upload, refusal::Refusal, rejection::Rejection, stream::StreamBody};

/// The body of an answer.
#[derive(Debug)]
pub(crate) enum Answer {
    Empty,
    Full(Bytes),
    Stream(Box<StreamBody>),
}

impl Answer {
    pub(crate) fn is_empty(&self) -> bool {
        http_body::Body::is_end_stream(self)
    }
}

/// A streamed answer ended with an error that can only be shown by breaking off.
#[derive(Debug, thiserror::Error)]
#[error("the streamed answer broke off: {0}")]
pub(crate) struct BrokeOff(pub(crate) String);

impl http_body::Body for Answer {
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

/// The body of a request.
#[derive(Debug)]
pub(crate) enum Body<'a> {
    Http1(&'a Upload<'a>),
    Http2(Incoming),
}

impl Body<'_> {
    /// Refuses a body whose announced length is over the limit, before a byte of it is read.
    pub(crate) fn check_length(&self, config: &Config) -> Result<(), Refusal> {
        let announced = match self {
            Self::Http1(upload) => upload.announced(),
            Self::Http2(incoming) => incoming.size_hint().lower(),
        };
        if announced > config.max_body_bytes as u64 { Err(too_large(config)) } else { Ok(()) }
    }

    /// Reads it, if its announced length is allowed. The lease grows with it.
    pub(crate) async fn read(self, config: &Config, lease: &mut Lease) -> Result<Bytes, Rejection> {
        self.check_length(config)?;
        self.collect(config, lease).await
    }

    /// Reads all of it. The lease grows with it.
    pub(crate) async fn collect(self, config: &Config, lease: &mut Lease) -> Result<Bytes, Rejection> {
        match self {
            Self::Http1(upload) => upload.collect(config, lease).await,
            Self::Http2(incoming) => Box::pin(collect(incoming, config, lease)).await,
        }
    }
}

/// Reads a whole body of HTTP/2; without a copy where it comes in one piece.
async fn collect(mut body: Incoming, config: &Config, lease: &mut Lease) -> Result<Bytes, Rejection> {
    let end = Instant::now() + config.upload_timeout;
    let mut first = Bytes::new();
    let mut all = BytesMut::new();
    while !body.is_end_stream() {
        let limit = end.min(Instant::now() + config.body_timeout);
        let frame = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx));
        let Some(frame) = timeout_at(limit, frame).await.map_err(|_| late(limit == end, config))? else { break };
        let data = frame.map_err(|error| Refusal::malformed(format!("the request body broke off: {error}")))?;
        let Ok(data) = data.into_data() else { continue };
        if data.len() > config.max_body_bytes - all.len().max(first.len()) {
            return Err(too_large(config).into());
        }
        lease.grow(all.len().max(first.len()) + data.len())?;
        if first.is_empty() && all.is_empty() {
            first = data;
            continue;
        }
        all.extend_from_slice(&std::mem::take(&mut first));
        all.extend_from_slice(&data);
    }
    Ok(if all.is_empty() { first } else { all.freeze() })
}

/// A body came too slowly: in all, or since its last byte.
pub(crate) fn late(in_all: bool, config: &Config) -> Refusal {
    Refusal::timeout(match in_all {
        true => format!("the request body did not come within {:?}", config.upload_timeout),
        false => format!("no byte of the request body came for {:?}", config.body_timeout),
    })
}

pub(crate) fn too_large(config: &Config) -> Refusal {
    Refusal::too_large(format!("request body is larger than the limit of {} bytes", config.max_body_bytes))
}
