//! What is deployed is hosted by nodes of this version. Nodes of the one before know nothing of it, and call it.

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::{
    calls::{calls, write},
    cluster::Cluster,
    fleet::previous,
    support::{Apps, Program, stderr, wait_until},
};

/// A node of this version, one of the version before, and more of this one.
fn mixed(present: usize) -> Cluster {
    let mut cluster = Cluster::new(&[]);
    cluster.join_of(&previous(), &[]);
    for _ in 1..present {
        cluster.join_of(&Program::present(), &[]);
    }
    (0..cluster.nodes.len()).for_each(|index| cluster.wait_for_nodes(index));
    cluster
}

/// Deploys `shop` at the first node; how many nodes are to serve it.
fn deploy(cluster: &Cluster, apps: &Apps, options: &[&str]) -> Value {
    let deployed = cluster.deploy(0, &apps.path("shop"), options);
    // A node that is waited for in vain is one that was expected to keep it.
    let log = cluster.nodes[0].stderr();
    assert!(!log.contains("no other node keeps a copy"), "{log}");
    deployed["wanted"].clone()
}

fn shop() -> Apps {
    let apps = Apps::new(&[]);
    write(&apps, "shop");
    apps
}

fn check(cluster: &Cluster) {
    for node in &cluster.nodes {
        calls().iter().for_each(|call| call.check(&node.url, "shop"));
    }
}

#[test]
fn app_on_all_nodes_is_on_the_present_ones_and_called_at_the_previous_one() {
    let apps = shop();
    let mut cluster = mixed(2);
    assert_eq!(deploy(&cluster, &apps, &["--replicas", "all"]), 2);
    cluster.wait_for_routes(1, "shop", 2);
    check(&cluster);

    // A version that replaces it, and a node that gets it when it is upgraded.
    apps.write("shop/more.py", "def more() -> str: return 'more'\n");
    assert_eq!(deploy(&cluster, &apps, &[]), 2);
    cluster.replace(1, &Program::present(), &[]);
    cluster.wait_for_routes(0, "shop", 3);
    cluster.wait_for_routes(1, "shop", 3);
    check(&cluster);
}

#[test]
fn previous_node_is_not_counted_among_those_that_can_host() {
    let apps = shop();
    let mut cluster = mixed(1);
    assert_eq!(deploy(&cluster, &apps, &["--replicas", "2"]), 1);
    cluster.wait_for_routes(1, "shop", 1);
    check(&cluster);

    cluster.join(&[]);
    cluster.wait_for_routes(0, "shop", 2);
    // It goes from a node that ends to the one that is left, and not to the previous one.
    assert_eq!(deploy(&cluster, &apps, &["--replicas", "1"]), 1);
    for index in [0, 1] {
        cluster.wait_for_routes(index, "shop", 1);
    }
    let is_on_first = cluster.nodes[0].apps().as_array().unwrap().len() == 1;
    let (host, other) = if is_on_first { (0, 2) } else { (2, 0) };
    cluster.nodes[host].signal(Signal::KILL);
    cluster.nodes[host].ended();
    wait_until(
        || cluster.nodes[other].apps()[0]["name"] == "shop",
        || format!("the app on the node that is left: {}", cluster.nodes[other].stderr()),
    );
    let id = &cluster.nodes[other].get("/_/nodes")[0]["node"];
    for index in [1, other] {
        let node = &cluster.nodes[index];
        wait_until(|| node.get("/_/routes")[0]["nodes"] == json!([id]), || format!("its route: {}", node.stderr()));
        calls().iter().for_each(|call| call.check(&node.url, "shop"));
    }
}

#[test]
fn name_of_an_app_that_a_previous_node_serves_is_taken() {
    let apps = shop();
    let mut cluster = Cluster::new(&[]);
    cluster.join_of(&previous(), &[apps.path("shop")]);
    cluster.wait_for_routes(0, "shop", 1);
    let refused = cluster.ask(0, &["deploy", apps.path("shop").to_str().unwrap()]);
    assert!(stderr(&refused).contains("from a directory"), "{}", stderr(&refused));
    check(&cluster);
}
