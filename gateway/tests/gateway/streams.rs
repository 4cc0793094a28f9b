use std::io::{ErrorKind, Read};

use fnmesh_invoke::Outcome;

use crate::support::{post, start};

#[test]
fn items_are_written_by_their_kind() {
    let node = start();
    for (wish, content_type, body) in [
        (r#"{"items":[1,{"a":"b"}]}"#, "application/x-ndjson", "1\n{\"a\":\"b\"}\n"),
        (r#"{"items":["a\n","b"],"format":"text"}"#, "text/plain; charset=utf-8", "a\nb"),
        (r#"{"items":["a","b"],"format":"bytes"}"#, "application/octet-stream", "ab"),
        (r#"{"items":[]}"#, "application/x-ndjson", ""),
    ] {
        let answer = node.post("/t/stream", wish);
        assert_eq!((answer.status, answer.header("content-type")), (200, content_type), "{wish}");
        assert_eq!(answer.text(), body, "{wish}");
        assert!(answer.complete, "{wish}");
        assert_eq!(answer.header("transfer-encoding"), "chunked", "{wish}");
    }
}

#[test]
fn connection_serves_on_after_a_stream() {
    let node = start();
    let mut client = node.connect();
    client.send([post("/t/stream", "", r#"{"items":[1]}"#), post("/t/echo", "", "2")].concat());
    assert_eq!(client.answer().text(), "1\n");
    assert_eq!(client.answer().text(), "2");
}

#[test]
fn events_are_sent_when_asked_for() {
    let node = start();
    let ask = |wish: &str| node.ask(&post("/t/stream", "Accept: text/event-stream\r\n", wish));
    let answer = ask(r#"{"items":[1,{"a":2}]}"#);
    assert_eq!(answer.header("content-type"), "text/event-stream");
    assert_eq!(answer.text(), "data: 1\n\ndata: {\"a\":2}\n\n");
    assert_eq!(ask(r#"{"items":["a\nb"],"format":"text"}"#).text(), "data: a\ndata: b\n\n");
    let failed = ask(r#"{"items":[1],"fail":true}"#);
    assert!(failed.complete);
    let (first, error) = failed.text().split_once("\n\n").unwrap();
    assert_eq!(first, "data: 1");
    assert!(error.starts_with("event: error\ndata: {\"error\":{\"type\":\"ValueError\""), "{error}");
}

#[test]
fn error_before_the_first_item_has_a_status() {
    let node = start();
    let answer = node.post("/t/stream", r#"{"items":[],"fail":true}"#);
    assert_eq!((answer.status, answer.json()["error"]["type"].as_str()), (500, Some("ValueError")));
}

#[test]
fn error_after_the_first_item_breaks_the_connection() {
    let node = start();
    let mut client = node.connect();
    client.send(post("/t/stream", "", r#"{"items":[1,2],"fail":true}"#));
    let answer = client.answer();
    assert_eq!((answer.status, answer.text(), answer.complete), (200, "1\n2\n", false));
    client.assert_closed();
    let stream = node.functions.iter().find(|function| &*function.id.name == "stream").unwrap();
    assert_eq!(stream.stats.calls(Outcome::Failed), 1);
}

#[test]
fn items_come_as_they_are_made_and_stop_with_the_client() {
    let node = start();
    let mut client = node.connect();
    client.send(post("/t/stream", "", r#"{"items":[1],"endless":true}"#));
    node.wait_for("started stream");
    assert_eq!(client.head().status, 200);
    assert_eq!(client.chunk().as_deref(), Some(&b"1\n"[..]));
    drop(client);
    node.wait_for("dropped stream");
}

#[test]
fn streams_may_have_a_head_of_their_own() {
    let node = start();
    let answer = node.post("/t/stream", r#"{"items":["<p>"],"format":"bytes","head":201}"#);
    assert_eq!((answer.status, answer.header("content-type"), answer.text()), (201, "text/html", "<p>"));
}

#[test]
fn error_in_a_stream_resets_http10() {
    let node = start();
    let mut client = node.connect();
    let wish = r#"{"items":[1,2],"fail":true}"#;
    client.send(format!("POST /t/stream HTTP/1.0\r\nContent-Length: {}\r\n\r\n{wish}", wish.len()));
    assert_eq!(client.head().status, 200);
    assert_eq!((client.line(), client.line()), ("1\n".into(), "2\n".into()));
    let end = client.stream().read(&mut [0; 1]);
    assert_eq!(end.unwrap_err().kind(), ErrorKind::ConnectionReset);
}
