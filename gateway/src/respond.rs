//! Replies and errors as HTTP responses.

mod user;

use std::time::Duration;

use bytes::Bytes;
use fnmesh_invoke::{Error, Format, InvocationId, Payload};
use http::{
    HeaderName, HeaderValue, StatusCode,
    header::{ALLOW, CONTENT_LENGTH, CONTENT_TYPE, RETRY_AFTER},
};
use serde::Serialize;

use crate::{
    body::Answer,
    headers::{self, Wanted, X_INVOCATION_ID},
    rejection::Rejection,
};
pub(crate) use user::from_function;

pub(crate) const JSON: HeaderValue = HeaderValue::from_static("application/json");
pub(crate) const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");
pub(crate) const BYTES: HeaderValue = HeaderValue::from_static("application/octet-stream");

/// An answer.
#[derive(Debug)]
pub(crate) struct Response {
    pub(crate) status: StatusCode,
    pub(crate) content_type: Option<HeaderValue>,
    /// The `X-Invocation-Id`.
    pub(crate) invocation: Option<InvocationId>,
    /// All others: few, so that a search costs less than a map. `Content-Length` only where there is
    /// no body to tell it.
    pub(crate) headers: Vec<(HeaderName, HeaderValue)>,
    pub(crate) body: Answer,
    /// Whether the connection ends with it.
    pub(crate) close: bool,
}

impl Response {
    /// A 200.
    pub(crate) fn new(body: Answer) -> Self {
        let (status, headers) = (StatusCode::OK, Vec::new());
        Self { status, content_type: None, invocation: None, headers, body, close: false }
    }

    /// Whether it has this header.
    pub(crate) fn has(&self, name: &HeaderName) -> bool {
        self.headers.iter().any(|(other, _)| other == name)
    }

    /// The answer to HEAD is the answer to GET without its body.
    pub(crate) fn drop_body(&mut self) {
        if let Answer::Full(body) = std::mem::replace(&mut self.body, Answer::Empty)
            && !self.has(&CONTENT_LENGTH)
        {
            self.headers.push((CONTENT_LENGTH, HeaderValue::from(body.len())));
        }
    }

    /// For hyper, which speaks HTTP/2.
    pub(crate) fn into_http2(self) -> http::Response<Answer> {
        let mut response = http::Response::new(self.body);
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        if let Some(value) = self.content_type {
            headers.insert(CONTENT_TYPE, value);
        }
        if let Some(id) = self.invocation {
            headers.insert(X_INVOCATION_ID, headers::invocation_id(id));
        }
        for (name, value) in self.headers {
            headers.append(name, value);
        }
        response
    }
}

/// A 200 with this body.
pub(crate) fn full(content_type: HeaderValue, body: impl Into<Bytes>) -> Response {
    Response { content_type: Some(content_type), ..Response::new(Answer::Full(body.into())) }
}

/// A 200 with this value as JSON.
pub(crate) fn json(value: &impl Serialize) -> Response {
    match serde_json::to_vec(value) {
        Ok(body) => full(JSON, body),
        Err(error) => rejection(&Error::internal(format!("the answer is not JSON: {error}")).into(), None),
    }
}

/// An answer without a body.
pub(crate) fn empty(status: StatusCode) -> Response {
    Response { status, ..Response::new(Answer::Empty) }
}

/// A function's value.
pub(crate) fn value(payload: Payload, wanted: Wanted) -> Response {
    match payload.format {
        Format::Json if wanted == Wanted::Text => match serde_json::from_slice::<String>(&payload.body) {
            Ok(text) => full(TEXT, text),
            Err(_) => full(JSON, payload.body),
        },
        Format::Json => full(JSON, payload.body),
        Format::Text => full(TEXT, payload.body),
        Format::Bytes => full(BYTES, payload.body),
    }
}

/// An error, as `{"error":{...}}`.
pub(crate) fn rejection(rejection: &Rejection, id: Option<InvocationId>) -> Response {
    let mut response = full(JSON, error_json(rejection, id));
    response.status = rejection.status();
    response.invocation = id;
    match rejection {
        Rejection::Error(error) => {
            if let Some(after) = error.retry_after() {
                response.headers.push((RETRY_AFTER, HeaderValue::from(whole_seconds(after))));
            }
        }
        Rejection::Refusal(refusal) => {
            if let Some(allow) = refusal.allow {
                response.headers.push((ALLOW, HeaderValue::from_static(allow)));
            }
            response.close = refusal.close;
        }
    }
    response
}

/// The body of an error's answer.
pub(crate) fn error_json(rejection: &Rejection, id: Option<InvocationId>) -> Vec<u8> {
    #[derive(Serialize)]
    struct Body<'a> {
        error: Inner<'a>,
    }
    #[derive(Serialize)]
    struct Inner<'a> {
        #[serde(rename = "type")]
        kind: &'a str,
        message: String,
        #[serde(skip_serializing_if = "Option::is_none")]
        stack: Option<&'a str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        invocation_id: Option<String>,
    }
    let error = Inner {
        kind: rejection.kind(),
        message: rejection.message(),
        stack: rejection.stack(),
        invocation_id: id.map(|id| id.to_string()),
    };
    // Strings into memory: it cannot fail.
    serde_json::to_vec(&Body { error }).unwrap_or_default()
}

fn whole_seconds(after: Duration) -> u64 {
    (after.as_secs() + u64::from(after.subsec_nanos() > 0)).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_rounds_up_to_whole_seconds() {
        for (millis, seconds) in [(0, 1), (1, 1), (1000, 1), (1001, 2), (2500, 3)] {
            assert_eq!(whole_seconds(Duration::from_millis(millis)), seconds);
        }
    }

    #[test]
    fn text_is_decoded_only_from_json_strings() {
        let body = |json: &'static str| {
            let response = value(Payload::json(json), Wanted::Text);
            let Answer::Full(body) = response.body else { panic!("not full") };
            (response.content_type.unwrap(), body)
        };
        assert_eq!(body(r#""a\n\u00e9""#), (TEXT, Bytes::from("a\né")));
        assert_eq!(body("[1]"), (JSON, Bytes::from("[1]")));
    }
}
