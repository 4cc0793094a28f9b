//! Nodes of one mesh on hosts of their own: network namespaces, in which ways can be cut and addresses changed.
//!
//! They take root, the commands `ip` and `nft`, and `/dev/net/tun`. Where namespaces cannot be made they are not run and say so; with
//! FNMESH_REQUIRE_NAMESPACES=1 they fail there.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "../support/mod.rs"]
mod support;

mod calls;
mod cluster;
mod network;

use std::{
    thread,
    time::{Duration, Instant},
};

use calls::{CALLERS, Calls, Failed, Kind};
use cluster::Cluster;
use rustix::process::Signal;
use support::{Node, PATIENCE, post, wait_until};

/// How long a lost node may keep its routes.
const DETECTION: Duration = Duration::from_secs(4);
/// How long nothing may happen for a mesh to be called quiet.
const QUIET: Duration = Duration::from_secs(4);
/// From each host to the switch: 20 ms there and back, of which 1 % is lost each way.
const LONG_WAY: &str = "delay=10ms jitter=1ms loss=0.01 reorder=0.005";

/// Calls of both kinds by way of the first node.
struct Load {
    plain: Calls,
    idempotent: Calls,
}

impl Load {
    fn start(cluster: &Cluster) -> Self {
        let url = &cluster.nodes[0].url;
        Self { plain: Calls::start(url, Kind::Plain), idempotent: Calls::start(url, Kind::Idempotent) }
    }

    fn go_on(&self) {
        self.plain.go_on();
        self.idempotent.go_on();
    }

    /// Stops it. `losses` times a node was lost: no call was, but those that were on it and might not be run again.
    fn stop(self, losses: usize) {
        let (plain, idempotent) = (self.plain.stop(), self.idempotent.stop());
        assert!(idempotent.is_empty(), "{idempotent:#?}");
        let is_unknown =
            |call: &Failed| call.answer.starts_with("HTTP/1.1 502") && call.answer.contains("outcome unknown");
        assert!(plain.len() <= losses * CALLERS && plain.iter().all(is_unknown), "{plain:#?}");
    }
}

#[test]
fn killed_node_takes_only_its_calls_with_it() {
    let Some(mut cluster) = Cluster::new() else { return };
    let load = Load::start(&cluster);
    let killed = Instant::now();
    cluster.nodes[1].signal(Signal::KILL);
    for node in [0, 2] {
        cluster.view_within(node, &[2], killed, DETECTION);
    }
    load.go_on();
    load.stop(1);
    cluster.nodes[1].ended();
}

#[test]
fn paused_node_is_left_out_until_it_goes_on() {
    let Some(cluster) = Cluster::new() else { return };
    let load = Load::start(&cluster);
    let paused = Instant::now();
    cluster.nodes[1].signal(Signal::STOP);
    for node in [0, 2] {
        cluster.view_within(node, &[2], paused, DETECTION);
    }
    load.go_on();
    cluster.nodes[1].signal(Signal::CONT);
    for node in [0, 1, 2] {
        cluster.wait_for_view(node, &[1, 2]);
    }
    load.go_on();
    load.stop(1);
}

#[test]
fn node_that_is_not_heard_is_called_by_others_only() {
    cut_one_way(1, 0);
}

#[test]
fn node_that_does_not_hear_is_called_by_others_only() {
    cut_one_way(0, 1);
}

/// Cuts the way from one of the nodes 0 and 1 to the other: the first no longer calls the second, the third still does.
fn cut_one_way(from: usize, to: usize) {
    let Some(cluster) = Cluster::new() else { return };
    let load = Load::start(&cluster);
    let cut = Instant::now();
    cluster.network.cut(from, to);
    cluster.view_within(0, &[2], cut, DETECTION);
    load.go_on();
    cluster.wait_for_view(2, &[1, 2]);
    cluster.network.heal(from, to);
    cluster.wait_for_view(0, &[1, 2]);
    load.go_on();
    load.stop(1);
}

#[test]
fn parts_of_a_mesh_find_each_other_again() {
    let Some(cluster) = Cluster::new() else { return };
    let ways = [(0, 1), (1, 0), (0, 2), (2, 0)];
    ways.iter().for_each(|(from, to)| cluster.network.cut(*from, *to));
    cluster.wait_for_reachable(0, &["n0"]);
    for node in [1, 2] {
        cluster.wait_for_reachable(node, &["n1", "n2"]);
    }
    ways.iter().for_each(|(from, to)| cluster.network.heal(*from, *to));
    for node in 0..3 {
        cluster.wait_for_reachable(node, &["n0", "n1", "n2"]);
        cluster.wait_for_view(node, &[1, 2]);
    }
    wait_for_quiet(&cluster);
}

/// Waits until no node has said for a while that another came or went: rumours of the past may still go round.
fn wait_for_quiet(cluster: &Cluster) {
    let (start, mut before) = (Instant::now(), changes(cluster));
    loop {
        thread::sleep(QUIET);
        let now = changes(cluster);
        if now == before {
            return;
        }
        assert!(start.elapsed() < 3 * QUIET, "the mesh is not quiet: {now:#?}");
        before = now;
    }
}

/// What the nodes have said of others that came or went.
fn changes(cluster: &Cluster) -> Vec<String> {
    let is_change = |line: &&str| line.contains("node is up") || line.contains("node is down");
    let of_node = |node: &Node| node.stderr().lines().filter(is_change).map(str::to_owned).collect::<Vec<_>>();
    cluster.nodes.iter().flat_map(of_node).collect()
}

#[test]
fn long_lossy_ways_fail_no_call_and_take_no_node_down() {
    let Some(cluster) = Cluster::switched(LONG_WAY.parse().unwrap()) else { return };
    let before = changes(&cluster);
    let load = Load::start(&cluster);
    // That nothing happens takes time to see.
    thread::sleep(QUIET);
    load.go_on();
    load.stop(0);
    assert_eq!(changes(&cluster), before);
}

#[test]
fn node_that_is_unplugged_on_a_long_way_is_left_out_until_it_is_back() {
    let Some(cluster) = Cluster::switched(LONG_WAY.parse().unwrap()) else { return };
    let load = Load::start(&cluster);
    let unplugged = Instant::now();
    cluster.network.switch().cut(1, true);
    for node in [0, 2] {
        cluster.view_within(node, &[2], unplugged, DETECTION);
    }
    cluster.wait_for_view(1, &[1]);
    load.go_on();
    cluster.network.switch().cut(1, false);
    for node in [0, 1, 2] {
        cluster.wait_for_view(node, &[1, 2]);
    }
    load.go_on();
    load.stop(1);
}

#[test]
fn node_at_another_address_is_found_again() {
    let Some(mut cluster) = Cluster::at_any_address() else { return };
    let load = Load::start(&cluster);
    cluster.network.ip(1, &["address", "delete", "10.0.0.2/24", "dev", "eth0"]);
    cluster.network.ip(1, &["address", "add", "10.0.0.12/24", "dev", "eth0"]);
    let listed = || {
        let nodes = cluster.nodes[0].get("/_/nodes");
        let found = nodes.as_array().unwrap().iter().find(|node| node["name"] == "n1").cloned();
        found.unwrap_or_default()
    };
    wait_until(
        || listed()["address"] == "10.0.0.12:7100" && listed()["reachable"] == true,
        || format!("n1 has moved: {} {}", listed(), cluster.nodes[0].stderr()),
    );
    for node in [0, 2] {
        cluster.wait_for_view(node, &[1, 2]);
    }
    load.go_on();
    load.stop(1);
    // Nobody else is left to answer.
    cluster.nodes[2].signal(Signal::TERM);
    cluster.nodes[2].ended();
    cluster.wait_for_view(0, &[1]);
    let call = || post(&cluster.nodes[0].url, "shop/add", "[1]", PATIENCE).unwrap();
    wait_until(|| call() == (200, "2".to_owned()), || format!("{:?}", call()));
}

#[test]
fn rolling_restart_of_all_nodes_loses_no_call() {
    let Some(mut cluster) = Cluster::new() else { return };
    let load = Load::start(&cluster);
    for restarted in 0..3 {
        let entry = &cluster.nodes[(restarted + 1) % 3].url;
        load.plain.ask(entry);
        load.idempotent.ask(entry);
        load.go_on();
        cluster.restart(restarted);
        (0..3).for_each(|node| cluster.wait_for_view(node, &[1, 2]));
        load.go_on();
    }
    load.stop(0);
}
