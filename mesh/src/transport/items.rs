//! A streamed answer, as the side that asked reads it.

use std::{
    future::poll_fn,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use futures_core::Stream;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::{
    INVALID_REQUEST, ITEM,
    calls::CallError,
    envelope::{Failure, Message},
    reader::Reader,
};

/// The parameters of `open`, the first message of a streamed answer.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Opening<'a> {
    /// Of the request.
    pub(crate) id: u64,
    /// What is said before the first item.
    #[serde(borrow)]
    pub(crate) opening: &'a RawValue,
}

pub(crate) fn opening(params: Option<&RawValue>) -> Result<(u64, Box<RawValue>), String> {
    let text = params.map_or("null", RawValue::get);
    let Opening { id, opening } =
        serde_json::from_str(text).map_err(|error| format!("invalid parameters of \"open\": {error}"))?;
    Ok((id, opening.to_owned()))
}

/// One item: what is said about it, and its bytes.
pub type Item = (Box<RawValue>, Bytes);

/// The items of a streamed answer, read as they are asked for: a slow reader slows the peer.
/// Dropping it stops the stream.
#[derive(Debug)]
pub struct Items {
    opening: Box<RawValue>,
    reader: Option<Reader>,
}

impl Items {
    pub(crate) fn new(opening: Box<RawValue>, reader: Reader) -> Self {
        Self { opening, reader: Some(reader) }
    }

    /// What the peer said before the first item, as JSON.
    pub fn opening(&self) -> &RawValue {
        &self.opening
    }

    /// The next item; `None` at the end, also after an error. Cancel safe.
    pub async fn next(&mut self) -> Option<Result<Item, CallError>> {
        poll_fn(|cx| Pin::new(&mut *self).poll_next(cx)).await
    }
}

impl Stream for Items {
    type Item = Result<Item, CallError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let Some(reader) = &mut self.reader else { return Poll::Ready(None) };
        let end = match ready!(reader.poll_next(cx)) {
            Ok(Some(frame)) => match Message::parse(&frame.envelope) {
                Ok(Message::Notification { method: ITEM, params: Some(params) }) => {
                    return Poll::Ready(Some(Ok((params.to_owned(), frame.body))));
                }
                Ok(Message::Response { outcome: Ok(_), .. }) => None,
                Ok(Message::Response { outcome: Err(failure), .. }) | Err(failure) => Some(CallError::Failed(failure)),
                Ok(_) => Some(CallError::Failed(Failure::new(
                    INVALID_REQUEST,
                    "a streamed answer holds a message that is no item",
                ))),
            },
            Ok(None) => Some(CallError::Lost("the stream ended before its last item".into())),
            Err(error) => Some(CallError::Lost(error.to_string().into())),
        };
        self.reader = None;
        Poll::Ready(end.map(Err))
    }
}
