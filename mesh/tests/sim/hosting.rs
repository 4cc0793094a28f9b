//! What a node does about the apps that are deployed, as `node/src/hosting` does it: it looks ten times a second, does
//! what placement decides, and says what it serves.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use fnmesh_mesh::{
    deployments::{Deployment, Replicas, Retry},
    membership::Load,
    placement::{self, Decision, Demand, Placement, Site, View},
};

use super::{Item, World, announce::load, drain::Drain, pool::Pool, work::Task};

const TICK: Duration = Duration::from_millis(100);
const ALL_EVERY: u32 = 10;
/// How long a node that stops hosting an app goes on serving it after it has said so.
pub(super) const WITHDRAWN: Duration = Duration::from_millis(1_500);
/// How long after a change of a deployment nodes act on it ...
const NEW: Duration = Duration::from_secs(10);
/// ... once there has been reason for so long.
const PROMPT: Duration = Duration::from_millis(300);
/// How long a node that comes back waits for others to tell what they serve.
const NEWS_PATIENCE: Duration = Duration::from_secs(2);

/// What a node hosts while it lives.
#[derive(Default)]
pub(super) struct Hosting {
    pub(super) apps: BTreeMap<usize, Hosted>,
    /// Pools that take no more calls, until the last has ended.
    ending: Vec<Pool>,
    /// What it hosted before it ended, until it is decided whether it does again.
    before: BTreeSet<usize>,
    since: Duration,
    ticks: u32,
    pub(super) has_news: bool,
    pub(super) view: View,
    pub(super) drain: Drain,
}

#[derive(Default)]
pub(super) struct Hosted {
    placement: Placement,
    pub(super) pool: Option<Pool>,
    /// Which version that is: its number and the hash of its content.
    pub(super) version: (u64, [u8; 32]),
    pub(super) busy: Option<Busy>,
    /// Why it is not served, if it could not be had.
    pub(super) failed: Option<Retry>,
    /// The revision that is known, and since when.
    known: Option<(u64, Duration)>,
    /// Its bundle is being fetched, to be kept for others.
    pub(super) is_copying: bool,
    /// Why it is not kept, if it could not be had.
    pub(super) uncopied: Option<Retry>,
    /// When a call was seen last, and the counter then.
    called: Option<(Duration, u64)>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Busy {
    Starting,
    Stopping,
}

/// A node begins or ends to host an app.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Move {
    pub(crate) at: Duration,
    pub(crate) node: usize,
    pub(crate) app: usize,
    pub(crate) decision: Moved,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Moved {
    Hosts,
    Retires,
}

impl Hosting {
    pub(super) fn new(before: BTreeSet<usize>, since: Duration) -> Self {
        Self { before, since, has_news: true, ..Self::default() }
    }

    /// What serves the app here, also while it is being withdrawn.
    pub(super) fn pool(&self, app: usize) -> Option<&Pool> {
        self.apps.get(&app)?.pool.as_ref()
    }

    pub(super) fn pool_mut(&mut self, app: usize) -> Option<&mut Pool> {
        self.apps.get_mut(&app)?.pool.as_mut()
    }

    /// The pool of an app that has this number, also if it takes no more calls.
    pub(super) fn numbered(&mut self, app: usize, number: u64) -> Option<&mut Pool> {
        let pool = self.apps.get_mut(&app).and_then(|hosted| hosted.pool.as_mut());
        pool.into_iter().chain(&mut self.ending).find(|pool| pool.number == number)
    }

    /// What it serves and does not withdraw.
    pub(super) fn hosted(&self) -> BTreeSet<usize> {
        let serves = |hosted: &Hosted| hosted.pool.is_some() && hosted.busy != Some(Busy::Stopping);
        self.apps.iter().filter(|(_, hosted)| serves(hosted)).map(|(app, _)| *app).collect()
    }

    pub(super) fn is_starting(&self, app: usize) -> bool {
        self.apps.get(&app).is_some_and(|hosted| hosted.busy == Some(Busy::Starting))
    }

    fn is_free(&self, app: usize) -> bool {
        let is_free = |hosted: &Hosted| hosted.pool.is_none() && hosted.busy.is_none() && hosted.failed.is_none();
        self.drain == Drain::Off && self.apps.get(&app).is_none_or(is_free)
    }

    fn loads(&self) -> impl Iterator<Item = Load> {
        self.apps.values().filter_map(|hosted| Some(load(hosted.pool.as_ref()?)))
    }
}

impl Hosted {
    /// Whether the deployment has changed just now.
    fn is_new(&mut self, revision: u64, now: Duration) -> bool {
        if self.known.is_none_or(|(known, _)| known != revision) {
            self.known = Some((revision, now));
        }
        self.known.is_some_and(|(_, since)| now - since < NEW)
    }

    fn demand(&mut self, now: Duration) -> Demand {
        let Some(pool) = &self.pool else { return Demand::default() };
        let idle = match self.called {
            Some((since, counter)) if counter == pool.counter && pool.calls() == 0 => now - since,
            _ => {
                self.called = Some((now, pool.counter));
                Duration::ZERO
            }
        };
        Demand {
            is_saturated: pool.is_saturated(),
            idle,
            calls: pool.calls(),
            capacity: pool.capacity(),
            begun: pool.counter,
        }
    }
}

impl World {
    /// The nodes that serve an app and do not withdraw it.
    pub(crate) fn hosts(&self, app: usize) -> Vec<usize> {
        let hosts = |node: &usize| self.nodes[*node].hosting.as_ref().is_some_and(|it| it.hosted().contains(&app));
        (0..self.nodes.len()).filter(hosts).collect()
    }

    /// The content that a node serves of an app, if it does.
    pub(crate) fn serves(&self, node: usize, app: usize) -> Option<[u8; 32]> {
        let hosting = self.nodes[node].hosting.as_ref().filter(|hosting| hosting.hosted().contains(&app))?;
        Some(hosting.apps[&app].version.1)
    }

    pub(super) fn tick(&mut self, node: usize) {
        let life = self.nodes[node].life;
        self.push(TICK, Item::Task { node, life: Some(life), task: Task::Tick });
        let Some(hosting) = self.nodes[node].hosting.as_mut() else { return };
        let all = std::mem::take(&mut hosting.has_news) || hosting.ticks % ALL_EVERY == 0;
        hosting.ticks += 1;
        if all {
            self.look_around(node);
            self.host_again(node);
            self.keep_bundles(node);
        }
        self.hand_over(node);
        for app in 0..self.work.specs.len() {
            if all || self.nodes[node].hosting.as_ref().is_some_and(|hosting| hosting.pool(app).is_some()) {
                self.decide(node, app);
            }
        }
        self.announce(node);
    }

    fn look_around(&mut self, node: usize) {
        let membership = self.membership(node);
        let others = membership.members().filter_map(|member| membership.routable(member.node));
        let view = View::of(others.map(|record| (record.node, &record.profile)));
        if let Some(hosting) = self.nodes[node].hosting.as_mut() {
            hosting.view = view;
        }
    }

    /// Hosts again what it hosted before it ended, but for what enough others serve by now.
    fn host_again(&mut self, node: usize) {
        let is_first_life = self.nodes[node].life == 1;
        let Some(hosting) = self.nodes[node].hosting.as_mut() else { return };
        let nodes = hosting.view.nodes().len();
        if nodes == 0 && !is_first_life && self.now - hosting.since < NEWS_PATIENCE {
            return;
        }
        for app in std::mem::take(&mut hosting.before) {
            let Some(record) = self.deployment(node, app) else { continue };
            if is_first_life {
                self.serve(node, app, &record);
                continue;
            }
            let wanted = match record.replicas {
                Replicas::Auto => 1,
                Replicas::Count(count) => count.get().min(nodes + 1),
                Replicas::All => nodes + 1,
            };
            let hosting = self.nodes[node].hosting.as_ref();
            if hosting.map_or(0, |hosting| hosting.view.serving(&record.app, 0).count()) < wanted {
                self.begin_to_host(node, app);
            }
        }
    }

    fn decide(&mut self, node: usize, app: usize) {
        let (now, me) = (self.epoch + self.now, self.nodes[node].id);
        let record = self.deployment(node, app);
        let Some(hosting) = self.nodes[node].hosting.as_mut() else { return };
        let (has_room, load) = (placement::has_room(hosting.loads()), placement::sum(hosting.loads()));
        let hosted = hosting.apps.entry(app).or_default();
        if hosted.busy.is_some() {
            return;
        }
        let hosts = hosted.pool.is_some();
        let Some(record) = record else {
            if hosts {
                self.stop_hosting(node, app);
            }
            return;
        };
        if hosting.drain != Drain::Off {
            return;
        }
        let is_waiting = hosted.failed.is_some_and(|it| it.is_waiting(record.revision, now));
        if hosts && hosted.version.1 != content_hash(&record) {
            if !is_waiting {
                self.begin_to_host(node, app);
            }
            return;
        }
        hosted.version.0 = record.version;
        let own = Site { node: me, has_room: has_room && !is_waiting, hosts, serves: hosts, load };
        let demand = hosted.demand(self.now);
        let sites = hosting.view.sites(&record.app, own);
        let config = &self.work.placement;
        let prompt = placement::Config { patience: PROMPT, outage: PROMPT, ..config.clone() };
        let config = if hosted.is_new(record.revision, self.now) { &prompt } else { config };
        match hosted.placement.decide(config, (me, &record.app), record.replicas, &sites, demand, now) {
            Decision::Host if !is_waiting => self.begin_to_host(node, app),
            Decision::Stay | Decision::Host => {}
            Decision::Retire => self.stop_hosting(node, app),
            Decision::Ask(peer) => self.ask_to_host(node, self.index[&peer], app),
        }
    }

    pub(super) fn ask_to_host(&mut self, node: usize, peer: usize, app: usize) {
        let after = self.latency(node, peer) + self.repeats();
        self.push(after, Item::Task { node: peer, life: None, task: Task::Asked { by: node, app } });
    }

    pub(super) fn stop_hosting(&mut self, node: usize, app: usize) {
        let life = Some(self.nodes[node].life);
        let Some(hosting) = self.nodes[node].hosting.as_mut() else { return };
        hosting.apps.entry(app).or_default().busy = Some(Busy::Stopping);
        self.note_move(node, app, Moved::Retires);
        self.push(WITHDRAWN, Item::Task { node, life, task: Task::Withdrawn { app } });
    }

    pub(super) fn asked(&mut self, node: usize, by: usize, app: usize) {
        let is_free = self.nodes[node].hosting.as_ref().is_some_and(|hosting| hosting.is_free(app));
        let is_deployed = self.deployment(node, app).is_some();
        if is_free && is_deployed && !self.network.cuts.contains(&(by, node)) {
            self.begin_to_host(node, app);
        }
    }

    fn begin_to_host(&mut self, node: usize, app: usize) {
        let Some(record) = self.deployment(node, app) else { return };
        let Some(hosting) = self.nodes[node].hosting.as_mut() else { return };
        let hosted = hosting.apps.entry(app).or_default();
        hosted.busy = Some(Busy::Starting);
        if hosted.pool.is_none() {
            self.note_move(node, app, Moved::Hosts);
        }
        self.get_bundle(node, app, record, false);
        self.announce(node);
    }

    pub(super) fn serve(&mut self, node: usize, app: usize, record: &Deployment) {
        self.count += 1;
        let pool = Pool::new(Arc::clone(&self.work.specs[app]), self.count);
        if let Some(hosting) = self.nodes[node].hosting.as_mut() {
            hosting.before.remove(&app);
            let hosted = hosting.apps.entry(app).or_default();
            (hosted.busy, hosted.failed) = (None, None);
            hosted.version = (record.version, content_hash(record));
            // What runs in the version before ends there; what waits goes on here in a node, and there in simulation.
            let before = hosted.pool.replace(pool);
            hosting.ending.retain(|pool| pool.calls() > 0);
            hosting.ending.extend(before);
        }
    }

    /// Peers have heard that it is served here no more.
    pub(super) fn withdrawn(&mut self, node: usize, app: usize) {
        if let Some(hosting) = self.nodes[node].hosting.as_mut() {
            let gone = hosting.apps.insert(app, Hosted::default());
            hosting.ending.retain(|pool| pool.calls() > 0);
            hosting.ending.extend(gone.and_then(|hosted| hosted.pool));
        }
    }

    fn note_move(&mut self, node: usize, app: usize, decision: Moved) {
        self.work.moves.push(Move { at: self.now, node, app, decision });
    }
}

fn content_hash(record: &Deployment) -> [u8; 32] {
    record.content.as_ref().map(|content| content.hash).unwrap_or_default()
}
