//! Streamed answers.

use std::{
    future::poll_fn,
    task::{Context, Poll, ready},
};

use bytes::{BufMut, Bytes, BytesMut};
use fnmesh_invoke::{ChunkStream, Error, Format, Outcome, Payload};
use http::{HeaderValue, header::CACHE_CONTROL};

use crate::{
    body::{Answer, BrokeOff},
    call::Meter,
    connection::Busy,
    headers::Wanted,
    respond::{self, Response},
};

/// How the items are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Style {
    Bytes,
    Text,
    /// A JSON value per line.
    Lines,
    /// Server-sent events: <https://html.spec.whatwg.org/multipage/server-sent-events.html>.
    Events,
}

/// The items of a streamed answer as the bytes of a body. Dropping it cancels the call.
pub(crate) struct StreamBody {
    items: ChunkStream,
    style: Style,
    /// The first item, which decided the style.
    first: Option<Payload>,
    /// An error that is told by breaking off, once what came before has been sent.
    failed: Option<BrokeOff>,
    ended: bool,
    meter: Option<Meter>,
    busy: Busy,
}

impl std::fmt::Debug for StreamBody {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StreamBody").field("style", &self.style).finish_non_exhaustive()
    }
}

/// Waits for the first item and answers with it and what follows.
///
/// # Errors
/// The error that came in place of a first item, with what it takes to answer that.
pub(crate) async fn answer(
    mut items: ChunkStream,
    has_head: bool,
    wanted: Wanted,
    meter: Meter,
    busy: Busy,
) -> Result<Response, (Error, Meter, Busy)> {
    let first = match poll_fn(|cx| items.as_mut().poll_next(cx)).await {
        Some(Ok(first)) => Some(first),
        Some(Err(error)) => return Err((error, meter, busy)),
        None => None,
    };
    let (style, content_type) = match first.as_ref().map(|first| first.format) {
        _ if wanted == Wanted::Events => (Style::Events, HeaderValue::from_static("text/event-stream")),
        Some(Format::Bytes) => (Style::Bytes, respond::BYTES),
        Some(Format::Text) => (Style::Text, respond::TEXT),
        Some(Format::Json) | None => (Style::Lines, HeaderValue::from_static("application/x-ndjson")),
    };
    // With a head of its own the answer begins with bytes that may be empty and are no item.
    let first = first.filter(|first| !(has_head && first.format == Format::Bytes && first.body.is_empty()));
    let stream = StreamBody { items, style, first, failed: None, ended: false, meter: Some(meter), busy };
    let mut response = Response::new(Answer::Stream(Box::new(stream)));
    response.content_type = Some(content_type);
    if style == Style::Events {
        response.headers.push((CACHE_CONTROL, HeaderValue::from_static("no-cache")));
    }
    Ok(response)
}

impl StreamBody {
    /// The bytes of the next item. Not to be called after it gave an error or `None`.
    pub(crate) fn poll_item(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, BrokeOff>>> {
        if let Some(error) = self.failed.take() {
            return Poll::Ready(Some(Err(error)));
        }
        if self.ended {
            return Poll::Ready(None);
        }
        loop {
            let item = match self.first.take() {
                Some(first) => Some(Ok(first)),
                None => ready!(self.items.as_mut().poll_next(cx)),
            };
            let written = match item {
                Some(Ok(item)) => self.write(item),
                Some(Err(error)) => Err(error),
                None => {
                    self.end(Outcome::Ok);
                    return Poll::Ready(None);
                }
            };
            match written {
                // hyper takes no empty data.
                Ok(bytes) if bytes.is_empty() => {}
                Ok(bytes) => return Poll::Ready(Some(Ok(bytes))),
                Err(error) => return self.fail(&error, cx),
            }
        }
    }

    fn fail(&mut self, error: &Error, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, BrokeOff>>> {
        self.end(error.into());
        if self.style == Style::Events {
            let json = respond::error_json(&error.clone().into(), None);
            return Poll::Ready(Some(Ok(event(Some("error"), &json))));
        }
        self.busy.broke_off();
        // hyper drops what it has buffered when a body fails: let it write that first.
        self.failed = Some(BrokeOff(error.to_string()));
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn end(&mut self, outcome: Outcome) {
        self.ended = true;
        if let Some(meter) = self.meter.take() {
            self.busy.ended(meter.end(outcome));
        }
    }

    fn write(&self, item: Payload) -> Result<Bytes, Error> {
        let Payload { format, body } = item;
        match (self.style, format) {
            (Style::Bytes | Style::Text, _) => Ok(body),
            (Style::Lines, Format::Json) => Ok(line(&body)),
            (Style::Lines, Format::Text) => {
                let text = String::from_utf8_lossy(&body);
                Ok(line(&serde_json::to_vec(&text).unwrap_or_default()))
            }
            (Style::Events, Format::Json | Format::Text) => Ok(event(None, &body)),
            (Style::Lines, Format::Bytes) => Err(mixed("a stream that began with JSON")),
            (Style::Events, Format::Bytes) => Err(mixed("an event stream")),
        }
    }
}

fn mixed(place: &str) -> Error {
    Error::invalid(format!("the function yielded bytes, which cannot be sent in {place}"))
}

fn line(json: &[u8]) -> Bytes {
    let mut line = BytesMut::with_capacity(json.len() + 1);
    line.put_slice(json);
    line.put_u8(b'\n');
    line.freeze()
}

/// One event; a line of text is a `data:` line, however it ends.
fn event(name: Option<&str>, text: &[u8]) -> Bytes {
    let mut event = BytesMut::with_capacity(text.len() + 16);
    if let Some(name) = name {
        event.put_slice(b"event: ");
        event.put_slice(name.as_bytes());
        event.put_u8(b'\n');
    }
    let mut rest = text;
    loop {
        let end = memchr::memchr2(b'\n', b'\r', rest);
        event.put_slice(b"data: ");
        event.put_slice(&rest[..end.unwrap_or(rest.len())]);
        event.put_u8(b'\n');
        match end {
            Some(end) if rest[end..].starts_with(b"\r\n") => rest = &rest[end + 2..],
            Some(end) => rest = &rest[end + 1..],
            None => break,
        }
    }
    event.put_u8(b'\n');
    event.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_an_event_become_data_lines() {
        assert_eq!(event(None, b"{\"a\":1}"), "data: {\"a\":1}\n\n");
        assert_eq!(event(None, b"a\nb\r\nc\rd"), "data: a\ndata: b\ndata: c\ndata: d\n\n");
        assert_eq!(event(None, b"a\n"), "data: a\ndata: \n\n");
        assert_eq!(event(Some("error"), b""), "event: error\ndata: \n\n");
    }
}
