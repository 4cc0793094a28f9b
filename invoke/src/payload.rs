use std::{fmt, pin::Pin};

use bytes::Bytes;
use futures_core::Stream;
use serde::{Deserialize, Serialize};

use crate::Error;

/// How the bytes of a [`Payload`] are to be read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// One JSON value. As arguments: an array is positional, an object named, anything else one argument.
    #[default]
    Json,
    /// Raw bytes. As arguments: one `bytes` argument.
    Bytes,
    /// UTF-8 text. As arguments: one string argument.
    Text,
}

/// Bytes that pass through the node unparsed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Payload {
    /// How to read them.
    pub format: Format,
    /// The bytes; empty JSON means no arguments.
    pub body: Bytes,
}

impl Payload {
    /// JSON text, not checked here.
    pub fn json(body: impl Into<Bytes>) -> Self {
        Self { format: Format::Json, body: body.into() }
    }

    /// Raw bytes.
    pub fn bytes(body: impl Into<Bytes>) -> Self {
        Self { format: Format::Bytes, body: body.into() }
    }

    /// UTF-8 text.
    pub fn text(body: impl Into<Bytes>) -> Self {
        Self { format: Format::Text, body: body.into() }
    }
}

/// An HTTP request without its body, as functions that take one see it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequestHead {
    /// `GET`, `POST`, ...
    pub method: String,
    /// Scheme, authority and path with query, as the client sent them.
    pub url: String,
    /// What follows `/{app}/{function}` in the path; empty or starts with `/`.
    pub path: String,
    /// The query without `?`, still percent-encoded; empty if there is none.
    pub query: String,
    /// Header names in lower case with their values, in order of arrival.
    pub headers: Vec<(String, String)>,
}

/// An HTTP response without its body, from functions that answer with one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResponseHead {
    /// 200 to 599.
    pub status: u16,
    /// Header names with their values; a name may repeat (`set-cookie`).
    #[serde(default)]
    pub headers: Vec<(String, String)>,
}

/// The items of a streamed answer. Dropping it cancels the call.
///
/// An error is the last item. Items are pulled: a slow reader slows the function.
pub type ChunkStream = Pin<Box<dyn Stream<Item = Result<Payload, Error>>>>;

/// What a call answered.
#[derive(Debug)]
pub struct Reply {
    /// Set when the function answered with an HTTP response of its own.
    pub head: Option<Box<ResponseHead>>,
    /// The value or the items.
    pub body: ReplyBody,
    /// Whether it is the answer to an earlier call with the same idempotency key.
    pub is_replayed: bool,
}

impl Reply {
    /// What a call has answered itself.
    pub fn new(head: Option<Box<ResponseHead>>, body: ReplyBody) -> Self {
        Self { head, body, is_replayed: false }
    }
}

/// The body of a [`Reply`].
pub enum ReplyBody {
    /// One value.
    Full(Payload),
    /// Items as the function yields them.
    Stream(ChunkStream),
}

impl fmt::Debug for ReplyBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full(payload) => f.debug_tuple("Full").field(payload).finish(),
            Self::Stream(_) => f.write_str("Stream"),
        }
    }
}

impl From<Payload> for Reply {
    fn from(payload: Payload) -> Self {
        Self::new(None, ReplyBody::Full(payload))
    }
}
