use crate::support::{post, start};

#[test]
fn refusals_answer_json_and_close() {
    let node = start();
    for (request, status, reason) in [
        ("GET / HTTP/1.1\nHost: t\n\n", 400, "LF alone"),
        ("GET / HTTP/1.1\r\nHost: t\r\n x: folded\r\n\r\n", 400, "folded"),
        ("GET / HTTP/1.1\r\n\r\n", 400, "no Host"),
        ("GET / HTTP/1.1\r\nHost: t\r\nHost: t\r\n\r\n", 400, "two Host"),
        ("GET / HTTP/1.1\r\nHost : t\r\n\r\n", 400, "followed by white space"),
        ("GET / HTTP/1.1\r\nHost: t\r\nA: b\0c\r\n\r\n", 400, "control character"),
        ("GET /?a=\"b\" HTTP/1.1\r\nHost: t\r\n\r\n", 400, "percent-encoded"),
        (
            "POST /t/echo HTTP/1.1\r\nHost: t\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n1",
            400,
            "two Content-Length",
        ),
        ("POST /t/echo HTTP/1.1\r\nHost: t\r\nContent-Length: 1, 1\r\n\r\n1", 400, "not one plain number"),
        ("POST /t/echo HTTP/1.1\r\nHost: t\r\nContent-Length: +1\r\n\r\n1", 400, "not one plain number"),
        (
            "POST /t/echo HTTP/1.1\r\nHost: t\r\nContent-Length: 99999999999999999999\r\n\r\n1",
            400,
            "not one plain number",
        ),
        ("POST /t/echo HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: gzip\r\n\r\n", 400, "only chunked"),
        ("POST /t/echo HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked, chunked\r\n\r\n", 400, "only chunked"),
        (
            "POST /t/echo HTTP/1.1\r\nHost: t\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n1\r\n0\r\n\r\n",
            400,
            "both",
        ),
        ("POST /t/echo HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n", 400, "hexadecimal"),
        ("POST /t/echo HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n1\r\n1\n", 400, "LF alone"),
        (
            "POST /t/echo HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n123",
            400,
            "not followed by CR LF",
        ),
        ("\x16\x03\x01\x02\x00", 400, "without TLS"),
        ("GET / HTTP/3.0\r\nHost: t\r\n\r\n", 505, "are spoken here"),
    ] {
        let mut client = node.connect();
        client.send(request);
        let answer = client.answer();
        assert_eq!(answer.status, status, "{request:?}: {}", answer.text());
        assert!(answer.message().contains(reason), "{request:?}: {}", answer.text());
        assert_eq!(answer.header("connection"), "close", "{request:?}");
        client.assert_closed();
    }
}

#[test]
fn heads_over_the_limit_get_431() {
    let node = start();
    let mut client = node.connect();
    client.try_send(format!("GET / HTTP/1.1\r\nHost: t\r\nA: {}\r\n\r\n", "x".repeat(20_000)));
    let answer = client.answer();
    assert_eq!(answer.status, 431);
    assert!(answer.message().contains("16384 bytes"));
    client.assert_closed();
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let node = start();
    let mut client = node.connect();
    client.send([post("/t/echo", "", "1"), post("/t/echo", "", "2"), post("/t/echo", "", "3")].concat());
    for expected in ["1", "2", "3"] {
        assert_eq!(client.answer().text(), expected);
    }
}

#[test]
fn bad_request_is_answered_after_those_before_it() {
    let node = start();
    let mut client = node.connect();
    let bad = "GET /t/echo HTTP/1.1\r\nA: b\r\n\r\n".to_owned();
    client.send([post("/t/echo", "", "1"), bad, post("/t/echo", "", "3")].concat());
    assert_eq!(client.answer().text(), "1");
    let refused = client.answer();
    assert_eq!((refused.status, refused.header("connection")), (400, "close"));
    client.assert_closed();
}

#[test]
fn bad_request_does_not_cut_off_a_call_in_flight() {
    let node = start();
    let mut client = node.connect();
    client.send([post("/t/slow", "", ""), "NONSENSE\r\n\r\n".to_owned()].concat());
    node.wait_for("started slow");
    node.release.add_permits(1);
    assert_eq!(client.answer().text(), "\"done\"");
    assert_eq!(client.answer().status, 400);
    client.assert_closed();
}

#[test]
fn heads_may_come_byte_by_byte() {
    let node = start();
    let mut client = node.connect();
    for _ in 0..2 {
        for byte in post("/t/echo", "X-Filler: a\r\n", "[1,2]").bytes() {
            client.send([byte]);
        }
        assert_eq!(client.answer().text(), "[1,2]");
    }
}

#[test]
fn chunked_uploads_are_read() {
    let node = start();
    let mut client = node.connect();
    client.send("POST /t/echo HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n3\r\n[1,\r\n");
    client.send("2;x=y\r\n2]\r\n0\r\nTrailer: x\r\n\r\n");
    assert_eq!(client.answer().text(), "[1,2]");
    client.send(post("/t/echo", "", "3"));
    assert_eq!(client.answer().text(), "3");
}

#[test]
fn continue_is_sent_when_asked_for() {
    let node = start();
    let mut client = node.connect();
    let body = format!("\"{}\"", "x".repeat(3_000_000));
    client.send(format!(
        "POST /t/echo HTTP/1.1\r\nHost: t\r\nContent-Length: {}\r\nExpect: 100-continue\r\n\r\n",
        body.len()
    ));
    assert_eq!(client.answer().status, 100);
    client.send(&body);
    assert_eq!(client.answer().text(), body);
}

#[test]
fn http10_closes_unless_asked_to_stay() {
    let node = start();
    let mut client = node.connect();
    client.send("GET /t/text HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
    assert_eq!(client.answer().text(), "plain\n");
    client.send("GET /t/text HTTP/1.0\r\n\r\n");
    assert_eq!(client.answer().text(), "plain\n");
    client.assert_closed();
}
