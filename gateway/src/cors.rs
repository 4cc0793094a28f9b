//! Cross-origin requests: <https://fetch.spec.whatwg.org/#http-cors-protocol>. Without credentials.

use http::{
    HeaderValue, Method, StatusCode,
    header::{
        ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
        ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, VARY,
    },
};

use crate::{
    request::Head,
    respond::{self, Response},
};

const REQUEST_METHOD: &str = "access-control-request-method";
const REQUEST_HEADERS: &str = "access-control-request-headers";

/// Whether a browser, which has said where its page is from, asks for leave to send another request.
pub(crate) fn is_preflight(head: &Head<'_>) -> bool {
    head.method == Method::OPTIONS && head.field(REQUEST_METHOD).is_some()
}

/// Grants what a preflight asks for.
pub(crate) fn preflight(head: &Head<'_>) -> Response {
    let mut response = respond::empty(StatusCode::NO_CONTENT);
    for (asked, granted) in
        [(REQUEST_METHOD, ACCESS_CONTROL_ALLOW_METHODS), (REQUEST_HEADERS, ACCESS_CONTROL_ALLOW_HEADERS)]
    {
        if let Some(Ok(value)) = head.field(asked).map(HeaderValue::from_bytes) {
            response.headers.push((granted, value));
        }
    }
    response.headers.push((ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("600")));
    response
}

/// Lets a browser show the answer to pages of `origin`, unless the function has decided that.
pub(crate) fn expose(response: &mut Response, origin: &HeaderValue) {
    if response.has(&ACCESS_CONTROL_ALLOW_ORIGIN) {
        return;
    }
    let headers = &mut response.headers;
    headers.push((ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone()));
    headers.push((ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static("x-invocation-id")));
    if origin != "*" {
        headers.push((VARY, HeaderValue::from_static("origin")));
    }
}
