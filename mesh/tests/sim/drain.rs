//! How a node gives its calls to others, as `node/src/hosting/drain.rs` does it.

use std::{collections::BTreeMap, time::Duration};

use fnmesh_mesh::{membership::Load, placement::Site};

use super::{Item, World, hosting::WITHDRAWN, work::Task};

/// A node that was asked to take an app and does not say that it starts it is asked again after this long, or another.
const ASK_AGAIN: Duration = Duration::from_secs(3);

/// How far a node is with draining.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum Drain {
    /// It takes calls.
    #[default]
    Off,
    /// It takes calls, and others start the apps that it serves alone; when one was asked last.
    HandingOver(BTreeMap<usize, Duration>),
    /// It takes none of peers.
    On,
}

impl World {
    pub(crate) fn drain(&mut self, node: usize) {
        if let Some(hosting) = self.nodes[node].hosting.as_mut() {
            hosting.drain = Drain::HandingOver(BTreeMap::new());
        }
    }

    /// Whether a node has drained and serves nothing any more.
    pub(crate) fn has_drained(&self, node: usize) -> bool {
        let hosting = self.nodes[node].hosting.as_ref();
        hosting.is_some_and(|it| it.drain == Drain::On && it.hosted().is_empty())
    }

    pub(super) fn hand_over(&mut self, node: usize) {
        let (now, me) = (self.now, self.nodes[node].id);
        let Some(hosting) = self.nodes[node].hosting.as_mut() else { return };
        let hosted = hosting.hosted();
        let Drain::HandingOver(asked) = &mut hosting.drain else { return };
        let mut asks = Vec::new();
        let mut is_alone = false;
        for app in hosted {
            let name = &self.work.specs[app].name;
            if hosting.view.serving(name, 1).next().is_some() {
                continue;
            }
            is_alone = true;
            let own = Site { node: me, has_room: false, hosts: true, serves: true, load: Load::default() };
            let others: Vec<_> = hosting.view.sites(name, own).into_iter().filter(|site| site.node != me).collect();
            let is_starting = others.iter().any(|site| site.hosts);
            let is_due = asked.get(&app).is_none_or(|last| now - *last >= ASK_AGAIN);
            let successor = others.iter().min_by_key(|site| (!site.has_room, site.load, site.node));
            if let Some(successor) = successor.filter(|_| is_due && !is_starting) {
                asked.insert(app, now);
                asks.push((self.index[&successor.node], app));
            }
        }
        if !is_alone {
            hosting.drain = Drain::On;
            let life = Some(self.nodes[node].life);
            self.push(WITHDRAWN, Item::Task { node, life, task: Task::Drained });
        }
        for (peer, app) in asks {
            self.ask_to_host(node, peer, app);
        }
    }

    /// Peers have heard that it drains.
    pub(super) fn drained(&mut self, node: usize) {
        let hosted = self.nodes[node].hosting.as_ref().map(|hosting| hosting.hosted()).unwrap_or_default();
        for app in hosted {
            self.stop_hosting(node, app);
        }
    }
}
