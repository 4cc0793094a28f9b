//! Replies and errors as HTTP responses.

mod user;

use std::time::Duration;

use bytes::Bytes;
use fnmesh_invoke::{Error, Format, InvocationId, Payload};
use http::{
    HeaderValue, Response, StatusCode,
    header::{ALLOW, CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, RETRY_AFTER},
};
use serde::Serialize;

use crate::{body::Answer, headers::Wanted, rejection::Rejection};
pub(crate) use user::from_function;

pub(crate) const JSON: HeaderValue = HeaderValue::from_static("application/json");
pub(crate) const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");
pub(crate) const BYTES: HeaderValue = HeaderValue::from_static("application/octet-stream");

/// A 200 with this body.
pub(crate) fn full(content_type: HeaderValue, body: impl Into<Bytes>) -> Response<Answer> {
    let mut response = Response::new(Answer::Full(body.into()));
    response.headers_mut().insert(CONTENT_TYPE, content_type);
    response
}

/// A 200 with this value as JSON.
pub(crate) fn json(value: &impl Serialize) -> Response<Answer> {
    match serde_json::to_vec(value) {
        Ok(body) => full(JSON, body),
        Err(error) => rejection(&Error::internal(format!("the answer is not JSON: {error}")).into(), None),
    }
}

/// An answer without a body.
pub(crate) fn empty(status: StatusCode) -> Response<Answer> {
    let mut response = Response::new(Answer::Empty);
    *response.status_mut() = status;
    response
}

/// A function's value.
pub(crate) fn value(payload: Payload, wanted: Wanted) -> Response<Answer> {
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
pub(crate) fn rejection(rejection: &Rejection, id: Option<InvocationId>) -> Response<Answer> {
    let mut response = full(JSON, error_json(rejection, id));
    *response.status_mut() = rejection.status();
    let headers = response.headers_mut();
    match rejection {
        Rejection::Error(error) => {
            if let Some(after) = error.retry_after() {
                headers.insert(RETRY_AFTER, HeaderValue::from(whole_seconds(after)));
            }
        }
        Rejection::Refusal(refusal) => {
            if let Some(allow) = refusal.allow {
                headers.insert(ALLOW, HeaderValue::from_static(allow));
            }
            if refusal.close {
                headers.insert(CONNECTION, HeaderValue::from_static("close"));
            }
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

/// The answer to HEAD is the answer to GET without its body.
pub(crate) fn without_body(response: &mut Response<Answer>) {
    if let Answer::Full(body) = std::mem::replace(response.body_mut(), Answer::Empty) {
        let length = HeaderValue::from(body.len());
        response.headers_mut().entry(CONTENT_LENGTH).or_insert(length);
    }
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
            let Answer::Full(body) = response.body() else { panic!("not full") };
            (response.headers()[CONTENT_TYPE].clone(), body.clone())
        };
        assert_eq!(body(r#""a\n\u00e9""#), (TEXT, Bytes::from("a\né")));
        assert_eq!(body("[1]"), (JSON, Bytes::from("[1]")));
    }
}
