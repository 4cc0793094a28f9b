//! Cross-origin requests: <https://fetch.spec.whatwg.org/#http-cors-protocol>. Without credentials.

use http::{
    HeaderMap, HeaderValue, Method, Response, StatusCode,
    header::{
        ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
        ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_HEADERS,
        ACCESS_CONTROL_REQUEST_METHOD, ORIGIN, VARY,
    },
    request::Parts,
};

use crate::{body::Answer, respond};

/// Whether a browser asks for leave to send another request.
pub(crate) fn is_preflight(head: &Parts) -> bool {
    head.method == Method::OPTIONS
        && head.headers.contains_key(ORIGIN)
        && head.headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD)
}

/// Grants what a preflight asks for.
pub(crate) fn preflight(head: &Parts) -> Response<Answer> {
    let mut response = respond::empty(StatusCode::NO_CONTENT);
    let headers = response.headers_mut();
    for (asked, granted) in [
        (ACCESS_CONTROL_REQUEST_METHOD, ACCESS_CONTROL_ALLOW_METHODS),
        (ACCESS_CONTROL_REQUEST_HEADERS, ACCESS_CONTROL_ALLOW_HEADERS),
    ] {
        if let Some(value) = head.headers.get(asked) {
            headers.insert(granted, value.clone());
        }
    }
    headers.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("600"));
    response
}

/// Lets a browser show the answer to pages of `origin`, unless the function has decided that.
pub(crate) fn expose(response: &mut HeaderMap, origin: &HeaderValue) {
    if response.contains_key(ACCESS_CONTROL_ALLOW_ORIGIN) {
        return;
    }
    response.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
    response.append(ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static("x-invocation-id"));
    if origin != "*" {
        response.append(VARY, HeaderValue::from_static("origin"));
    }
}
