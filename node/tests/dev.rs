//! `fnmesh dev`: changes on disk become versions that serve.

mod support;

use std::fs;

use support::{Apps, Node, stderr, stdout};

const GOOD: &str = "def price(n: int) -> int:\n    return n * 2\n";

fn call(node: &Node, n: &str) -> String {
    let output = node.call(&["shop/price", n]);
    format!("{}{}", stdout(&output).trim_end(), stderr(&output))
}

#[test]
fn change_is_served_and_named() {
    let apps = Apps::new(&[("shop/shop.py", GOOD)]);
    let node = Node::settled("dev", &[apps.path("shop")], &[]);
    assert_eq!(call(&node, "n=21"), "42");
    apps.write("shop/shop.py", "def price(n: int) -> int:\n    return n * 3\n\ndef tax(): return 0\n");
    let reloaded = node.event("reloaded");
    assert_eq!((&reloaded["added"], &reloaded["removed"]), (&serde_json::json!(["shop/tax"]), &serde_json::json!([])));
    assert_eq!(call(&node, "n=21"), "63");
}

#[test]
fn broken_change_keeps_the_last_good_version() {
    let apps = Apps::new(&[("shop/shop.py", GOOD)]);
    let node = Node::settled("dev", &[apps.path("shop")], &[]);
    let good = node.apps()[0]["version"].clone();
    apps.write("shop/shop.py", "def price(n:\n");
    let failed = node.event("failed");
    assert_eq!(failed["serving"], good);
    assert_eq!(failed["error"]["type"], "SyntaxError");
    assert!(failed["error"]["stack"].as_str().unwrap().contains("shop.py"), "{failed}");
    assert_eq!(call(&node, "n=21"), "42");
    assert_eq!(node.apps()[0]["state"], "stale");
    apps.write("shop/shop.py", GOOD);
    node.event("reloaded");
    assert_eq!(node.apps()[0]["state"], "ready");
}

#[test]
fn app_that_failed_at_first_is_served_once_fixed() {
    let apps = Apps::new(&[("shop/shop.py", "import nothing_like_it\n")]);
    let node = Node::settled("dev", &[apps.path("shop")], &[]);
    apps.write("shop/shop.py", GOOD);
    node.event("ready");
    assert_eq!(call(&node, "n=1"), "2");
}

#[test]
fn newer_change_replaces_a_start_that_hangs() {
    let apps = Apps::new(&[("shop/shop.py", GOOD), ("shop/fnmesh.toml", "writable = [\"..\"]\n")]);
    let node = Node::settled("dev", &[apps.path("shop")], &[]);
    let begun = apps.path("begun");
    apps.write("shop/shop.py", &format!("open({begun:?}, 'w').close()\nwhile True: pass\n"));
    support::wait_until(|| begun.exists(), || "the hanging version has not begun".to_owned());
    apps.write("shop/shop.py", "def price(n: int) -> int:\n    return n * 5\n");
    node.event("reloaded");
    assert_eq!(call(&node, "n=1"), "5");
}

#[test]
fn same_content_is_not_deployed_again() {
    let apps = Apps::new(&[("shop/shop.py", GOOD)]);
    let node = Node::settled("dev", &[apps.path("shop")], &[]);
    let workers = node.workers();
    apps.write("shop/shop.py", GOOD);
    apps.write("shop/.hidden", "x");
    apps.write("shop/other.py", "def more(): return 1\n");
    // The first event is the one of the file that is new.
    let reloaded = node.event("reloaded");
    assert_eq!(reloaded["added"], serde_json::json!(["shop/more"]));
    assert_ne!(workers, node.workers());
}

#[test]
fn deleted_directory_keeps_serving_until_it_is_back() {
    let apps = Apps::new(&[("shop/shop.py", GOOD)]);
    let node = Node::settled("dev", &[apps.path("shop")], &[]);
    fs::remove_dir_all(apps.path("shop")).unwrap();
    node.event("directory_gone");
    assert_eq!(call(&node, "n=21"), "42");
    apps.write("shop/shop.py", "def price(n: int) -> int:\n    return n * 7\n");
    node.event("reloaded");
    assert_eq!(call(&node, "n=1"), "7");
}

#[test]
fn requests_and_logs_are_shown_without_colour_when_piped() {
    let apps = Apps::new(&[("shop/shop.py", "def hello():\n    print('in the shop')\n    return 1\n")]);
    let node = Node::settled("dev", &[apps.path("shop")], &[]);
    node.call(&["shop/hello"]);
    node.wait_for_stderr("in the shop");
    node.wait_for_stderr("POST /shop/hello 200");
    assert!(!node.stderr().contains('\u{1b}'), "{}", node.stderr());
}
