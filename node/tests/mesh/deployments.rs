use std::{
    fs,
    sync::atomic::{AtomicBool, Ordering::SeqCst},
    thread,
};

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::{
    cluster::{Cluster, under_load},
    shop,
    support::{Apps, PATIENCE, Running, fnmesh, output, post, stderr, stdout, wait_until},
};

/// Nodes without apps of their own.
fn empty(nodes: usize) -> Cluster {
    let mut cluster = Cluster::new(&[]);
    for _ in 1..nodes {
        cluster.join(&[]);
    }
    (0..nodes).for_each(|index| cluster.wait_for_nodes(index));
    cluster
}

fn call(cluster: &Cluster, index: usize, function: &str, body: &str) -> (u16, String) {
    post(&cluster.nodes[index].url, function, body, PATIENCE).unwrap()
}

#[test]
fn deployed_app_is_called_on_every_node_and_versions_follow_each_other() {
    let apps = shop();
    let cluster = empty(3);
    let deployed = cluster.deploy(1, &apps.path("shop"), &[]);
    assert_eq!(
        (&deployed["version"], &deployed["changed"], &deployed["nodes"]),
        (&json!(1), &json!(true), &json!(["n1"]))
    );
    // Right away: a node that does not know yet where it is served waits.
    for index in 0..3 {
        assert_eq!(call(&cluster, index, "shop/add", "[1]"), (200, "2".to_owned()), "node {index}");
    }
    let again = cluster.deploy(2, &apps.path("shop"), &["--replicas", "2"]);
    assert_eq!((&again["version"], again["nodes"].as_array().unwrap().len()), (&json!(1), 2));
    cluster.wait_for_routes(0, "shop", 2);
    let unchanged = cluster.deploy(0, &apps.path("shop"), &[]);
    assert_eq!((&unchanged["changed"], &unchanged["replicas"]), (&json!(false), &json!("2")));

    apps.write("shop/more.py", "def more() -> str: return 'more'\n");
    let second = under_load(&cluster.urls(), || cluster.deploy(0, &apps.path("shop"), &["--replicas", "all"]));
    assert_eq!((&second["version"], second["nodes"].as_array().unwrap().len()), (&json!(2), 3));
    for index in 0..3 {
        assert_eq!(call(&cluster, index, "shop/more", "[]"), (200, "\"more\"".to_owned()));
    }
    let listed = output(&mut cluster.nodes[1].client("deployments", &["--json"]));
    let listed: Value = serde_json::from_slice(&listed.stdout).unwrap();
    assert_eq!(
        (&listed[0]["app"], &listed[0]["version"], &listed[0]["replicas"]),
        (&json!("shop"), &json!(2), &json!("all"))
    );

    assert!(cluster.ask(2, &["rm", "shop"]).status.success());
    wait_until(
        || (0..3).all(|index| call(&cluster, index, "shop/add", "[1]").0 == 404),
        || "a removed app is unknown".to_owned(),
    );
    let missing = cluster.ask(2, &["rm", "shop"]);
    assert!(stderr(&missing).contains("no app \"shop\" is deployed"), "{}", stderr(&missing));
    assert_eq!(cluster.deploy(0, &apps.path("shop"), &[])["version"], 3);
}

#[test]
fn version_that_does_not_start_is_not_deployed() {
    let apps = shop();
    let cluster = empty(2);
    cluster.deploy(0, &apps.path("shop"), &[]);
    apps.write("shop/broken.py", "import nowhere\n");
    let refused = cluster.ask(0, &["deploy", apps.path("shop").to_str().unwrap()]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(stderr(&refused).contains("nowhere") && stderr(&refused).contains("serves on"), "{}", stderr(&refused));
    assert_eq!(call(&cluster, 1, "shop/add", "[1]"), (200, "2".to_owned()));
    let missing = cluster.ask(0, &["deploy", apps.path("shup").to_str().unwrap()]);
    assert!(stderr(&missing).contains("shup"), "{}", stderr(&missing));
    let many = cluster.ask(0, &["deploy", apps.path("shop").to_str().unwrap(), "--replicas", "0"]);
    assert_eq!(many.status.code(), Some(2), "{}", stderr(&many));
}

#[test]
fn name_of_an_app_served_from_a_directory_is_taken() {
    let apps = shop();
    let mut cluster = Cluster::new(&[apps.path("shop")]);
    let other = cluster.join(&[]);
    cluster.wait_for_routes(other, "shop", 1);
    for index in [0, other] {
        let refused = cluster.ask(index, &["deploy", apps.path("shop").to_str().unwrap()]);
        assert!(stderr(&refused).contains("from a directory"), "{}", stderr(&refused));
    }
    assert_eq!(cluster.deploy(other, &apps.path("shop"), &["--name", "market"])["app"], "market");
    assert_eq!(call(&cluster, 0, "market/add", "[1]"), (200, "2".to_owned()));
}

#[test]
fn drained_node_gives_its_calls_to_others() {
    let apps = shop();
    let cluster = empty(2);
    cluster.deploy(1, &apps.path("shop"), &[]);
    under_load(&cluster.urls(), || {
        let drained = cluster.ask(0, &["drain", "n1"]);
        assert!(drained.status.success(), "{}", stderr(&drained));
        cluster.wait_for_routes(0, "shop", 1);
        wait_until(|| cluster.nodes[1].workers().is_empty(), || "no instance on the drained node".to_owned());
    });
    let nodes = cluster.nodes[0].get("/_/nodes");
    assert_eq!(nodes[1]["status"], "draining");
    let refused = cluster.ask(1, &["deploy", apps.path("shop").to_str().unwrap()]);
    assert!(stderr(&refused).contains("this node drains"), "{}", stderr(&refused));
    assert!(cluster.ask(1, &["drain", "--undo"]).status.success());
    wait_until(|| cluster.nodes[0].get("/_/nodes")[1]["status"] == "serving", || "it serves again".to_owned());
}

#[test]
fn rolling_restart_of_all_nodes_loses_no_call_of_a_deployed_app() {
    let apps = shop();
    let mut cluster = empty(3);
    cluster.deploy(1, &apps.path("shop"), &[]);
    // The callers' own node stays, or it would be they that are refused.
    under_load(&[cluster.nodes[0].url.clone()], || {
        for index in [1, 2] {
            cluster.restart(index, &[]);
            cluster.wait_for_nodes(index);
        }
    });
}

#[test]
fn app_of_a_killed_node_starts_elsewhere() {
    let apps = shop();
    let mut cluster = empty(2);
    cluster.deploy(1, &apps.path("shop"), &[]);
    assert_eq!(call(&cluster, 0, "shop/add", "[1]").0, 200);
    cluster.nodes[1].signal(Signal::KILL);
    cluster.nodes[1].ended();
    wait_until(|| call(&cluster, 0, "shop/add", "[1]") == (200, "2".to_owned()), || "the app elsewhere".to_owned());
}

#[test]
fn bundles_are_kept_by_others_and_go_with_the_version() {
    let apps = shop();
    let cluster = empty(2);
    let bundles = |index: usize| fs::read_dir(cluster.data(index).join("mesh/bundles")).unwrap().count();
    cluster.deploy(1, &apps.path("shop"), &[]);
    assert_eq!([bundles(0), bundles(1)], [1, 1]);
    assert!(cluster.nodes[0].workers().is_empty(), "the first node only keeps it");
    apps.write("shop/more.py", "def more() -> str: return 'more'\n");
    cluster.deploy(1, &apps.path("shop"), &[]);
    wait_until(|| [bundles(0), bundles(1)] == [1, 1], || "the new bundle alone".to_owned());
    assert!(cluster.ask(1, &["rm", "shop"]).status.success());
    wait_until(|| [bundles(0), bundles(1)] == [0, 0], || "no bundle".to_owned());
}

#[test]
fn deployments_outlive_a_restart_of_the_whole_mesh() {
    let apps = shop();
    let mut cluster = empty(1);
    cluster.deploy(0, &apps.path("shop"), &[]);
    cluster.nodes[0].signal(Signal::KILL);
    cluster.nodes[0].ended();
    // The original is not needed any more.
    fs::remove_dir_all(apps.path("shop")).unwrap();
    cluster.nodes[0] = cluster.start(0, &[], &[]);
    assert_eq!(call(&cluster, 0, "shop/add", "[1]"), (200, "2".to_owned()));
}

#[test]
fn saturated_app_is_hosted_on_more_nodes() {
    let apps = Apps::new(&[
        ("slow/slow.py", "import time\ndef nap() -> str:\n    time.sleep(0.05)\n    return 'ok'\n"),
        ("slow/fnmesh.toml", "max_instances = 1\nconcurrency = 1\n"),
    ]);
    let cluster = empty(3);
    cluster.deploy(0, &apps.path("slow"), &[]);
    let hosts = || {
        let routes = cluster.nodes[0].get("/_/routes");
        routes.as_array().unwrap().iter().map(|route| route["nodes"].as_array().unwrap().len()).sum::<usize>()
    };
    let (over, url) = (AtomicBool::new(false), cluster.nodes[0].url.clone());
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                while !over.load(SeqCst) {
                    let (status, body) = post(&url, "slow/nap", "[]", PATIENCE).unwrap();
                    assert!(status == 200 || status == 503, "{status} {body}");
                }
            });
        }
        wait_until(|| hosts() == 3, || format!("hosts: {}", hosts()));
        wait_until(
            || cluster.nodes[1].get("/_/apps")[0]["pools"][0]["in_flight"] == 1,
            || "calls on the second node".to_owned(),
        );
        over.store(true, SeqCst);
    });
}

#[test]
fn deployments_on_two_nodes_at_once_end_in_one() {
    let (one, other) = (shop(), shop());
    other.write("shop/more.py", "def more() -> str: return 'more'\n");
    let cluster = empty(2);
    let deploying = [&one, &other].into_iter().enumerate().map(|(index, apps)| {
        let directory = apps.path("shop");
        Running::spawn(
            fnmesh().arg("deploy").arg(directory).args(["--replicas", "all", "--data"]).arg(cluster.data(index)),
        )
    });
    for mut deploying in deploying.collect::<Vec<_>>() {
        // The one that does not count may fail.
        deploying.ended();
    }
    let hashes = || {
        let listed = cluster.nodes.iter().map(|node| node.get("/_/deployments"));
        let hashes: Vec<_> = listed.map(|deployments| deployments[0]["hash"].clone()).collect();
        let served: Vec<_> = cluster.nodes.iter().map(|node| node.get("/_/apps")[0]["version"].clone()).collect();
        [hashes, served].concat()
    };
    wait_until(|| hashes().windows(2).all(|pair| pair[0] == pair[1]), || format!("one content: {:?}", hashes()));
}

#[test]
fn command_finds_the_only_node_of_the_machine() {
    let apps = shop();
    let mut cluster = empty(1);
    let deploy = |runs: &std::path::Path| {
        output(fnmesh().env("XDG_RUNTIME_DIR", runs).args(["deploy", apps.path("shop").to_str().unwrap()]))
    };
    let deployed = deploy(cluster.nodes[0].cache());
    assert!(deployed.status.success() && stdout(&deployed).contains("shop v1"), "{}", stderr(&deployed));
    let elsewhere = tempfile::tempdir().unwrap();
    let nobody = deploy(elsewhere.path());
    assert_eq!(nobody.status.code(), Some(3));
    assert!(stderr(&nobody).contains("no node of a mesh runs on this machine"), "{}", stderr(&nobody));
    // One that was killed is not found, and forgotten.
    cluster.nodes[0].signal(Signal::KILL);
    cluster.nodes[0].ended();
    assert_eq!(deploy(cluster.nodes[0].cache()).status.code(), Some(3));
}
