//! Whole nodes in processes of their own: served, called, stopped.

mod support;

use std::io::{BufRead, BufReader, Read as _};

use rustix::process::Signal;
use support::{Apps, Node, Running, is_alive, output, stderr, stdout, wait_until};

const TEXT: &str = r#"
import os, time

def merge(a: str, b: str) -> str:
    """Puts two texts together."""
    return a + b

def twice(n: int, by: int = 2) -> int:
    return n * by

def fail():
    print("about to fail")
    raise ValueError("no such thing")

def wait_for(file: str) -> str:
    open(file + ".begun", "w").close()
    while not os.path.exists(file):
        time.sleep(0.01)
    return "done"

def items(file: str):
    yield {"item": 1}
    while not os.path.exists(file):
        time.sleep(0.01)
    yield {"item": 2}

def raw() -> bytes:
    return b"\x00\xff"
"#;
const CART: &str = "exports.total = (items, rate = 1) => items.reduce((sum, item) => sum + item, 0) * rate;\n";

fn apps() -> Apps {
    // Functions and tests meet over files beside the apps.
    let beside = "writable = [\"..\"]\n";
    Apps::new(&[("text/text.py", TEXT), ("text/fnmesh.toml", beside), ("cart/cart.js", CART)])
}

#[test]
fn functions_of_both_languages_are_called() {
    let apps = apps();
    let node = Node::start("serve", &[apps.path("")], &[]);
    for (arguments, expected) in [
        (&["text/merge", "a=Hello, ", "b=world"][..], "\"Hello, world\"\n"),
        (&["text/merge", "-d", r#"["Hello, ", "world"]"#], "\"Hello, world\"\n"),
        (&["text/twice", "n=21"], "42\n"),
        (&["text/twice", "n:=12345678901234567890"], "24691357802469135780\n"),
        (&["cart/total", "items:=[1, 2, 3]", "rate:=2"], "12\n"),
        (&["cart/total", "-d", r#"{"items": [0.5, 1]}"#], "1.5\n"),
    ] {
        let output = node.call(arguments);
        assert_eq!(stdout(&output), expected, "{arguments:?}: {}", stderr(&output));
        assert!(output.status.success());
    }
}

#[test]
fn data_comes_from_file_and_standard_input() {
    let apps = apps();
    apps.write("body.json", r#"{"a": "x", "b": "y"}"#);
    let node = Node::start("serve", &[apps.path("text")], &[]);
    let file = format!("@{}", apps.path("body.json").display());
    assert_eq!(stdout(&node.call(&["text/merge", "-d", &file])), "\"xy\"\n");
    let body = std::fs::File::open(apps.path("body.json")).unwrap();
    let answer = output(node.client("call", &["text/merge", "-d", "-"]).stdin(body));
    assert_eq!(stdout(&answer), "\"xy\"\n");
}

#[test]
fn raw_bytes_come_out_as_they_are() {
    let apps = apps();
    let node = Node::start("serve", &[apps.path("text")], &[]);
    assert_eq!(node.call(&["text/raw"]).stdout, b"\x00\xff");
}

#[test]
fn failed_call_shows_the_users_stack() {
    let apps = apps();
    let node = Node::start("serve", &[apps.path("text")], &[]);
    let output = node.call(&["text/fail"]);
    assert_eq!((output.status.code(), stdout(&output)), (Some(1), ""));
    for part in ["ValueError", "no such thing", "text.py", "500"] {
        assert!(stderr(&output).contains(part), "{part:?} in {}", stderr(&output));
    }
    node.wait_for_stderr("about to fail");
}

#[test]
fn unknown_function_gets_the_nearest_name() {
    let apps = apps();
    let node = Node::start("serve", &[apps.path("text")], &[]);
    let output = node.call(&["text/merg"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("text/merge"), "{}", stderr(&output));
}

#[test]
fn stream_is_printed_as_it_arrives() {
    let apps = apps();
    let node = Node::start("serve", &[apps.path("text")], &[]);
    let go = apps.path("go");
    let file = format!("file={}", go.display());
    let mut call = Running::spawn(&mut node.client("call", &["text/items", &file]));
    let mut lines = BufReader::new(call.0.stdout.take().unwrap()).lines();
    // The second item cannot come before the file that the first one has to bring about.
    assert!(lines.next().unwrap().unwrap().contains('1'));
    std::fs::write(&go, "").unwrap();
    assert!(lines.any(|line| line.unwrap().contains('2')));
    assert!(call.ended().success());
}

#[test]
fn ls_and_inspect_describe_the_functions() {
    let apps = apps();
    let node = Node::settled("serve", &[apps.path("")], &[]);
    let listed = output(&mut node.client("ls", &[]));
    for part in ["FUNCTION", "text/merge", "(a: str, b: str) -> str", "cart/total", "node", "ready"] {
        assert!(stdout(&listed).contains(part), "{part:?} in {}", stdout(&listed));
    }
    let names: Vec<_> = node.apps().as_array().unwrap().iter().map(|app| app["name"].clone()).collect();
    assert_eq!(names, ["cart", "text"]);
    let inspected = output(&mut node.client("inspect", &["text/merge"]));
    for part in ["Puts two texts together.", "text.py", "curl ", "timeout 30 s"] {
        assert!(stdout(&inspected).contains(part), "{part:?} in {}", stdout(&inspected));
    }
    let json = output(&mut node.client("inspect", &["text/twice", "--json"]));
    let json: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!((&json["id"], &json["parameters"][1]["default"]), (&"text/twice".into(), &"2".into()));
    assert_eq!(output(&mut node.client("inspect", &["text/nothing"])).status.code(), Some(1));
}

#[test]
fn ps_lists_the_instances() {
    let apps = apps();
    let node = Node::settled("serve", &[apps.path("")], &[]);
    node.call(&["text/merge", "a=x", "b=y"]);
    let listed = output(&mut node.client("ps", &[]));
    for part in ["POOL", "text/python", "cart/node", "1 to ", "0 of 1024", "PID", "ready", "ok"] {
        assert!(stdout(&listed).contains(part), "{part:?} in {}", stdout(&listed));
    }
    let json = output(&mut node.client("ps", &["text", "--json"]));
    let json: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!((json.as_array().unwrap().len(), &json[0]["app"]), (1, &"text".into()));
    assert_eq!((&json[0]["instances"][0]["calls"], &json[0]["circuit"]), (&1.into(), &"closed".into()));
    let unknown = output(&mut node.client("ps", &["txt"]));
    assert_eq!(unknown.status.code(), Some(1));
    assert!(stderr(&unknown).contains("no app \"txt\""), "{}", stderr(&unknown));
}

#[test]
fn failing_app_leaves_the_others_alone() {
    let apps = Apps::new(&[("bad/bad.py", "import nothing_like_it\ndef f(): pass\n"), ("good/good.py", TEXT)]);
    let node = Node::start("serve", &[apps.path("")], &[]);
    let failed = node.event("failed");
    assert_eq!((&failed["app"], &failed["serving"]), (&"bad".into(), &serde_json::Value::Null));
    assert!(failed["error"]["message"].as_str().unwrap().contains("nothing_like_it"), "{failed}");
    assert_eq!(stdout(&node.call(&["good/twice", "n=1"])), "2\n");
    let output = node.call(&["bad/f"]);
    assert!(stderr(&output).contains("nothing_like_it") && stderr(&output).contains("503"), "{}", stderr(&output));
}

#[test]
fn node_without_apps_serves() {
    let node = Node::settled("serve", &[], &[]);
    assert_eq!(node.apps(), serde_json::json!([]));
    assert_eq!(node.call(&["text/merge"]).status.code(), Some(1));
}

#[test]
fn terminate_finishes_the_call_in_flight() {
    let apps = apps();
    let mut node = Node::settled("serve", &[apps.path("text")], &[]);
    let workers = node.workers();
    let go = apps.path("go");
    let file = format!("file={}", go.display());
    let mut call = Running::spawn(&mut node.client("call", &["text/wait_for", &file]));
    wait_until(|| apps.path("go.begun").exists(), || "the call has not begun".to_owned());
    node.signal(Signal::TERM);
    assert_eq!(node.event("draining")["in_flight"], 1);
    std::fs::write(&go, "").unwrap();
    let mut answer = String::new();
    call.0.stdout.take().unwrap().read_to_string(&mut answer).unwrap();
    assert_eq!(answer, "\"done\"\n");
    assert!(call.ended().success());
    assert_eq!(node.event("stopped")["cut_off"], 0);
    assert_eq!(node.ended().code(), Some(0));
    assert!(!workers.is_empty() && workers.iter().all(|&worker| !is_alive(worker)), "{workers:?}");
}

#[test]
fn second_interrupt_stops_at_once() {
    let apps = apps();
    let mut node = Node::settled("serve", &[apps.path("text")], &[]);
    let workers = node.workers();
    let file = format!("file={}", apps.path("never").display());
    let mut call = Running::spawn(&mut node.client("call", &["text/wait_for", &file]));
    wait_until(|| apps.path("never.begun").exists(), || "the call has not begun".to_owned());
    node.signal(Signal::INT);
    node.event("draining");
    node.signal(Signal::INT);
    assert_eq!(node.event("stopped")["cut_off"], 1);
    assert_eq!(node.ended().code(), Some(1));
    assert_eq!(call.ended().code(), Some(1));
    wait_until(|| !workers.iter().any(|&worker| is_alive(worker)), || format!("{workers:?} are still there"));
}

#[test]
fn drain_timeout_cuts_off_what_is_left() {
    let apps = apps();
    let mut node = Node::settled("serve", &[apps.path("text")], &["--drain-timeout", "100ms"]);
    let file = format!("file={}", apps.path("never").display());
    let mut call = Running::spawn(&mut node.client("call", &["text/wait_for", &file]));
    wait_until(|| apps.path("never.begun").exists(), || "the call has not begun".to_owned());
    node.signal(Signal::TERM);
    assert_eq!(node.event("stopped")["cut_off"], 1);
    assert_eq!(node.ended().code(), Some(1));
    assert_eq!(call.ended().code(), Some(1));
}

#[test]
fn logs_can_be_json() {
    let apps = apps();
    let node = Node::settled("serve", &[apps.path("text")], &["--log-format", "json"]);
    node.call(&["text/fail"]);
    node.wait_for_stderr("about to fail");
    let text = node.stderr();
    let line = text.lines().find(|line| line.contains("about to fail")).unwrap();
    let event: serde_json::Value = serde_json::from_str(line).unwrap();
    assert_eq!((&event["target"], &event["line"]), (&"fnmesh::app".into(), &"about to fail".into()));
    assert_eq!((&event["app"], &event["level"]), (&"text".into(), &"INFO".into()));
}

#[test]
fn app_that_cannot_be_forked_is_named_once_with_the_reason() {
    let source = "import threading\nthreading.Thread(target=threading.Event().wait, daemon=True).start()\ndef add(a, b): return a + b\n";
    let apps = Apps::new(&[
        ("busy/app.py", source),
        ("busy/fnmesh.toml", "min_instances = 3\n"),
        ("calm/app.py", "def add(a, b): return a + b\n"),
        ("asked/app.py", "def add(a, b): return a + b\n"),
        ("asked/fnmesh.toml", "fork = false\n"),
    ]);
    let node = Node::settled("serve", &["busy", "calm", "asked"].map(|app| apps.path(app)), &["--log-format", "json"]);
    for app in ["busy/add", "calm/add", "asked/add"] {
        assert_eq!(stdout(&node.call(&[app, "a:=1", "b:=2"])), "3\n");
    }
    node.wait_for_stderr("spawned instead of forked");
    let text = node.stderr();
    let lines: Vec<_> = text.lines().filter(|line| line.contains("spawned instead of forked")).collect();
    assert_eq!(lines.len(), 1, "{text}");
    let event: serde_json::Value = serde_json::from_str(lines[0]).unwrap();
    assert_eq!(
        (&event["app"], &event["language"], &event["reason"]),
        (&"busy".into(), &"python".into(), &"it started a thread while it was loaded".into())
    );
}

#[test]
fn second_node_cannot_take_the_same_port() {
    let node = Node::settled("serve", &[], &[]);
    let address = node.url.strip_prefix("http://").unwrap();
    let output = support::run(&["serve", "--listen", address]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("fnmesh (pid "), "{}", stderr(&output));
}

/// While that table grows, the thread that opens a file stands still.
#[test]
fn table_of_descriptors_has_room_for_all_connections_from_the_start() {
    const CONNECTIONS: u64 = 600;
    let node = Node::start("serve", &[], &["--max-connections", &CONNECTIONS.to_string()]);
    let status = std::fs::read_to_string(format!("/proc/{}/status", node.pid())).unwrap();
    let size = status.lines().find_map(|line| line.strip_prefix("FDSize:")).unwrap().trim();
    assert!(size.parse::<u64>().unwrap() > CONNECTIONS, "{size}");
}
