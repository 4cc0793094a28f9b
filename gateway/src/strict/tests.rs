use http::Method;
use proptest::prelude::*;

use super::*;
use crate::{fuzz::Requests, refusal::Refusal};

const LIMIT: usize = 512;

/// What of an input passed, and why the rest did not.
#[derive(Debug, PartialEq, Eq)]
struct Verdict {
    passed: usize,
    refused: Option<Refused>,
}

#[derive(Debug, PartialEq, Eq)]
struct Refused {
    why: Refusal,
    in_body: bool,
}

/// Feeds `input` cut into pieces of the given sizes, the way a connection does.
fn feed(input: &[u8], sizes: impl IntoIterator<Item = usize>) -> Verdict {
    let mut requests = Requests::new(LIMIT);
    let (mut passed, mut seen) = (0, 0);
    for size in sizes.into_iter().chain([input.len()]) {
        seen = (seen + size).min(input.len());
        let (count, result) = requests.pass(&input[passed..seen]);
        passed += count;
        if let Err(why) = result {
            return Verdict { passed, refused: Some(Refused { why, in_body: requests.is_in_body() }) };
        }
    }
    Verdict { passed, refused: None }
}

fn refusal(input: &str) -> Refusal {
    let verdict = feed(input.as_bytes(), []);
    verdict.refused.unwrap_or_else(|| panic!("{input:?} was not refused")).why
}

fn passes(input: &str) {
    let verdict = feed(input.as_bytes(), []);
    assert_eq!(verdict, Verdict { passed: input.len(), refused: None }, "{input:?}");
}

#[test]
fn well_formed_requests_pass() {
    for input in [
        "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET / HTTP/1.0\r\n\r\n",
        "\r\nGET /a?b=c HTTP/1.1\r\nhost: [::1]:80\r\n\r\n",
        "POST /a HTTP/1.1\r\nHost:a\r\nContent-Length: 3\r\n\r\n\n\0\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
        "POST /a HTTP/1.1\r\nHost:\r\nContent-Length:\t0 \r\nX: a\tb\u{e9}\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: Chunked\r\n\r\n3;a=\"b\"\r\nabc\r\nA\r\n0123456789\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n000\r\nT: 1\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
        "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET http://a/b HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /\u{e9} HTTP/1.1\r\nHost: a\r\n\r\n",
    ] {
        passes(input);
    }
}

#[test]
fn incomplete_heads_are_held_back() {
    let verdict = feed(b"GET / HTTP/1.1\r\nHost: a\r\n\r\nGET /b HTTP/1.1\r\nHost: a\r\n", []);
    assert_eq!(verdict, Verdict { passed: 27, refused: None });
}

#[test]
fn malformed_heads_are_refused_with_reason() {
    for (input, reason) in [
        ("\x16\x03\x01", "without TLS"),
        ("GET / HTTP/1.1\nHost: a\r\n\r\n", "LF alone"),
        ("GET / HTTP/1.1\r\nHost: a\n\r\n", "LF alone"),
        ("GET / HTTP/1.1\r\nHost: a\r\n\n", "LF alone"),
        ("GET  / HTTP/1.1\r\n", "one space apart"),
        ("GET / HTTP/1.1 \r\n", "one space apart"),
        ("GET /\r\n", "one space apart"),
        ("G@T / HTTP/1.1\r\n", "method is not a token"),
        ("GET /\x01 HTTP/1.1\r\n", "percent-encoded"),
        ("GET /?a=\"b\" HTTP/1.1\r\n", "%22"),
        ("GET /#b HTTP/1.1\r\n", "%23"),
        ("GET nowhere/ HTTP/1.1\r\n", "not a URL"),
        ("GET / http/1.1\r\n", "does not end with HTTP/1.1"),
        ("GET / HTTP/1.1\r\nX\r\n", "no colon"),
        ("GET / HTTP/1.1\r\nHost: a\r\n folded\r\n", "folded"),
        ("GET / HTTP/1.1\r\nHost : a\r\n", "followed by white space"),
        ("GET / HTTP/1.1\r\n: a\r\n", "not a token"),
        ("GET / HTTP/1.1\r\nA(: a\r\n", "not a token"),
        ("GET / HTTP/1.1\r\nA: a\0b\r\n", "control character"),
        ("GET / HTTP/1.1\r\nA: a\rb\r\n", "control character"),
        ("GET / HTTP/1.1\r\nA: a\x7f\r\n", "control character"),
        ("GET / HTTP/1.1\r\nContent-Length: 1\r\r\n", "control character"),
        ("GET / HTTP/1.1\r\n\r\n", "no Host"),
        ("GET / HTTP/1.1\r\nHost: a\r\nHOST: a\r\n", "two Host"),
        ("GET / HTTP/1.1\r\nHost: a, b\r\n", "not a host"),
        ("GET / HTTP/1.1\r\nContent-Length: 1\r\ncontent-length: 1\r\n", "two Content-Length"),
        ("GET / HTTP/1.1\r\nContent-Length: 1, 1\r\n", "not one plain number"),
        ("GET / HTTP/1.1\r\nContent-Length: +1\r\n", "not one plain number"),
        ("GET / HTTP/1.1\r\nContent-Length: -1\r\n", "not one plain number"),
        ("GET / HTTP/1.1\r\nContent-Length: 1 1\r\n", "not one plain number"),
        ("GET / HTTP/1.1\r\nContent-Length: 0x1\r\n", "not one plain number"),
        ("GET / HTTP/1.1\r\nContent-Length:\r\n", "not one plain number"),
        ("GET / HTTP/1.1\r\nContent-Length: 18446744073709551616\r\n", "not one plain number"),
        ("GET / HTTP/1.1\r\nTransfer-Encoding: gzip, chunked\r\n", "only chunked"),
        ("GET / HTTP/1.1\r\nTransfer-Encoding: chunked, chunked\r\n", "only chunked"),
        ("GET / HTTP/1.1\r\nTransfer-Encoding: identity\r\n", "only chunked"),
        ("GET / HTTP/1.1\r\nTransfer-Encoding: \"chunked\"\r\n", "only chunked"),
        ("GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", "two Transfer-Encoding"),
        ("GET / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n", "HTTP/1.0 has no"),
        ("GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nContent-Length: 1\r\n", "both"),
        ("GET / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n", "both"),
    ] {
        let why = refusal(input);
        assert_eq!(why.status, 400, "{input:?}: {why:?}");
        assert!(why.message.contains(reason), "{input:?}: {}", why.message);
        assert!(why.close);
    }
}

#[test]
fn other_versions_get_505() {
    assert_eq!(refusal("GET / HTTP/2.0\r\n").status, 505);
    assert_eq!(refusal("GET / HTTP/1.2\r\n").status, 505);
}

#[test]
fn heads_over_the_limit_get_431() {
    let head = |value: usize| format!("GET / HTTP/1.1\r\nHost: a\r\nA: {}\r\n\r\n", "x".repeat(value));
    let fits = LIMIT - head(0).len();
    passes(&head(fits));
    assert_eq!(refusal(&head(fits + 1)).status, 431);
    assert_eq!(refusal(&"x".repeat(LIMIT + 1)).status, 431);
    assert_eq!(refusal(&format!("GET / HTTP/1.1\r\n{}", "a:\r\n".repeat(101))).status, 431);
}

#[test]
fn malformed_chunks_are_refused_in_the_body() {
    for (chunks, reason) in [
        ("g\r\n", "hexadecimal"),
        ("\r\n", "hexadecimal"),
        (" 5\r\n", "hexadecimal"),
        ("5 \r\n", "hexadecimal"),
        ("+5\r\n", "hexadecimal"),
        ("0x5\r\n", "hexadecimal"),
        ("10000000000000000\r\n", "hexadecimal"),
        ("5\nhello", "LF alone"),
        ("5;a=\rb\r\n", "control character"),
        ("1\r\nabc", "not followed by CR LF"),
        ("1\r\na\n", "not followed by CR LF"),
        ("0\r\nBad Name: x\r\n\r\n", "followed by white space"),
        ("0\r\nA: x\n\r\n", "LF alone"),
    ] {
        let input = format!("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}");
        let refused = feed(input.as_bytes(), []).refused.unwrap_or_else(|| panic!("{chunks:?} passed"));
        assert!(refused.in_body);
        assert!(refused.why.message.contains(reason), "{chunks:?}: {}", refused.why.message);
    }
    let extension =
        format!("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1;{}\r\n", "a".repeat(300));
    assert!(refusal(&extension).message.contains("longer than 256"));
}

fn head(input: &str) -> Head {
    let mut head = Head::default();
    assert!(head.check(input.as_bytes(), LIMIT).unwrap().is_some(), "{input:?}");
    head
}

#[test]
fn heads_say_what_they_said() {
    let input = "\r\nPUT /a/b?c=d HTTP/1.1\r\nHost:\t h:1 \r\nX-Empty:\r\nExpect: 100-Continue\r\n\r\n";
    let parsed = head(input);
    let read = parsed.read(input.as_bytes());
    assert_eq!((read.method.clone(), read.path, read.query), (Method::PUT, "/a/b", "c=d"));
    assert_eq!(
        (read.field("host"), read.field("x-empty"), read.field("none")),
        (Some(&b"h:1"[..]), Some(&b""[..]), None)
    );
    assert!(parsed.expects_continue);
    let input = "GET http://h:1/a?b HTTP/1.1\r\nHost: x\r\n\r\n";
    let parsed = head(input);
    assert_eq!(parsed.read(input.as_bytes()).to_owned("").url, "http://h:1/a?b");
}

#[test]
fn connection_stays_unless_asked_to_close() {
    for (version, field, closes) in [
        ("1.1", "", false),
        ("1.1", "Connection: keep-alive\r\n", false),
        ("1.1", "Connection: Close\r\n", true),
        ("1.1", "Connection: keep-alive, close\r\n", true),
        ("1.1", "Connection: close, keep-alive\r\n", true),
        ("1.0", "", true),
        ("1.0", "Connection: Keep-Alive\r\n", false),
        ("1.0", "Connection: close\r\n", true),
    ] {
        let input = format!("GET / HTTP/{version}\r\nHost: a\r\n{field}\r\n");
        assert_eq!(head(&input).wants_close(), closes, "{input:?}");
    }
}

#[test]
fn nothing_of_a_request_stays_for_the_next() {
    let first = "POST http://h/ HTTP/1.0\r\nConnection: close\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\n";
    let mut parsed = head(first);
    parsed.reset();
    let second = "GET /b HTTP/1.1\r\nHost: a\r\n\r\n";
    let (length, body) = parsed.check(second.as_bytes(), LIMIT).unwrap().unwrap();
    assert_eq!(length, second.len());
    assert!(matches!(body, Framing::Length(0)));
    assert!(!parsed.wants_close() && !parsed.expects_continue && !parsed.http10);
    assert_eq!(parsed.read(second.as_bytes()).path, "/b");
}

/// Bytes that look enough like requests to reach deep states.
fn requestish() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop::sample::select(vec![
        "GET / HTTP/1.1\r\n",
        "POST /a?b HTTP/1.1\r\n",
        "Host: a\r\n",
        "Content-Length: 3\r\n",
        "\r\n",
        "\n",
        "\r",
        "abc",
        "Transfer-Encoding: chunked\r\n",
        "3\r\n",
        "0\r\n",
        "3;x\r\nabc\r\n",
        " ",
        ":",
        "T: 1\r\n",
        "\0",
        "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc",
    ]);
    let noise = prop::collection::vec(any::<u8>(), 0..4);
    prop::collection::vec(prop_oneof![9 => piece.prop_map(|text| text.as_bytes().to_vec()), 1 => noise], 0..24)
        .prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn cuts_do_not_change_the_verdict(input in requestish(), sizes in prop::collection::vec(1usize..40, 0..60)) {
        let whole = feed(&input, []);
        prop_assert_eq!(&feed(&input, sizes), &whole);
        prop_assert_eq!(&feed(&input, vec![1; input.len()]), &whole);
    }

    #[test]
    fn arbitrary_bytes_never_panic(input in prop::collection::vec(any::<u8>(), 0..2000)) {
        let verdict = feed(&input, []);
        prop_assert!(verdict.passed <= input.len());
    }
}
