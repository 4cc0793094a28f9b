//! Calls with an `Idempotency-Key`, of whole nodes: one answer, and the function ran once.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use std::{fs, path::Path, thread};

use rustix::process::Signal;
use support::{Apps, Node, PATIENCE, request, wait_until};

const SHOP: &str = r#"
import os, time

def pay(cents: int, wait_for: str = "") -> str:
    with open("../ran", "a") as ran:
        ran.write("pay\n")
    while wait_for and not os.path.exists(wait_for):
        time.sleep(0.01)
    return f"{cents} by {os.urandom(8).hex()}"

def fail():
    with open("../ran", "a") as ran:
        ran.write("fail\n")
    raise ValueError(os.urandom(8).hex())

def items():
    with open("../ran", "a") as ran:
        ran.write("items\n")
    yield 1

def created():
    import fnmesh
    return fnmesh.Response({"id": os.urandom(8).hex()}, status=201, headers={"location": "/1"})
"#;

fn shop() -> Apps {
    Apps::new(&[("shop/shop.py", SHOP), ("shop/fnmesh.toml", "writable = [\"..\"]\n"), ("ran", "")])
}

fn ran(apps: &Apps) -> usize {
    fs::read_to_string(apps.path("ran")).unwrap().lines().count()
}

/// Status, head and body of a call.
struct Answer {
    status: u16,
    head: String,
    body: String,
}

impl Answer {
    fn is_replayed(&self) -> bool {
        self.head.to_ascii_lowercase().contains("\r\nidempotency-replayed: true\r\n")
    }
}

fn call(url: &str, function: &str, headers: &str, body: &str) -> Answer {
    let headers = format!("Content-Type: application/json\r\n{headers}");
    let answer = request(url, &format!("POST /{function}"), &headers, body, PATIENCE).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer: {answer:?}"));
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    Answer { status, head: format!("{head}\r\n"), body: body.to_owned() }
}

fn pay(url: &str, key: &str, arguments: &str) -> Answer {
    call(url, "shop/pay", &format!("Idempotency-Key: {key}\r\n"), arguments)
}

fn with_data(apps: &Apps, data: &Path) -> Node {
    Node::settled("serve", &[apps.path("shop")], &["--mesh", "127.0.0.1:0", "--data", data.to_str().unwrap()])
}

#[test]
fn repeated_calls_get_the_same_answer() {
    let apps = shop();
    let node = Node::settled("serve", &[apps.path("shop")], &[]);
    let first = pay(&node.url, "one", "[5]");
    assert!(first.status == 200 && first.body.starts_with("\"5 by ") && !first.is_replayed(), "{}", first.body);
    let second = pay(&node.url, "one", "[5]");
    assert_eq!((second.status, &second.body), (200, &first.body));
    assert!(second.is_replayed(), "{}", second.head);
    // In the form that this caller wants.
    let text = call(&node.url, "shop/pay", "Idempotency-Key: one\r\nAccept: text/plain\r\n", "[5]");
    assert_eq!(format!("\"{}\"", text.body), first.body);
    assert_ne!(pay(&node.url, "two", "[5]").body, first.body);
    assert_eq!(ran(&apps), 2);
}

#[test]
fn other_arguments_with_a_used_key_are_refused() {
    let apps = shop();
    let node = Node::settled("serve", &[apps.path("shop")], &[]);
    assert_eq!(pay(&node.url, "one", "[5]").status, 200);
    let other = pay(&node.url, "one", "[6]");
    assert!(
        other.status == 422 && other.body.contains("KeyReused") && other.body.contains("shop/pay"),
        "{}",
        other.body
    );
    assert_eq!(ran(&apps), 1);
}

#[test]
fn errors_and_responses_are_repeated_and_streams_run_again() {
    let apps = shop();
    let node = Node::settled("serve", &[apps.path("shop")], &[]);
    let twice = |function: &str| {
        let key = "Idempotency-Key: one\r\n";
        [call(&node.url, function, key, "[]"), call(&node.url, function, key, "[]")]
    };
    let message = |answer: &Answer| {
        let body: serde_json::Value = serde_json::from_str(&answer.body).unwrap();
        body["error"]["message"].as_str().unwrap().to_owned()
    };
    let [first, second] = twice("shop/fail");
    assert_eq!((first.status, second.status, message(&first)), (500, 500, message(&second)));
    let [first, second] = twice("shop/created");
    assert_eq!((first.status, second.status, &first.body), (201, 201, &second.body));
    assert!(second.head.contains("location: /1") && second.is_replayed() && !first.is_replayed(), "{}", second.head);
    assert_eq!(ran(&apps), 1);
    let [first, second] = twice("shop/items");
    assert!(first.status == 200 && second.status == 200 && !second.is_replayed());
    assert_eq!(ran(&apps), 3);
}

#[test]
fn members_of_a_batch_are_calls_of_their_own() {
    let apps = shop();
    let node = Node::settled("serve", &[apps.path("shop")], &[]);
    let member = |id: u8| format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"shop/pay","params":[{id}]}}"#);
    let batch = format!("[{},{}]", member(1), member(2));
    let [first, second] = [(); 2].map(|()| call(&node.url, "rpc", "Idempotency-Key: one\r\n", &batch));
    assert!(first.body.contains("1 by ") && first.body.contains("2 by "), "{}", first.body);
    assert_eq!((first.body, ran(&apps)), (second.body, 2));
}

#[test]
fn concurrent_calls_run_once() {
    let apps = shop();
    let node = Node::settled("serve", &[apps.path("shop")], &[]);
    let go = apps.path("go");
    let arguments = format!("[5, {:?}]", go.to_str().unwrap());
    let url = &node.url;
    // On connections of their own, so on both threads.
    let bodies: Vec<_> = thread::scope(|scope| {
        let callers: Vec<_> = (0..8).map(|_| scope.spawn(|| pay(url, "one", &arguments))).collect();
        wait_until(|| ran(&apps) > 0, || "the function runs".to_owned());
        fs::write(&go, "").unwrap();
        callers.into_iter().map(|caller| caller.join().unwrap()).map(|it| (it.status, it.body)).collect()
    });
    assert!(bodies.iter().all(|it| it.0 == 200 && *it == bodies[0]), "{bodies:?}");
    assert_eq!(ran(&apps), 1);
}

#[test]
fn answers_survive_a_restart_and_a_kill() {
    let (apps, data) = (shop(), tempfile::tempdir().unwrap());
    let mut first = None;
    for signal in [Signal::TERM, Signal::KILL, Signal::TERM] {
        let mut node = with_data(&apps, data.path());
        let answer = pay(&node.url, "one", "[5]");
        assert_eq!(answer.status, 200, "{}", answer.body);
        assert_eq!(answer.is_replayed(), first.is_some());
        assert_eq!(first.get_or_insert_with(|| answer.body.clone()), &answer.body);
        assert_eq!(pay(&node.url, "one", "[6]").status, 422);
        node.signal(signal);
        node.ended();
    }
    assert_eq!(ran(&apps), 1);
}

#[test]
fn answer_that_was_sent_is_stored_when_the_node_is_killed_at_once() {
    let (apps, data) = (shop(), tempfile::tempdir().unwrap());
    let mut node = with_data(&apps, data.path());
    let answers: Vec<_> =
        (0..20).map(|call| pay(&node.url, &format!("key-{call}"), &format!("[{call}]")).body).collect();
    node.signal(Signal::KILL);
    node.ended();
    let node = with_data(&apps, data.path());
    for (call, answer) in answers.iter().enumerate() {
        assert_eq!(&pay(&node.url, &format!("key-{call}"), &format!("[{call}]")).body, answer);
    }
    assert_eq!(ran(&apps), 20);
}

#[test]
fn broken_file_does_not_stop_the_node() {
    let (apps, data) = (shop(), tempfile::tempdir().unwrap());
    fs::write(data.path().join("idempotency-1.db"), "torn").unwrap();
    let node = with_data(&apps, data.path());
    let first = pay(&node.url, "one", "[5]");
    assert_eq!((first.status, pay(&node.url, "one", "[5]").body), (200, first.body));
    node.wait_for_stderr("cannot be read; beginning with none");
    assert!(data.path().join("idempotency-1.db.broken").is_file());
}
