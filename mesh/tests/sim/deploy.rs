//! What is deployed, and the bundles: records are the registry's, and spread by the rule of the driver ([`Cause`]).

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use fnmesh_mesh::{
    NodeId,
    deployments::{Cause, Change, Content, Deployment, Obstacle, Replicas, Retry},
    placement,
};

use super::{Item, LINK_TIMEOUT, Node, World, entry::RESEND, work::Task};

const BUNDLE_BYTES: u64 = 3_000_000;
/// What is sent of a bundle at a time.
const PIECE_BYTES: u64 = 256 * 1024;
/// How many nodes keep the bundle of an app.
const COPIES: usize = 3;
/// What is sent with the records of deployments.
const ENVELOPE_BYTES: usize = 80;

/// A bundle that a node tries to get.
#[derive(Clone)]
pub(super) struct Fetch {
    app: usize,
    record: Arc<Deployment>,
    /// Who is still to be asked, the first one last.
    peers: Vec<usize>,
    /// It is to be kept for others, and not to be served.
    is_copy: bool,
}

/// The content with this number.
pub(crate) fn content(number: u8) -> Content {
    Content { hash: [number; 32], bundle: [number; 32], bundle_bytes: BUNDLE_BYTES }
}

impl World {
    /// Deploys an app on a node that has its files, or removes it there. It serves the app before others know of it.
    pub(crate) fn change(&mut self, node: usize, app: &str, content: Option<Content>, replicas: Replicas) {
        let (now, id) = (self.date + self.now, self.nodes[node].id);
        let this = &mut self.nodes[node];
        this.bundles.extend(content.as_ref().map(|content| content.bundle));
        let record = this.registry.next(app, Change { content, replicas }, id, now).expect("there is room for it");
        this.registry.merge([Arc::clone(&record)], now);
        let number = self.work.specs.iter().position(|spec| *spec.name == *app);
        if let Some(number) = number.filter(|_| record.content.is_some()) {
            self.serve(node, number, &record);
        }
        self.spread(node, Cause::Changed(record));
    }

    /// The app as if it had been deployed long ago.
    pub(super) fn deploy_before(&mut self, app: usize, hosts: &[usize]) {
        let spec = &self.work.specs[app];
        let (content, now) = (content(app as u8 + 100), self.date);
        let change = Change { content: Some(content.clone()), replicas: spec.replicas };
        let first = &self.nodes[hosts.first().copied().unwrap_or(0)];
        let record = first.registry.next(&spec.name, change, first.id, now).expect("there is room for it");
        let keepers = placement::first(&spec.name, self.nodes.iter().map(|node| node.id), COPIES);
        for (index, node) in self.nodes.iter_mut().enumerate() {
            node.registry.merge([Arc::clone(&record)], now);
            if hosts.contains(&index) || keepers.contains(&node.id) {
                node.bundles.insert(content.bundle);
            }
        }
    }

    /// How an app is deployed, as far as a node knows; nothing if it is not.
    pub(super) fn deployment(&self, node: usize, app: usize) -> Option<Arc<Deployment>> {
        let record = self.nodes[node].registry.get(&self.work.specs[app].name)?;
        record.content.as_ref().map(|_| Arc::clone(record))
    }

    /// Whether all live nodes have the same records.
    pub(crate) fn agrees(&self) -> bool {
        let mut registries = self.live().map(|node| &self.nodes[node].registry);
        let first = registries.next();
        registries.all(|registry| Some(registry) == first)
    }

    /// A node has found another: they have a link from now on.
    pub(super) fn dial(&mut self, node: usize, peer: usize) {
        let is_cut = self.network.cuts.contains(&(node, peer)) || self.network.cuts.contains(&(peer, node));
        if !is_cut && self.nodes[peer].membership.is_some() && self.nodes[peer].paused.is_none() {
            self.link_up(node, peer);
            self.link_up(peer, node);
        }
    }

    pub(super) fn link_up(&mut self, node: usize, peer: usize) {
        let life = self.nodes[peer].life;
        let is_new = std::mem::replace(&mut self.nodes[node].linked[peer], life) != life;
        if is_new {
            self.spread(node, Cause::LinkUp(self.nodes[peer].id));
        }
    }

    fn spread(&mut self, node: usize, cause: Cause) {
        let this = &self.nodes[node];
        let linked = (0..self.nodes.len()).filter(|peer| this.linked[*peer] > 0);
        let linked: Vec<NodeId> = match cause {
            Cause::LinkUp(_) => Vec::new(),
            _ => linked.map(|peer| self.nodes[peer].id).collect(),
        };
        let (told, records) = cause.spread(&this.registry, linked, &mut self.rng);
        if records.is_empty() {
            return;
        }
        let size = |record| serde_json::to_string(record).expect("records are JSON").len() + 1;
        let bytes = ENVELOPE_BYTES + records.iter().map(size).sum::<usize>();
        for peer in told {
            let peer = self.index[&peer];
            let before = self.nodes[node].sent;
            self.count_sent(node, bytes);
            let sent = self.nodes[node].sent;
            self.told.messages += sent.messages - before.messages;
            self.told.bytes += sent.bytes - before.bytes;
            let after = self.latency(node, peer) + self.repeats();
            let times = (LINK_TIMEOUT.as_millis() / RESEND.as_millis()) as u32;
            let task = Task::Told { by: node, records: Arc::clone(&records), times };
            self.push(after, Item::Task { node: peer, life: None, task });
        }
    }

    pub(super) fn told(&mut self, node: usize, by: usize, records: Arc<[Arc<Deployment>]>, times: u32) {
        if self.nodes[node].membership.is_none() {
            return;
        }
        if self.network.cuts.contains(&(by, node)) {
            // As long as there is a link. With the next one it is told everything.
            if times > 0 {
                let task = Task::Told { by, records, times: times - 1 };
                self.push(RESEND, Item::Task { node, life: None, task });
            }
            return;
        }
        let now = self.date + self.now;
        let new = self.nodes[node].registry.merge(records.iter().cloned(), now);
        if !new.is_empty() {
            if let Some(hosting) = self.nodes[node].hosting.as_mut() {
                hosting.has_news = true;
            }
            self.spread(node, Cause::Heard(new));
        }
    }

    /// Gets what is deployed from those that may have it, and then serves it or keeps it.
    pub(super) fn get_bundle(&mut self, node: usize, app: usize, record: Arc<Deployment>, is_copy: bool) {
        let (Some(hosting), Some(content)) = (&self.nodes[node].hosting, &record.content) else { return };
        let fetch = if self.nodes[node].bundles.contains(&content.bundle) {
            let fetch = Fetch { app, record, peers: Vec::new(), is_copy };
            return self.fetched(node, fetch, true);
        } else {
            let mut peers: Vec<_> = hosting.view.serving(&record.app, record.version).collect();
            let others: Vec<_> = hosting.view.nodes().filter(|node| !peers.contains(node)).collect();
            peers.extend(others.iter().filter(|node| **node == record.node));
            peers.extend(others.iter().filter(|node| **node != record.node));
            Fetch { app, record, peers: peers.iter().rev().map(|peer| self.index[peer]).collect(), is_copy }
        };
        self.fetch(node, fetch);
    }

    pub(super) fn fetch(&mut self, node: usize, mut fetch: Fetch) {
        let life = Some(self.nodes[node].life);
        match fetch.peers.pop() {
            Some(peer) if self.nodes[node].linked[peer] > 0 => {
                let after = self.latency(node, peer) + self.repeats();
                self.push(after, Item::Task { node, life, task: Task::Fetching(fetch, peer) });
            }
            Some(_) => self.fetch(node, fetch),
            None => self.fetched(node, fetch, false),
        }
    }

    pub(super) fn fetching(&mut self, node: usize, fetch: Fetch, peer: usize) {
        let life = Some(self.nodes[node].life);
        let is_cut = self.network.cuts.contains(&(node, peer)) || self.network.cuts.contains(&(peer, node));
        let is_there = self.nodes[peer].membership.is_some() && self.nodes[peer].paused.is_none();
        let has_it = fetch.record.content.as_ref().is_some_and(|it| self.nodes[peer].bundles.contains(&it.bundle));
        let (after, task) = match (is_there && !is_cut, has_it) {
            (false, _) => (LINK_TIMEOUT, Task::Fetch(fetch)),
            (true, false) => (self.latency(peer, node), Task::Fetch(fetch)),
            (true, true) => {
                self.count_sent(peer, BUNDLE_BYTES as usize);
                let lost: Duration = (0..BUNDLE_BYTES.div_ceil(PIECE_BYTES)).map(|_| self.repeats()).sum();
                (self.latency(peer, node) + lost, Task::Fetched { fetch, is_here: true })
            }
        };
        self.push(after, Item::Task { node, life, task });
    }

    pub(super) fn fetched(&mut self, node: usize, fetch: Fetch, is_here: bool) {
        let (life, app) = (Some(self.nodes[node].life), fetch.app);
        let revision = fetch.record.revision;
        if is_here {
            self.nodes[node].bundles.extend(fetch.record.content.as_ref().map(|content| content.bundle));
        }
        let (after, task) = match (fetch.is_copy, is_here) {
            (false, true) => (self.work.start, Task::Hosts { app, record: fetch.record }),
            (true, true) => (Duration::ZERO, Task::Kept { app }),
            (is_copy, false) => {
                let now = self.epoch + self.now;
                let failed = |last| Some(Retry::after(last, revision, Obstacle::NoBundle, now));
                if let Some(hosting) = self.nodes[node].hosting.as_mut() {
                    let hosted = hosting.apps.entry(app).or_default();
                    if is_copy {
                        (hosted.is_copying, hosted.uncopied) = (false, failed(hosted.uncopied));
                    } else {
                        (hosted.busy, hosted.failed) = (None, failed(hosted.failed));
                    }
                }
                return;
            }
        };
        self.push(after, Item::Task { node, life, task });
    }

    pub(super) fn kept(&mut self, node: usize, app: usize) {
        if let Some(hosting) = self.nodes[node].hosting.as_mut() {
            let hosted = hosting.apps.entry(app).or_default();
            (hosted.is_copying, hosted.uncopied) = (false, None);
        }
    }

    /// Fetches bundles that it is to keep for others, and drops those that nobody will ask for.
    pub(super) fn keep_bundles(&mut self, node: usize) {
        let now = self.epoch + self.now;
        let this = &mut self.nodes[node];
        let deployed: BTreeSet<_> = this.registry.deployed().map(|(_, content)| content.bundle).collect();
        this.bundles.retain(|bundle| deployed.contains(bundle));
        for app in 0..self.work.specs.len() {
            let Some(record) = self.deployment(node, app) else { continue };
            let Node { id, hosting, bundles, .. } = &mut self.nodes[node];
            let (Some(hosting), Some(content)) = (hosting.as_mut(), &record.content) else { continue };
            if bundles.contains(&content.bundle) {
                continue;
            }
            let is_keeper = placement::first(&record.app, hosting.view.nodes().chain([*id]), COPIES).contains(id);
            let hosted = hosting.apps.entry(app).or_default();
            let is_waiting = hosted.uncopied.is_some_and(|it| it.is_waiting(record.revision, now));
            if is_keeper && !hosted.is_copying && !is_waiting && hosted.busy.is_none() {
                hosted.is_copying = true;
                self.get_bundle(node, app, record, true);
            }
        }
    }
}
