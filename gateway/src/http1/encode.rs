//! Response heads as bytes. Pure.

use http::{StatusCode, header::CONTENT_LENGTH};

use crate::respond::Response;

/// What ends a chunked body.
pub(super) const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

/// How the client learns where the body ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Length {
    Known(usize),
    Chunked,
    /// The end of the connection tells.
    UntilClose,
}

/// Appends the head of an answer. `connection` is the `Connection` header, if it takes one.
pub(super) fn head(response: &Response, length: Length, connection: Option<&str>, date: &[u8], out: &mut Vec<u8>) {
    status_line(response.status, out);
    if let Some(value) = &response.content_type {
        field(b"content-type: ", value.as_bytes(), out);
    }
    if let Some(id) = response.invocation {
        field(b"x-invocation-id: ", &id.to_hex(), out);
    }
    for (name, value) in &response.headers {
        out.extend_from_slice(name.as_str().as_bytes());
        field(b": ", value.as_bytes(), out);
    }
    match length {
        // RFC 9110, 8.6. The function may know better what a HEAD would have had.
        _ if matches!(response.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED) => {}
        Length::Known(_) if response.has(&CONTENT_LENGTH) => {}
        Length::Known(length) => field(b"content-length: ", itoa::Buffer::new().format(length).as_bytes(), out),
        Length::Chunked => field(b"transfer-encoding: ", b"chunked", out),
        Length::UntilClose => {}
    }
    if let Some(value) = connection {
        field(b"connection: ", value.as_bytes(), out);
    }
    field(b"date: ", date, out);
    out.extend_from_slice(b"\r\n");
}

/// Appends a chunk of a chunked body. An empty one would end it and is left out.
pub(super) fn chunk(data: &[u8], out: &mut Vec<u8>) {
    if data.is_empty() {
        return;
    }
    out.extend_from_slice(format!("{:x}\r\n", data.len()).as_bytes());
    out.extend_from_slice(data);
    out.extend_from_slice(b"\r\n");
}

fn status_line(status: StatusCode, out: &mut Vec<u8>) {
    if status == StatusCode::OK {
        return out.extend_from_slice(b"HTTP/1.1 200 OK\r\n");
    }
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend_from_slice(status.as_str().as_bytes());
    out.push(b' ');
    out.extend_from_slice(status.canonical_reason().unwrap_or_default().as_bytes());
    out.extend_from_slice(b"\r\n");
}

/// `name` has its colon and space.
fn field(name: &[u8], value: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(name);
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http::{HeaderName, HeaderValue};

    use super::*;
    use crate::{body::Answer, respond};

    fn written(response: &Response, length: Length, connection: Option<&str>) -> String {
        let mut out = Vec::new();
        head(response, length, connection, b"now", &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn heads_say_how_long_the_body_is() {
        let mut response = respond::full(respond::TEXT, Bytes::from_static(b"abc"));
        response.headers.push((HeaderName::from_static("x-a"), HeaderValue::from_static("b")));
        assert_eq!(
            written(&response, Length::Known(3), None),
            "HTTP/1.1 200 OK\r\ncontent-type: text/plain; charset=utf-8\r\nx-a: b\r\ncontent-length: 3\r\n\
             date: now\r\n\r\n"
        );
        let response = Response::new(Answer::Empty);
        assert_eq!(
            written(&response, Length::Chunked, Some("keep-alive")),
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\nconnection: keep-alive\r\ndate: now\r\n\r\n"
        );
        assert!(!written(&response, Length::UntilClose, Some("close")).contains("transfer-encoding"));
    }

    #[test]
    fn statuses_without_body_have_no_length() {
        for status in [204, 304] {
            let response = respond::empty(StatusCode::from_u16(status).unwrap());
            assert!(!written(&response, Length::Known(0), None).contains("content-length"));
        }
        let unnamed = written(&respond::empty(StatusCode::from_u16(299).unwrap()), Length::Known(0), None);
        assert!(unnamed.starts_with("HTTP/1.1 299 \r\ncontent-length: 0\r\n"), "{unnamed}");
    }

    #[test]
    fn length_that_a_function_gave_is_not_repeated() {
        let mut response = Response::new(Answer::Empty);
        response.headers.push((CONTENT_LENGTH, HeaderValue::from(7)));
        let head = written(&response, Length::Known(0), None);
        assert_eq!(head.matches("content-length").count(), 1);
    }

    #[test]
    fn empty_chunks_are_left_out() {
        let mut out = Vec::new();
        chunk(b"", &mut out);
        chunk(&[b'x'; 26], &mut out);
        assert_eq!(out, [&b"1a\r\n"[..], &[b'x'; 26], b"\r\n"].concat());
    }
}
