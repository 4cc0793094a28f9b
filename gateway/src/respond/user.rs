use fnmesh_invoke::{Error, Failure, ResponseHead};
use http::{
    HeaderName, HeaderValue, Method, StatusCode,
    header::{CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, TE, TRAILER, TRANSFER_ENCODING, UPGRADE},
};

use super::Response;
use crate::body::Answer;

/// Headers that belong to the connection, which is the gateway's. RFC 9110, 7.6.1.
const HOP_BY_HOP: [HeaderName; 7] = [
    CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    TE,
    TRAILER,
    TRANSFER_ENCODING,
    UPGRADE,
];

/// Gives an answer the head that the function made.
///
/// # Errors
/// [`Error::FunctionFailed`] where it is no head of an HTTP response.
pub(crate) fn from_function(mut response: Response, head: &ResponseHead, method: &Method) -> Result<Response, Error> {
    let status = StatusCode::from_u16(head.status).ok().filter(|status| (200..600).contains(&status.as_u16()));
    let Some(status) = status else {
        return Err(bad_response(format!("the response has status {}; it must be 200 to 599", head.status)));
    };
    response.status = status;
    let mut typed = false;
    for (name, value) in &head.headers {
        let (Ok(header), Ok(content)) = (HeaderName::try_from(name), HeaderValue::try_from(value)) else {
            return Err(bad_response(format!(
                "the response has the header {name:?}: {value:?}, which HTTP does not allow"
            )));
        };
        if header == CONTENT_LENGTH {
            // Known from the body; a HEAD has none, so there the function's word stands.
            let is_length = !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit());
            if method == Method::HEAD && is_length && response.body.is_empty() && !response.has(&CONTENT_LENGTH) {
                response.headers.push((header, content));
            }
        } else if header == CONTENT_TYPE && !std::mem::replace(&mut typed, true) {
            response.content_type = Some(content);
        } else if !HOP_BY_HOP.contains(&header) {
            response.headers.push((header, content));
        }
    }
    if matches!(status, StatusCode::NO_CONTENT | StatusCode::RESET_CONTENT | StatusCode::NOT_MODIFIED) {
        response.body = Answer::Empty;
    }
    if !typed && response.body.is_empty() {
        response.content_type = None;
    }
    Ok(response)
}

fn bad_response(message: String) -> Error {
    Error::FunctionFailed(Box::new(Failure { kind: "ResponseError".into(), message, stack: String::new() }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::respond::{JSON, full};

    fn answer(status: u16, headers: &[(&str, &str)], body: &'static str, method: &Method) -> Result<Response, Error> {
        let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        from_function(full(JSON, body), &ResponseHead { status, headers }, method)
    }

    #[test]
    fn connection_headers_are_dropped() {
        let headers = [
            ("Connection", "close"),
            ("Transfer-Encoding", "chunked"),
            ("Content-Length", "999"),
            ("Upgrade", "websocket"),
            ("Set-Cookie", "a=1"),
            ("set-cookie", "b=2"),
            ("Content-Type", "text/html"),
        ];
        let response = answer(201, &headers, "x", &Method::GET).unwrap();
        assert_eq!(response.status, 201);
        let left: Vec<_> =
            response.headers.iter().map(|(name, value)| (name.as_str(), value.to_str().unwrap())).collect();
        assert_eq!(left, [("set-cookie", "a=1"), ("set-cookie", "b=2")]);
        assert_eq!(response.content_type.unwrap(), "text/html");
    }

    #[test]
    fn impossible_heads_are_named() {
        for (status, name, value, reason) in [
            (99, "a", "b", "status 99"),
            (101, "a", "b", "status 101"),
            (600, "a", "b", "status 600"),
            (200, "a b", "c", "\"a b\""),
            (200, "a", "b\r\nc: d", "\"b\\r\\nc: d\""),
        ] {
            let error = answer(status, &[(name, value)], "", &Method::GET).unwrap_err();
            assert_eq!((error.http_status(), error.kind()), (500, "ResponseError"));
            assert!(error.message().contains(reason), "{}", error.message());
        }
    }

    #[test]
    fn statuses_without_body_have_none() {
        for status in [204, 205, 304] {
            let response = answer(status, &[], "x", &Method::GET).unwrap();
            assert!(response.body.is_empty() && response.headers.is_empty() && response.content_type.is_none());
        }
    }

    #[test]
    fn content_length_of_head_is_the_functions() {
        let response = answer(200, &[("content-length", "12")], "", &Method::HEAD).unwrap();
        assert_eq!(response.headers, [(CONTENT_LENGTH, HeaderValue::from(12))]);
    }
}
