use fnmesh_invoke::{InvocationId, Traceparent};
use http::{HeaderName, HeaderValue};

use crate::request::Head;

pub(crate) const X_INVOCATION_ID: HeaderName = HeaderName::from_static("x-invocation-id");
pub(crate) const IDEMPOTENCY_REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");
pub(crate) const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// The request headers that decide about a request, found in one pass.
#[derive(Debug, Default)]
pub(crate) struct Hints<'a> {
    /// Whether a browser says where its page is from.
    pub(crate) has_origin: bool,
    pub(crate) content_type: Option<&'a [u8]>,
    pub(crate) content_encoding: Option<&'a [u8]>,
    pub(crate) accept: Option<&'a [u8]>,
    pub(crate) traceparent: Option<Traceparent>,
    pub(crate) idempotency_key: Option<Box<str>>,
}

impl<'a> Hints<'a> {
    pub(crate) fn of(head: &Head<'a>) -> Self {
        let mut hints = Self::default();
        head.each(|name, value| match name.len() {
            6 if name.eq_ignore_ascii_case(b"accept") => {
                hints.accept.get_or_insert(value);
            }
            6 => hints.has_origin |= name.eq_ignore_ascii_case(b"origin"),
            11 if name.eq_ignore_ascii_case(b"traceparent") => hints.traceparent = Traceparent::parse(value),
            12 if name.eq_ignore_ascii_case(b"content-type") => {
                hints.content_type.get_or_insert(value);
            }
            15 if name.eq_ignore_ascii_case(b"idempotency-key") => {
                // Tabs are allowed in header values, and nobody means them.
                let plain = value.iter().all(|byte| matches!(byte, b' '..=b'~' | b'\t'));
                hints.idempotency_key = std::str::from_utf8(value).ok().filter(|_| plain).map(Into::into);
            }
            16 if name.eq_ignore_ascii_case(b"content-encoding") => {
                hints.content_encoding.get_or_insert(value);
            }
            _ => {}
        });
        hints
    }
}

/// The `X-Invocation-Id` of a call.
pub(crate) fn invocation_id(id: InvocationId) -> HeaderValue {
    HeaderValue::from_bytes(&id.to_hex()).unwrap_or_else(|_| HeaderValue::from_static(""))
}

/// The kind of answer a client asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// JSON, or it does not care.
    Json,
    /// Text as it is.
    Text,
    /// Server-sent events.
    Events,
}

impl Wanted {
    /// Reads an `Accept` header. RFC 9110, 12.5.1; what we do not have counts as no wish.
    pub(crate) fn of(accept: Option<&[u8]>) -> Self {
        // What most clients send that say anything.
        let Some(accept) = accept.filter(|value| *value != b"*/*").and_then(|value| std::str::from_utf8(value).ok())
        else {
            return Self::Json;
        };
        let weigh = |media: &str| weight(accept, media);
        let (events, text, json) = (weigh("text/event-stream"), weigh("text/plain"), weigh("application/json"));
        // `*/*` wants whatever there is, and `text/*` hardly means events.
        if events.named == Some(Named::Exactly) && events.quality > 0 && events >= json {
            Self::Events
        } else if text.named.is_some() && text > json {
            Self::Text
        } else {
            Self::Json
        }
    }
}

/// How much a media type is wanted: by quality in thousandths, then by how closely it is named.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Weight {
    quality: u16,
    named: Option<Named>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Named {
    /// As `text/*`.
    Partly,
    /// As `text/plain`.
    Exactly,
}

fn weight(accept: &str, media: &str) -> Weight {
    let mut best = Weight::default();
    for range in accept.split(',') {
        let (range, parameters) = range.split_once(';').unwrap_or((range, ""));
        let range = range.trim();
        let named = if range.eq_ignore_ascii_case(media) {
            Some(Named::Exactly)
        } else if range.strip_suffix("/*").is_some_and(|kind| media.split('/').next() == Some(kind)) {
            Some(Named::Partly)
        } else if range == "*/*" {
            None
        } else {
            continue;
        };
        // The closest range decides, whatever its quality.
        if named >= best.named {
            best = Weight { quality: quality(parameters), named };
        }
    }
    best
}

fn quality(parameters: &str) -> u16 {
    let value = parameters.split(';').find_map(|parameter| parameter.trim().strip_prefix("q="));
    let value = value.and_then(|text| text.trim().parse::<f32>().ok()).unwrap_or(1.0);
    (value.clamp(0.0, 1.0) * 1000.0) as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accept_decides_the_kind_of_answer() {
        for (accept, wanted) in [
            ("*/*", Wanted::Json),
            ("application/json, text/plain, */*", Wanted::Json),
            ("text/html,application/xhtml+xml,*/*;q=0.8", Wanted::Json),
            ("text/plain", Wanted::Text),
            ("text/plain, */*", Wanted::Text),
            ("text/*", Wanted::Text),
            ("text/plain;q=0.5, application/json", Wanted::Json),
            ("text/plain, application/json;q=0.5", Wanted::Text),
            ("text/plain;q=0, */*", Wanted::Json),
            ("text/event-stream", Wanted::Events),
            ("text/event-stream;q=0", Wanted::Json),
            ("Text/Event-Stream, text/plain", Wanted::Events),
            ("text/event-stream, application/json;q=0.9", Wanted::Events),
        ] {
            assert_eq!(Wanted::of(Some(accept.as_bytes())), wanted, "{accept}");
        }
        assert_eq!(Wanted::of(None), Wanted::Json);
    }
}
