//! What a test sees of the nodes.

use std::time::Duration;

use super::{Node, Notice, Traffic, World};

impl World {
    pub(crate) fn live(&self) -> impl Iterator<Item = usize> + Clone {
        (0..self.nodes.len()).filter(|node| self.nodes[*node].membership.is_some())
    }

    /// Whether every live node can call every live node, each at its newest record, and no other.
    pub(crate) fn is_converged(&self) -> bool {
        let live: Vec<_> = self.live().collect();
        live.iter().all(|&node| {
            self.membership(node).members().len() == live.len() - 1 && live.iter().all(|&other| self.knows(node, other))
        })
    }

    /// Whether `node` would call `other`, at its newest record.
    pub(crate) fn knows(&self, node: usize, other: usize) -> bool {
        let newest = self.membership(other).routable(self.nodes[other].id).map(|record| record.stamp());
        let known = self.membership(node).routable(self.nodes[other].id).map(|record| record.stamp());
        known.is_some() && known == newest && self.routes_to(node, other)
    }

    /// Whether `node` would call `other`, at whatever record.
    pub(crate) fn routes_to(&self, node: usize, other: usize) -> bool {
        let is_routable = self.membership(node).routable(self.nodes[other].id).is_some();
        if node < self.tables {
            let table = self.nodes[node].table.reader();
            let table = table.load();
            let route = table.lookup(&format!("app{other}"), "function_0");
            let is_in_table = route.is_some_and(|route| {
                let version = self.nodes[other].profile.apps[0].version;
                let peers = route.version.peers();
                peers.len() == 1 && peers[0].node == self.nodes[other].id && route.version.number() <= version
            });
            assert_eq!(is_in_table, is_routable, "the table of node {node} follows its membership");
        }
        is_routable
    }

    /// What live nodes noticed since `since`.
    pub(crate) fn notices(&self, since: Duration, kind: Notice) -> usize {
        let of = |node: &Node| node.notices.iter().filter(|(at, _, what)| *at >= since && *what == kind).count();
        self.nodes.iter().map(of).sum()
    }

    pub(crate) fn reset_traffic(&mut self) {
        for node in &mut self.nodes {
            node.sent = Traffic::default();
        }
    }

    /// Messages and bytes that live nodes sent, for each node.
    pub(crate) fn traffic(&self) -> Traffic {
        let nodes = self.live().count() as u64;
        let sum = |of: fn(&Traffic) -> u64| self.live().map(|node| of(&self.nodes[node].sent)).sum::<u64>() / nodes;
        Traffic { messages: sum(|sent| sent.messages), bytes: sum(|sent| sent.bytes) }
    }
}
