//! Nodes of one mesh, each a process of its own on this machine.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "../support/mod.rs"]
mod support;

mod cluster;
mod deployments;
mod joining;
mod losses;

use std::time::Duration;

use cluster::Cluster;
use serde_json::{Value, json};
use support::{Apps, PATIENCE, post, request, stdout};

const MANIFEST: &str = "[functions.echo]\nhttp = true\n";

fn shop() -> Apps {
    Apps::new(&[
        (
            "shop/shop.py",
            "import time\n\
             def add(a: int, b: int = 1) -> int: return a + b\n\
             def fail(why): raise ValueError(why)\n\
             def count(n: int):\n    for i in range(n): yield i\n\
             def size(data: bytes) -> int: return len(data)\n\
             def big(n: int) -> str: return 'x' * n\n\
             def stamp() -> int: return time.time_ns()\n\
             def wait(seconds: float) -> str:\n    time.sleep(seconds)\n    return 'waited'\n",
        ),
        ("shop/fnmesh.toml", MANIFEST),
        (
            "shop/web.js",
            "exports.echo = (request) => new Response(request.method + ' ' + new URL(request.url).search, { status: 201, headers: { 'x-from': 'peer' } });\n",
        ),
    ])
}

#[test]
fn functions_of_a_peer_are_called_like_own_ones() {
    let apps = shop();
    let mut cluster = Cluster::new(&[apps.path("shop")]);
    let entry = cluster.join(&[]);
    let url = &cluster.nodes[entry].url;
    cluster.wait_for_routes(entry, "shop", 1);
    let call = |function: &str, body: &str| post(url, &format!("shop/{function}"), body, PATIENCE).unwrap();
    assert_eq!(call("add", "[1, 2]"), (200, "3".to_owned()));
    assert_eq!(call("add", r#"{"a": 1}"#), (200, "2".to_owned()));
    assert_eq!(call("shop.add", "[2, 2]"), (200, "4".to_owned()));
    assert_eq!(cluster.nodes[entry].get("/shop/add?a=40&b=2"), 42);

    let (status, body) = call("fail", "[\"no bread\"]");
    let error: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(
        (status, &error["error"]["type"], &error["error"]["message"]),
        (500, &json!("ValueError"), &json!("no bread"))
    );
    assert!(body.contains("shop.py"), "the stack is lost: {body}");

    let (status, body) = call("add", "[1, 2, 3]");
    assert!((400..500).contains(&status), "{status} {body}");
    let (status, body) = call("ad", "[1]");
    assert!(status == 404 && body.contains("shop/add"), "{status} {body}");

    let output = cluster.nodes[entry].call(&["shop/count", "-d", "[3]"]);
    assert!(output.status.success());
    assert_eq!(stdout(&output).split_whitespace().collect::<Vec<_>>(), ["0", "1", "2"], "{}", stdout(&output));
}

#[test]
fn http_functions_of_a_peer_see_the_request() {
    let apps = shop();
    let mut cluster = Cluster::new(&[apps.path("shop")]);
    let entry = cluster.join(&[]);
    cluster.wait_for_routes(entry, "shop", 1);
    let answer = request(&cluster.nodes[entry].url, "PUT /shop/echo?q=1", "", "", PATIENCE).unwrap();
    let lower = answer.to_lowercase();
    assert!(lower.starts_with("http/1.1 201") && lower.contains("x-from: peer"), "{answer}");
    assert!(answer.ends_with("PUT ?q=1"), "{answer}");
}

#[test]
fn large_bodies_and_answers_cross_the_mesh() {
    let apps = shop();
    let mut cluster = Cluster::new(&[apps.path("shop")]);
    let entry = cluster.join(&[]);
    cluster.wait_for_routes(entry, "shop", 1);
    let url = &cluster.nodes[entry].url;
    let (status, body) = post(url, "shop/big", "[3000000]", PATIENCE).unwrap();
    assert_eq!((status, body.len()), (200, 3_000_002));
    let text = "y".repeat(2_000_000);
    let headers = "Content-Type: application/octet-stream\r\n";
    let answer = request(url, "POST /shop/size", headers, &text, PATIENCE).unwrap();
    assert!(answer.ends_with("\r\n\r\n2000000"), "{}", &answer[..200.min(answer.len())]);
}

#[test]
fn entry_node_keeps_the_answers_of_a_peer() {
    let apps = shop();
    let mut cluster = Cluster::new(&[apps.path("shop")]);
    let entry = cluster.join(&[]);
    cluster.wait_for_routes(entry, "shop", 1);
    let stamp = |node: usize| {
        let headers = "Idempotency-Key: one\r\nContent-Type: application/json\r\n";
        let answer = request(&cluster.nodes[node].url, "POST /shop/stamp", headers, "[]", PATIENCE).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.to_lowercase().contains("idempotency-replayed: true"), body.parse::<u64>().unwrap())
    };
    let (is_replayed, first) = stamp(entry);
    assert!(!is_replayed);
    assert_eq!(stamp(entry), (true, first));
    // The peer that ran it has stored nothing: a call that is sent there is another one.
    let (is_replayed, own) = stamp(0);
    assert!(!is_replayed && own != first, "{own}");
}

#[test]
fn deadlines_hold_across_the_mesh() {
    let apps = shop();
    apps.write("shop/fnmesh.toml", &format!("timeout = \"1s\"\n{MANIFEST}"));
    let mut cluster = Cluster::new(&[apps.path("shop")]);
    let entry = cluster.join(&[]);
    cluster.wait_for_routes(entry, "shop", 1);
    let (status, body) = post(&cluster.nodes[entry].url, "shop/wait", "[20]", Duration::from_secs(10)).unwrap();
    assert!(status == 504 && body.contains("1s"), "{status} {body}");
}

#[test]
fn nodes_and_routes_are_listed() {
    let apps = shop();
    let mut cluster = Cluster::new(&[apps.path("shop")]);
    let entry = cluster.join(&[]);
    cluster.wait_for_routes(entry, "shop", 1);
    let list = |command: &str, arguments: &[&str]| {
        let output = support::output(&mut cluster.nodes[entry].client(command, arguments));
        assert!(output.status.success(), "{}", support::stderr(&output));
        stdout(&output).to_owned()
    };
    let nodes: Value = serde_json::from_str(&list("nodes", &["--json"])).unwrap();
    assert_eq!(nodes.as_array().unwrap().len(), 2);
    assert_eq!(
        (&nodes[0]["self"], &nodes[0]["name"], &nodes[1]["apps"]),
        (&json!(true), &json!("n1"), &json!(["shop"]))
    );
    assert!(list("nodes", &[]).contains("serving, this node"));
    assert!(list("routes", &["shop"]).contains("shop/add"));
    let missing = support::output(&mut cluster.nodes[entry].client("routes", &["shup"]));
    assert_eq!(missing.status.code(), Some(1));
    assert!(support::stderr(&missing).contains("shup"));
}
