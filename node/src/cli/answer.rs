use std::io::{self, Write};

use bytes::Bytes;
use http::{
    HeaderMap, Response, StatusCode,
    header::{CONTENT_LENGTH, CONTENT_TYPE},
};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use serde::Deserialize;

use super::{FAILED, OK, Stop, pretty};
use crate::{
    report::stack_lines,
    terminal::{self, DIM, ERROR},
};

/// Prints an answer: the value to stdout as it arrives, an error to stderr.
///
/// # Errors
/// A failed [`Stop`] when the answer breaks off or cannot be shown.
pub(super) async fn print(response: Response<Incoming>, include: bool) -> Result<u8, Stop> {
    let (head, mut body) = response.into_parts();
    if include {
        print_head(head.status, &head.headers);
    }
    if head.status.is_client_error() || head.status.is_server_error() {
        print_failure(head.status, &collect(&mut body).await?);
        return Ok(FAILED);
    }
    let is_text = is_text(&head.headers);
    if terminal::is_stdout() && is_json(&head.headers) && head.headers.contains_key(CONTENT_LENGTH) {
        let text = collect(&mut body).await?;
        terminal::print(&format!("{}\n", pretty::indent(&String::from_utf8_lossy(&text))));
        return Ok(OK);
    }
    if terminal::is_stdout() && !is_text {
        return Err(Stop::failed(format!(
            "the answer is {}, which a terminal cannot show; redirect it: fnmesh call … > file",
            media_type(&head.headers).unwrap_or("binary")
        )));
    }
    stream(&mut body, is_text).await
}

async fn stream(body: &mut Incoming, is_text: bool) -> Result<u8, Stop> {
    let mut last = None;
    while let Some(chunk) = next(body).await? {
        last = chunk.last().copied().or(last);
        if write(&chunk).is_err() {
            // The reader has enough (`| head`): ending the connection cancels the call.
            return Ok(OK);
        }
    }
    if is_text && last.is_some_and(|byte| byte != b'\n') {
        let _ = write(b"\n");
    }
    Ok(OK)
}

fn write(bytes: &[u8]) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(bytes)?;
    stdout.flush()
}

async fn next(body: &mut Incoming) -> Result<Option<Bytes>, Stop> {
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| Stop::failed(format!("the answer broke off: {error}")))?;
        if let Ok(data) = frame.into_data() {
            return Ok(Some(data));
        }
    }
    Ok(None)
}

async fn collect(body: &mut Incoming) -> Result<Vec<u8>, Stop> {
    let mut bytes = Vec::new();
    while let Some(chunk) = next(body).await? {
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes)
}

fn print_head(status: StatusCode, headers: &HeaderMap) {
    let mut text = format!("HTTP/1.1 {status}\n");
    for (name, value) in headers {
        text += &format!("{name}: {}\n", String::from_utf8_lossy(value.as_bytes()));
    }
    terminal::print(&(text + "\n"));
}

#[derive(Deserialize)]
struct ErrorBody {
    error: ErrorAnswer,
}

#[derive(Deserialize)]
struct ErrorAnswer {
    #[serde(rename = "type")]
    kind: String,
    message: String,
    #[serde(default)]
    stack: Option<String>,
    #[serde(default)]
    invocation_id: Option<String>,
}

fn print_failure(status: StatusCode, body: &[u8]) {
    terminal::print_error(describe_failure(status, body).as_bytes());
}

fn describe_failure(status: StatusCode, body: &[u8]) -> String {
    let Ok(ErrorBody { error }) = serde_json::from_slice(body) else {
        // The function's own answer, in words of its own.
        let mut text = format!("{ERROR}{status}{ERROR:#}\n{}", String::from_utf8_lossy(body));
        if !text.ends_with('\n') {
            text.push('\n');
        }
        return text;
    };
    let mut text = format!("{ERROR}{}:{ERROR:#} {}\n", error.kind, error.message);
    for line in stack_lines(&error.kind, &error.message, error.stack.as_deref().unwrap_or_default()) {
        text += &format!("{line}\n");
    }
    let invocation = error.invocation_id.map(|id| format!(", invocation {id}")).unwrap_or_default();
    text + &format!("{DIM}{status}{invocation}{DIM:#}\n")
}

fn media_type(headers: &HeaderMap) -> Option<&str> {
    Some(headers.get(CONTENT_TYPE)?.to_str().ok()?.split(';').next()?.trim())
}

fn is_json(headers: &HeaderMap) -> bool {
    media_type(headers).is_some_and(|media| media == "application/json" || media.ends_with("+json"))
}

fn is_text(headers: &HeaderMap) -> bool {
    const TEXT: [&str; 5] = [
        "application/x-ndjson",
        "application/jsonl",
        "application/xml",
        "application/javascript",
        "application/x-www-form-urlencoded",
    ];
    is_json(headers)
        || media_type(headers)
            .is_none_or(|media| media.starts_with("text/") || media.ends_with("+xml") || TEXT.contains(&media))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(media: &str) -> HeaderMap {
        HeaderMap::from_iter([(CONTENT_TYPE, media.parse().unwrap())])
    }

    #[test]
    fn media_types_are_told_apart() {
        assert!(is_json(&headers("application/problem+json; charset=utf-8")));
        assert!(is_text(&headers("text/event-stream")));
        assert!(is_text(&headers("application/x-ndjson")));
        assert!(is_text(&HeaderMap::new()));
        assert!(!is_text(&headers("application/octet-stream")));
        assert!(!is_text(&headers("image/png")));
    }

    #[test]
    fn failure_shows_type_message_and_stack() {
        let body = br#"{"error":{"type":"ValueError","message":"no","stack":"line 1\nValueError: no\n","invocation_id":"ab"}}"#;
        let text = anstream::adapter::strip_str(&describe_failure(StatusCode::INTERNAL_SERVER_ERROR, body)).to_string();
        assert_eq!(text, "ValueError: no\nline 1\n500 Internal Server Error, invocation ab\n");
    }

    #[test]
    fn failure_in_other_words_is_shown_as_is() {
        let text = anstream::adapter::strip_str(&describe_failure(StatusCode::NOT_FOUND, b"nope")).to_string();
        assert_eq!(text, "404 Not Found\nnope\n");
    }
}
