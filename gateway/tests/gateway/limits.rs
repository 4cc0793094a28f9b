use std::{io::Read, num::NonZeroUsize, time::Duration};

use fnmesh_invoke::{AppState, Outcome};

use crate::support::{post, start, start_with};

const SHORT: Duration = Duration::from_millis(100);

#[test]
fn announced_body_over_the_limit_gets_413_at_once() {
    let node = start();
    let mut client = node.connect();
    client.send("POST /t/echo HTTP/1.1\r\nHost: t\r\nContent-Length: 5000000\r\nExpect: 100-continue\r\n\r\n");
    let answer = client.answer();
    assert_eq!((answer.status, answer.header("connection")), (413, "close"));
    assert!(answer.message().contains("4194304 bytes"), "{}", answer.text());
    client.assert_closed();
}

#[test]
fn answer_to_a_large_upload_is_not_lost() {
    let node = start();
    let mut client = node.connect();
    client.send("POST /t/echo HTTP/1.1\r\nHost: t\r\nContent-Length: 50000000\r\n\r\n");
    // More than the kernel buffers: without a reader on the other side this would block or reset.
    let chunk = vec![b'x'; 1_000_000];
    for _ in 0..20 {
        if !client.try_send(&chunk) {
            break;
        }
    }
    assert_eq!(client.answer().status, 413);
}

#[test]
fn chunked_body_over_the_limit_gets_413() {
    let node = start();
    let mut client = node.connect();
    client.send("POST /t/echo HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n");
    let chunk = format!("100000\r\n{}\r\n", "x".repeat(0x10_0000));
    for _ in 0..5 {
        client.try_send(&chunk);
    }
    let answer = client.answer();
    assert_eq!((answer.status, answer.header("connection")), (413, "close"));
    assert_eq!(answer.json()["error"]["type"], "TooLarge");
}

#[test]
fn body_at_the_limit_passes() {
    let node = start_with(AppState::Ready, |config| config.max_body_bytes = 10);
    assert_eq!(node.post("/t/echo", "1234567890").text(), "1234567890");
    assert_eq!(node.post("/t/echo", "12345678901").status, 413);
}

#[test]
fn slow_heads_get_408() {
    let node = start_with(AppState::Ready, |config| config.header_timeout = SHORT);
    let mut client = node.connect();
    client.send("GET / HTTP/1.1\r\nHo");
    let answer = client.answer();
    assert_eq!((answer.status, answer.header("connection")), (408, "close"));
    client.assert_closed();
}

#[test]
fn slow_second_heads_get_408() {
    let node = start_with(AppState::Ready, |config| config.header_timeout = SHORT);
    let mut client = node.connect();
    client.send([post("/t/echo", "", "1").as_str(), "GET / HTTP/1.1\r\n"].concat());
    assert_eq!(client.answer().text(), "1");
    assert_eq!(client.answer().status, 408);
    client.assert_closed();
}

#[test]
fn silent_connections_are_closed() {
    let node = start_with(AppState::Ready, |config| config.header_timeout = SHORT);
    node.connect().assert_closed();
}

#[test]
fn idle_connections_are_closed() {
    let node = start_with(AppState::Ready, |config| config.idle_timeout = SHORT);
    let mut client = node.connect();
    client.send(post("/t/echo", "", "1"));
    assert_eq!(client.answer().text(), "1");
    client.assert_closed();
}

#[test]
fn time_limits_spare_a_call_that_runs() {
    let node = start_with(AppState::Ready, |config| {
        config.header_timeout = SHORT;
        config.idle_timeout = SHORT;
    });
    let mut client = node.connect();
    client.send(post("/t/slow", "", ""));
    node.wait_for("started slow");
    // An idle connection made after the call is closed first: the limits have passed by then.
    let mut idle = node.connect();
    idle.send(post("/t/echo", "", "1"));
    idle.answer();
    idle.assert_closed();
    node.release.add_permits(1);
    assert_eq!(client.answer().text(), "\"done\"");
}

#[test]
fn stalled_bodies_get_408() {
    let node = start_with(AppState::Ready, |config| config.body_timeout = SHORT);
    for head in ["Content-Length: 10\r\n\r\n12", "Transfer-Encoding: chunked\r\n\r\n5\r\n12"] {
        let mut client = node.connect();
        client.send(format!("POST /t/echo HTTP/1.1\r\nHost: t\r\n{head}"));
        let answer = client.answer();
        assert_eq!((answer.status, answer.header("connection")), (408, "close"));
        client.assert_closed();
    }
}

#[test]
fn clients_that_read_nothing_are_dropped() {
    let node = start_with(AppState::Ready, |config| config.write_timeout = SHORT);
    let mut client = node.connect();
    // Far more than the kernel buffers.
    let item = "x".repeat(100_000);
    client.send(post("/t/stream", "", &format!("{{\"items\":[\"{item}\"],\"repeat\":500}}")));
    node.wait_for("started stream");
    node.wait_for("dropped stream");
    let mut rest = Vec::new();
    let _ = client.stream().read_to_end(&mut rest);
    assert!(rest.len() < 50_000_000, "{} bytes came", rest.len());
}

#[test]
fn a_client_that_leaves_cancels_its_call() {
    let node = start();
    let mut client = node.connect();
    client.send(post("/t/pending", "", ""));
    node.wait_for("started pending");
    drop(client);
    node.wait_for("dropped pending");
    let pending = node.functions.iter().find(|function| &*function.id.name == "pending").unwrap();
    // The count is written as the call is dropped, just after its alarm.
    while pending.stats.calls(Outcome::Cancelled) == 0 {
        std::thread::yield_now();
    }
}

#[test]
fn connections_beyond_the_limit_may_only_ask_for_state() {
    let node = start_with(AppState::Ready, |config| config.max_connections = NonZeroUsize::MIN);
    let mut first = node.connect();
    first.send(post("/t/echo", "", "1"));
    assert_eq!(first.answer().text(), "1");
    let mut second = node.connect();
    second.send("GET /_/health HTTP/1.1\r\nHost: t\r\n\r\n");
    assert_eq!(second.answer().status, 200);
    second.send(post("/t/echo", "", "2"));
    let refused = second.answer();
    assert_eq!((refused.status, refused.header("retry-after"), refused.header("connection")), (503, "1", "close"));
    assert!(refused.message().contains("1 connections"), "{}", refused.text());
    second.assert_closed();
    first.send(post("/t/echo", "", "3"));
    assert_eq!(first.answer().text(), "3");
}

#[test]
fn idle_connections_make_room_when_few_are_left() {
    let node = start_with(AppState::Ready, |config| {
        config.max_connections = NonZeroUsize::new(2).unwrap();
        config.threads = NonZeroUsize::MIN;
    });
    let mut clients = [node.connect(), node.connect()];
    for client in &mut clients {
        client.send(post("/t/echo", "", "1"));
        client.answer();
    }
    // Beyond the limit: now the node knows that it has to make room.
    node.get("/_/health");
    clients.iter_mut().for_each(|client| client.assert_closed());
    assert_eq!(node.post("/t/echo", "2").text(), "2");
}

#[test]
fn bodies_that_cannot_be_held_get_503() {
    let node = start_with(AppState::Ready, |config| config.max_held_bytes = 1_000_000);
    let mut slow = node.connect();
    slow.send("POST /t/echo HTTP/1.1\r\nHost: t\r\nContent-Length: 900000\r\nExpect: 100-continue\r\n\r\n");
    assert_eq!(slow.answer().status, 100);
    slow.send("\"");
    for head in ["Content-Length: 900000", "Transfer-Encoding: chunked"] {
        // The slow one's room is taken when the first of its body comes, on another thread: until then there is some.
        let refused = std::iter::repeat_with(|| {
            let mut client = node.connect();
            client.send(format!("POST /t/echo HTTP/1.1\r\nHost: t\r\nExpect: 100-continue\r\n{head}\r\n\r\n"));
            let mut answer = client.answer();
            if answer.status == 100 {
                client.try_send(format!("70000\r\n{}", "x".repeat(0x7_0000)));
                client.stream().shutdown(std::net::Shutdown::Write).unwrap();
                answer = client.answer();
            }
            answer
        })
        .find(|answer| answer.status != 400)
        .unwrap();
        assert_eq!((refused.status, refused.header("retry-after")), (503, "1"), "{}", refused.text());
    }
    slow.send("x".repeat(899_998) + "\"");
    assert_eq!(slow.answer().body.len(), 900_000);
    // Its room is free a moment after the client has all of the answer.
    let body = format!("\"{}\"", "x".repeat(800_000));
    let status = std::iter::repeat_with(|| node.post("/t/echo", &body).status).find(|status| *status != 503);
    assert_eq!(status, Some(200));
}

#[test]
fn uploads_have_a_limit_in_all() {
    let node = start_with(AppState::Ready, |config| config.upload_timeout = SHORT);
    let mut client = node.connect();
    client.send("POST /t/echo HTTP/1.1\r\nHost: t\r\nContent-Length: 10\r\n\r\n1");
    let answer = client.answer();
    assert_eq!((answer.status, answer.header("connection")), (408, "close"));
    assert!(answer.message().contains("did not come within 100ms"), "{}", answer.text());
}
