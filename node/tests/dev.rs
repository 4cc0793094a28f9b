//! `fnmesh dev`: changes on disk become versions that serve, on one node or on all of a mesh.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use std::{
    collections::BTreeSet,
    fs,
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
};

use rustix::process::Signal;
use serde_json::Value;
use support::{Apps, Node, PATIENCE, is_alive, post, stderr, stdout, wait_until};

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

/// `fnmesh dev --nodes 3` on this app, once all nodes serve it.
struct Several {
    dev: Node,
    urls: Vec<String>,
    pids: Vec<u32>,
    /// What the nodes keep.
    data: PathBuf,
}

impl Several {
    fn start(apps: &Apps) -> Self {
        let dev = Node::start("dev", &[apps.path("shop")], &["--nodes", "3"]);
        let mut listening: Vec<_> = (0..2).map(|_| dev.event("listening")).collect();
        listening.sort_by_key(|event| event["on"].as_str().unwrap().to_owned());
        assert_eq!(listening.iter().map(|event| &event["on"]).collect::<Vec<_>>(), ["n2", "n3"]);
        let urls: Vec<_> = listening.iter().map(|event| event["url"].as_str().unwrap().to_owned()).collect();
        let pids: Vec<_> =
            listening.iter().map(|event| u32::try_from(event["pid"].as_u64().unwrap()).unwrap()).collect();
        let command = fs::read_to_string(format!("/proc/{}/cmdline", pids[0])).unwrap();
        let data = PathBuf::from(command.split('\0').skip_while(|part| *part != "--data").nth(1).unwrap());
        let own = dev.get("/_/health")["pid"].as_u64().unwrap();
        let several = Self {
            urls: [vec![dev.url.clone()], urls].concat(),
            pids: [vec![u32::try_from(own).unwrap()], pids].concat(),
            data: data.parent().unwrap().to_owned(),
            dev,
        };
        several.heard("ready");
        several
    }

    /// Waits until each node has told this.
    fn heard(&self, event: &str) {
        let nodes: BTreeSet<_> = (0..3).map(|_| self.dev.event(event)["on"].to_string()).collect();
        assert_eq!(nodes.len(), 3, "{event} of {nodes:?}");
    }

    fn prices(&self) -> Vec<(u16, String)> {
        self.urls.iter().map(|url| post(url, "shop/price", "[21]", PATIENCE).unwrap()).collect()
    }

    /// Waits until no process and no file of the mesh is left.
    fn nothing_is_left(&self, processes: &[u32]) {
        let left = || processes.iter().filter(|pid| is_alive(**pid)).collect::<Vec<_>>();
        wait_until(|| left().is_empty(), || format!("processes are left: {:?}", left()));
        wait_until(|| !self.data.exists(), || format!("{} is left", self.data.display()));
        // Not who answers at the nodes' ports: they may be others' by now.
        let nodes = nodes_at(&self.data);
        assert!(nodes.is_empty(), "nodes are left: {nodes:?}");
        let marks = fs::read_dir(self.dev.cache().join("fnmesh")).unwrap();
        assert_eq!(marks.count(), 0, "nodes are still to be found");
    }

    /// Those of the nodes, and of their workers.
    fn processes(&self) -> Vec<u32> {
        let children = |pid: &u32| fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
        let workers: Vec<u32> = self
            .pids
            .iter()
            .flat_map(|pid| children(pid).split_whitespace().map(|pid| pid.parse().unwrap()).collect::<Vec<_>>())
            .collect();
        assert!(workers.len() >= 3, "{workers:?}");
        assert_eq!(nodes_at(&self.data).len(), 3);
        [self.pids.clone(), workers].concat()
    }
}

/// Processes of nodes that keep their data there, whoever started them.
fn nodes_at(data: &Path) -> Vec<PathBuf> {
    let data = data.as_os_str().as_bytes();
    let is_one = |process: &PathBuf| {
        let command = fs::read(process.join("cmdline")).unwrap_or_default();
        command.split(|byte| *byte == 0).any(|argument| argument.starts_with(data))
    };
    fs::read_dir("/proc").unwrap().map(|entry| entry.unwrap().path()).filter(is_one).collect()
}

#[test]
fn every_node_of_a_mesh_serves_and_reloads() {
    let apps = Apps::new(&[("shop/shop.py", GOOD)]);
    let several = Several::start(&apps);
    assert_eq!(several.prices(), vec![(200, "42".to_owned()); 3]);
    assert_eq!(several.dev.get("/_/deployments")[0]["replicas"], "all");
    apps.write("shop/shop.py", "def price(n: int) -> int:\n    return n * 3\n\ndef tax(): return 0\n");
    several.heard("reloaded");
    assert_eq!(several.prices(), vec![(200, "63".to_owned()); 3]);

    apps.write("shop/shop.py", "def price(n:\n");
    let failed = several.dev.event("failed");
    assert_eq!((&failed["on"], &failed["error"]["type"]), (&Value::from("n1"), &Value::from("SyntaxError")));
    assert!(failed["serving"].is_string(), "{failed}");
    assert_eq!(several.prices(), vec![(200, "63".to_owned()); 3]);

    // A start that hangs is given up when there is something newer.
    apps.write("shop/shop.py", "print('it has begun', flush=True)\nwhile True: pass\n");
    several.dev.wait_for_stderr("it has begun");
    apps.write("shop/shop.py", "def price(n: int) -> int:\n    return n * 5\n");
    several.heard("reloaded");
    assert_eq!(several.prices(), vec![(200, "105".to_owned()); 3]);
}

#[test]
fn app_of_a_mesh_that_failed_at_first_is_served_once_fixed() {
    let apps = Apps::new(&[("shop/shop.py", "import nothing_like_it\n")]);
    let node = Node::start("dev", &[apps.path("shop")], &["--nodes", "2"]);
    node.event("failed");
    let (status, body) = post(&node.url, "shop/price", "[1]", PATIENCE).unwrap();
    assert!(status == 503 && body.contains("nothing_like_it"), "{status} {body}");
    apps.write("shop/shop.py", GOOD);
    let nodes: BTreeSet<_> = (0..2).map(|_| node.event("ready")["on"].to_string()).collect();
    assert_eq!(nodes.len(), 2);
    assert_eq!(call(&node, "n=1"), "2");
}

#[test]
fn interrupted_mesh_leaves_nothing() {
    let apps = Apps::new(&[("shop/shop.py", GOOD)]);
    let mut several = Several::start(&apps);
    let processes = several.processes();
    several.dev.signal(Signal::INT);
    assert!(several.dev.ended().success(), "{}", several.dev.stderr());
    several.nothing_is_left(&processes);
}

#[test]
fn killed_mesh_leaves_nothing() {
    let apps = Apps::new(&[("shop/shop.py", GOOD)]);
    let mut several = Several::start(&apps);
    let processes = several.processes();
    several.dev.signal(Signal::KILL);
    several.dev.ended();
    several.nothing_is_left(&processes);
}

#[test]
fn mesh_goes_on_without_a_node_that_was_killed() {
    let apps = Apps::new(&[("shop/shop.py", GOOD)]);
    let mut several = Several::start(&apps);
    let killed = rustix::process::Pid::from_raw(several.pids[1].cast_signed()).unwrap();
    rustix::process::kill_process(killed, Signal::KILL).unwrap();
    several.dev.wait_for_stderr("n2 has ended");
    assert_eq!(call(&several.dev, "n=21"), "42");
    apps.write("shop/shop.py", "def price(n: int) -> int:\n    return n * 3\n");
    let nodes: BTreeSet<_> = (0..2).map(|_| several.dev.event("reloaded")["on"].to_string()).collect();
    assert_eq!(nodes, BTreeSet::from(["\"n1\"".to_owned(), "\"n3\"".to_owned()]));
    several.dev.signal(Signal::INT);
    assert!(several.dev.ended().success(), "{}", several.dev.stderr());
}
