use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use fnmesh_switch::{Condition, Direction};
use rustix::process::Signal;
use serde_json::Value;

use crate::{
    network::{Network, address},
    support::{Apps, Node, fnmesh, output, stderr, wait_until},
};

const SHOP: &str = "import time\ndef add(a: int) -> int:\n    time.sleep(0.02)\n    return a + 1\n";

/// A mesh of three hosts: the first serves nothing, the others the same app.
pub(crate) struct Cluster {
    pub(crate) nodes: Vec<Node>,
    apps: Apps,
    root: tempfile::TempDir,
    /// Where the node of a host listens for peers.
    listens_at: fn(usize) -> String,
    // Last: it waits until nothing runs there any more.
    pub(crate) network: Network,
}

impl Cluster {
    /// The mesh, when all nodes know all routes; none where namespaces cannot be made.
    pub(crate) fn new() -> Option<Self> {
        Self::on(Network::new(3)?, address)
    }

    /// The same, with nodes that listen for peers at any address of their host.
    pub(crate) fn at_any_address() -> Option<Self> {
        Self::on(Network::new(3)?, |_| "0.0.0.0".to_owned())
    }

    /// The same as the first, on hosts joined by a switch, where this happens to all that a host sends.
    pub(crate) fn switched(condition: Condition) -> Option<Self> {
        let network = Network::switched(3)?;
        (0..3).for_each(|host| network.switch().set(host, Direction::From, condition));
        Self::on(network, address)
    }

    fn on(network: Network, listens_at: fn(usize) -> String) -> Option<Self> {
        let apps = Apps::new(&[("shop/shop.py", SHOP)]);
        let mut cluster = Self { nodes: Vec::new(), apps, root: tempfile::tempdir().unwrap(), listens_at, network };
        cluster.nodes.push(cluster.start(0, &[]));
        for host in 1..3 {
            let (address, token) = cluster.token();
            cluster.nodes.push(cluster.start(host, &["--join", &address, "--token", &token]));
        }
        (0..3).for_each(|node| cluster.wait_for_view(node, &[1, 2]));
        Some(cluster)
    }

    /// Starts the node of a host, for the first time or again.
    fn start(&self, host: usize, join: &[&str]) -> Node {
        let (listen, mesh) =
            (format!("{}:8080", self.network.front(host)), format!("{}:7100", (self.listens_at)(host)));
        let data = self.data(host);
        let apps: &[PathBuf] = if host > 0 { &[self.apps.path("shop")] } else { &[] };
        let options = [&["--mesh", &mesh, "--data", data.to_str().unwrap()], join].concat();
        self.network.within(host, || Node::settled_at(&listen, "serve", apps, &options))
    }

    /// Stops a node as an operator does, and starts it again.
    pub(crate) fn restart(&mut self, node: usize) {
        self.nodes[node].signal(Signal::TERM);
        assert!(self.nodes[node].ended().success(), "{}", self.nodes[node].stderr());
        self.nodes[node] = self.start(node, &[]);
    }

    /// Waits until `node` has routes of the app to these nodes and no others.
    pub(crate) fn wait_for_view(&self, node: usize, serving: &[usize]) {
        let mut expected: Vec<_> = serving.iter().map(|node| format!("n{node}")).collect();
        expected.sort();
        wait_until(
            || self.routes(node) == expected,
            || {
                let nodes = self.nodes[node].get("/_/nodes");
                format!("n{node} has routes to {expected:?} but {nodes}: {}", self.nodes[node].stderr())
            },
        );
    }

    /// The same, which must be so within `limit` of `since`.
    pub(crate) fn view_within(&self, node: usize, serving: &[usize], since: Instant, limit: Duration) {
        self.wait_for_view(node, serving);
        let took = since.elapsed();
        assert!(took <= limit, "n{node} had routes to {serving:?} after {took:?}, the limit is {limit:?}");
    }

    /// The names of the nodes that `node` sends calls of the app to.
    fn routes(&self, node: usize) -> Vec<String> {
        let name_of = self.names(node);
        let routes = self.nodes[node].get("/_/routes");
        let ids = routes.as_array().unwrap().iter().flat_map(|route| route["nodes"].as_array().unwrap().clone());
        let mut names: Vec<_> = ids.map(|id| name_of(&id)).collect();
        names.sort();
        names
    }

    fn names(&self, node: usize) -> impl Fn(&Value) -> String {
        let nodes = self.nodes[node].get("/_/nodes");
        move |id| {
            let named = nodes.as_array().unwrap().iter().find(|node| node["node"] == *id);
            named.and_then(|node| node["name"].as_str()).unwrap_or("unknown").to_owned()
        }
    }

    /// The names of the nodes that `node` reaches, itself among them.
    pub(crate) fn reachable(&self, node: usize) -> Vec<String> {
        let nodes = self.nodes[node].get("/_/nodes");
        let reachable = nodes.as_array().unwrap().iter().filter(|node| node["reachable"] == true);
        let mut names: Vec<_> = reachable.map(|node| node["name"].as_str().unwrap_or_default().to_owned()).collect();
        names.sort();
        names
    }

    /// Waits until `node` reaches these nodes, itself among them, and no others.
    pub(crate) fn wait_for_reachable(&self, node: usize, names: &[&str]) {
        wait_until(
            || self.reachable(node) == names,
            || format!("n{node} reaches {names:?} but {:?}: {}", self.reachable(node), self.nodes[node].stderr()),
        );
    }

    fn data(&self, host: usize) -> PathBuf {
        self.root.path().join(format!("n{host}"))
    }

    fn token(&self) -> (String, String) {
        let created = output(fnmesh().args(["token", "create", "--json", "--data"]).arg(self.data(0)));
        assert!(created.status.success(), "{}", stderr(&created));
        let created: Value = serde_json::from_slice(&created.stdout).unwrap();
        let text = |member: &str| created[member].as_str().unwrap().to_owned();
        (text("address"), text("token"))
    }
}
