//! Where a call is sent, by the node that a client has called and by the rules of `Dispatch` and `remote.rs`:
//! [`Attempts`], [`Balancer`], [`RetryBudget`] and the table are the real ones.

use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, Instant},
};

use fnmesh_invoke::{Error, FunctionId};
use fnmesh_mesh::{
    NodeId,
    balance::{self, Attempts, Balancer, Choice, Local, Outcome, RetryBudget, may_retry},
    membership::Load,
    table::FunctionKey,
};

use super::{
    Item, World,
    pool::{Job, Spec},
    work::{Call, End, Task},
};

/// How long a call waits for a node to serve an app that is deployed.
const ROUTE_PATIENCE: Duration = Duration::from_secs(10);
/// How often what a broken path lost is sent again.
pub(super) const RESEND: Duration = Duration::from_millis(100);

/// The calls that began at a node while it lives.
pub(super) struct Entry {
    balancer: Balancer,
    budget: RetryBudget,
    /// Peers to which there is no link.
    unlinked: BTreeSet<usize>,
    /// Calls that have not ended.
    pub(super) open: BTreeSet<usize>,
    /// Those that wait for a route.
    pub(super) waiting: BTreeSet<usize>,
}

impl Entry {
    pub(super) fn new(node: NodeId, seed: u64, now: Instant) -> Self {
        Self {
            balancer: Balancer::new(balance::Config::default(), node, "", seed),
            budget: RetryBudget::new(now),
            unlinked: BTreeSet::new(),
            open: BTreeSet::new(),
            waiting: BTreeSet::new(),
        }
    }
}

impl World {
    /// `Dispatch::resolve` and `Dispatch::call`.
    pub(super) fn begin(&mut self, call: usize) {
        let Call { app, entry: node, end: None, .. } = self.work.calls[call] else { return };
        let pool = self.nodes[node].hosting.as_ref().and_then(|hosting| hosting.pool(app));
        let room = match pool {
            Some(pool) if !pool.is_saturated() => return self.run_here(call),
            Some(pool) => Local::Saturated(Load::new(pool.calls(), pool.capacity())),
            None => Local::Absent,
        };
        let is_routed = self.nodes[node].table.reader().load().app(&self.work.specs[app].name).is_some();
        let life = Some(self.nodes[node].life);
        let Some(entry) = self.nodes[node].entry.as_mut() else { return };
        if room == Local::Absent && !is_routed {
            entry.waiting.insert(call);
            self.push(ROUTE_PATIENCE, Item::Task { node, life, task: Task::NoRoute { call } });
            return;
        }
        entry.budget.call();
        self.work.calls[call].room = room;
        self.go_on(call);
    }

    /// Tries again what waits for a route.
    pub(super) fn routes_changed(&mut self, node: usize) {
        let Some(entry) = self.nodes[node].entry.as_mut() else { return };
        for call in std::mem::take(&mut entry.waiting) {
            self.begin(call);
        }
    }

    /// `Remote::call`, from one await to the next.
    fn go_on(&mut self, call: usize) {
        let now = self.epoch + self.now;
        let Call { app, entry: node, room, ref mut attempts, .. } = self.work.calls[call];
        let name = &self.work.specs[app].name;
        let this = &mut self.nodes[node];
        let Some(Entry { balancer, budget, .. }) = this.entry.as_mut() else { return };
        let table = this.table.reader();
        let choice = attempts.next(budget, room, now, |tried| {
            let table = table.load();
            let route = table.lookup(name, "run")?;
            balancer.choose(route.key, route.version.peers(), room, tried, now)
        });
        match choice {
            Some(Choice::Here) => self.run_here(call),
            Some(Choice::Peer(peer)) => self.forward(call, self.index[&peer]),
            None => {
                let error = std::mem::take(attempts).end(&self.function(app));
                self.end(call, End::Failed(error.kind().to_owned()));
            }
        }
    }

    fn run_here(&mut self, call: usize) {
        let this = &mut self.work.calls[call];
        this.attempt += 1;
        let (node, app, job) = (this.entry, this.app, Job { call, attempt: this.attempt });
        if let Err(error) = self.admit(node, app, job) {
            self.end(call, End::Failed(error.kind().to_owned()));
        }
    }

    fn forward(&mut self, call: usize, peer: usize) {
        let now = self.epoch + self.now;
        let this = &mut self.work.calls[call];
        this.attempt += 1;
        let (node, app, job) = (this.entry, this.app, Job { call, attempt: this.attempt });
        let (id, life) = (self.nodes[peer].id, self.nodes[peer].life);
        this.at = Some((peer, life, now));
        let Some(entry) = self.nodes[node].entry.as_mut() else { return };
        entry.balancer.sent(key(&self.work.specs[app]), id, now);
        if entry.unlinked.contains(&peer) {
            return self.answered(job, Err(unreachable("there is no link to it")));
        }
        let after = self.latency(node, peer) + self.repeats();
        self.push(after, Item::Task { node: peer, life: None, task: Task::Request { job, life } });
    }
    pub(super) fn replied(&mut self, node: usize, from: usize, job: Job, answer: Result<Option<Load>, Error>) {
        if !self.is_in_flight(job) {
            return;
        }
        if self.network.cuts.contains(&(from, node)) {
            let is_there = self.nodes[from].membership.is_some();
            if is_there {
                self.push(RESEND, Item::Task { node, life: None, task: Task::Reply { from, job, answer } });
            }
            return;
        }
        self.answered(job, answer);
    }

    pub(super) fn is_in_flight(&self, job: Job) -> bool {
        let call = &self.work.calls[job.call];
        call.end.is_none() && call.at.is_some() && call.attempt == job.attempt
    }

    /// `Remote::forward`, from where there is an answer.
    fn answered(&mut self, job: Job, answer: Result<Option<Load>, Error>) {
        let this = &mut self.work.calls[job.call];
        let (Some((peer, ..)), node) = (this.at, this.entry) else { return };
        let name = Arc::clone(&self.work.specs[this.app].name);
        let is_idempotent = this.is_idempotent;
        self.attempt_ended(job.call, answer.as_ref().map_or_else(Outcome::of, |_| Outcome::Answered));
        let id = self.nodes[peer].id;
        match answer {
            Ok(load) => {
                let table = self.nodes[node].table.reader();
                match load {
                    Some(load) => table.load().report(&name, id, load),
                    None => table.load().relieve(&name, id),
                }
                self.end(job.call, End::Answered(peer));
            }
            Err(error) if may_retry(&error, is_idempotent) => {
                self.work.calls[job.call].attempts.failed(id, error);
                self.go_on(job.call);
            }
            Err(error) => self.end(job.call, End::Failed(error.kind().to_owned())),
        }
    }

    /// Tells the balancer that an attempt is over.
    fn attempt_ended(&mut self, call: usize, outcome: Outcome) {
        let now = self.epoch + self.now;
        let this = &mut self.work.calls[call];
        let (Some((peer, _, since)), app) = (this.at.take(), this.app) else { return };
        let id = self.nodes[peer].id;
        if let Some(entry) = self.nodes[this.entry].entry.as_mut() {
            entry.balancer.done(key(&self.work.specs[app]), id, outcome, now - since, now);
        }
    }

    pub(super) fn time_out(&mut self, call: usize) {
        let Call { at, app, entry, attempt, end: None, .. } = self.work.calls[call] else { return };
        let job = Job { call, attempt };
        match at {
            Some((peer, ..)) => {
                self.attempt_ended(call, Outcome::of(&late(self.function(app))));
                let after = self.latency(entry, peer);
                self.push(after, Item::Task { node: peer, life: None, task: Task::Cancel { job } });
            }
            None => self.perform(entry, Task::Cancel { job }),
        }
        self.end(call, End::Failed("DeadlineExceeded".to_owned()));
    }

    /// The link from `node` to `peer` has ended, or there is one again.
    pub(super) fn note_link(&mut self, node: usize, peer: usize, works: bool) {
        let life = self.nodes[peer].life;
        let Some(entry) = self.nodes[node].entry.as_mut() else { return };
        if works {
            entry.unlinked.remove(&peer);
            self.lose_calls(node, peer, |then| then != life);
        } else {
            entry.unlinked.insert(peer);
            self.lose_calls(node, peer, |_| true);
        }
    }

    /// The link from `node` to `peer` has ended, or is a new one: calls that went over the old one have no answer.
    pub(super) fn lose_calls(&mut self, node: usize, peer: usize, is_lost: impl Fn(u32) -> bool) {
        let Some(entry) = &self.nodes[node].entry else { return };
        let calls = entry.open.iter().filter(|call| match self.work.calls[**call].at {
            Some((at, life, _)) => at == peer && is_lost(life),
            None => false,
        });
        for call in calls.copied().collect::<Vec<_>>() {
            let Call { app, attempt, .. } = self.work.calls[call];
            let error = Error::OutcomeUnknown {
                function: self.function(app),
                peer: peer.to_string(),
                reason: "lost".to_owned(),
            };
            self.answered(Job { call, attempt }, Err(error));
        }
    }

    /// A node has died: so have its clients' connections.
    pub(super) fn lose_entry(&mut self, node: usize) {
        for call in self.nodes[node].entry.take().map(|entry| entry.open).unwrap_or_default() {
            self.end(call, End::EntryLost);
        }
    }

    pub(super) fn end(&mut self, call: usize, end: End) {
        let this = &mut self.work.calls[call];
        assert!(this.end.is_none(), "call {call} ends twice: {:?} and {end:?}", this.end);
        this.end = Some((self.now, end));
        (this.at, this.attempts) = (None, Attempts::default());
        if let Some(entry) = self.nodes[this.entry].entry.as_mut() {
            entry.open.remove(&call);
            entry.waiting.remove(&call);
        }
    }

    pub(super) fn function(&self, app: usize) -> FunctionId {
        FunctionId { app: self.work.specs[app].name.clone(), name: "run".into() }
    }
}

fn key(spec: &Spec) -> FunctionKey {
    FunctionKey::new(&spec.name, "run")
}

pub(super) fn unreachable(reason: &str) -> Error {
    Error::PeerUnreachable { peer: "a peer".to_owned(), reason: reason.to_owned() }
}

pub(super) fn late(function: FunctionId) -> Error {
    Error::DeadlineExceeded { function, timeout: Duration::ZERO }
}
