//! A request as the arguments of a function.
//!
//! GET and HEAD: the query, named. POST: the body, by its content type; a query beside a body is
//! ignored, and alone it is the arguments.

mod media;
mod named;

use bytes::Bytes;
use fnmesh_invoke::{Error, Format, Function, Payload};
use http::Method;

use crate::{headers::Hints, refusal::Refusal, rejection::Rejection, request::Head};
use media::Media;

/// The arguments of a call of `function`, which does not take the request itself.
///
/// # Errors
/// 400 for what cannot be read, 415 for a content type that cannot be arguments.
pub(crate) fn payload(
    function: &Function,
    head: &Head<'_>,
    hints: &Hints<'_>,
    body: Bytes,
) -> Result<Payload, Rejection> {
    let query = head.query;
    if head.method != Method::POST {
        if !body.is_empty() {
            let message = format!("{} takes its arguments from the query; send a body by POST", head.method);
            return Err(Error::invalid(message).into());
        }
        return Ok(named::arguments(function, query.as_bytes(), "query parameter")?);
    }
    if body.is_empty() && !query.is_empty() {
        return Ok(named::arguments(function, query.as_bytes(), "query parameter")?);
    }
    if let Some(encoding) = hints.content_encoding.filter(|value| !value.eq_ignore_ascii_case(b"identity")) {
        let message = format!("Content-Encoding \"{}\" is not taken; send the body as it is", encoding.escape_ascii());
        return Err(Refusal::media_type(message).into());
    }
    match Media::of(hints.content_type)? {
        Media::Unsaid => json(body),
        Media::Json if body.is_empty() => Err(Error::invalid("the request body is empty, which is not JSON").into()),
        Media::Json => json(body),
        Media::Form if looks_like_json(&body) => json(body),
        Media::Form => Ok(named::arguments(function, &body, "form field")?),
        Media::Text => {
            check_utf8(&body, "text")?;
            Ok(Payload::text(body))
        }
        Media::Multipart => Err(multipart(function)),
        Media::Bytes => Ok(Payload::bytes(body)),
    }
}

fn json(body: Bytes) -> Result<Payload, Rejection> {
    check_utf8(&body, "JSON")?;
    Ok(Payload { format: Format::Json, body })
}

/// Refuses what is not UTF-8, with the place.
pub(crate) fn check_utf8(body: &[u8], what: &str) -> Result<(), Error> {
    // The basic flavour is twice as fast and does not say where.
    if simdutf8::basic::from_utf8(body).is_ok() {
        return Ok(());
    }
    let position = std::str::from_utf8(body).map_or_else(|error| error.valid_up_to(), str::len);
    Err(Error::invalid(format!("the request body is not {what}: byte {position} is not valid UTF-8")))
}

/// Whether a body sent as a form is JSON from a client that did not say so: `curl -d` sends the
/// content type of forms unless told otherwise.
fn looks_like_json(body: &[u8]) -> bool {
    match body.trim_ascii_start().first() {
        Some(b'{' | b'[' | b'"') => true,
        Some(b'-' | b'0'..=b'9' | b't' | b'f' | b'n') => serde_json::from_slice::<serde::de::IgnoredAny>(body).is_ok(),
        _ => false,
    }
}

fn multipart(function: &Function) -> Rejection {
    let id = &function.id;
    let message = format!(
        "{id} does not take multipart/form-data; a function with a parameter of type fnmesh.Request \
         (Node: marked as http) reads it itself. Send JSON, form fields or raw bytes"
    );
    Refusal::media_type(message).into()
}

#[cfg(test)]
mod tests;
