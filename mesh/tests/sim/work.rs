//! Calls: who makes them, and what becomes of them.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use fnmesh_invoke::Error;
use fnmesh_mesh::{
    balance::{Attempts, Local},
    deployments::Deployment,
    membership::Load,
    placement,
};

use super::{
    Item, World,
    deploy::Fetch,
    hosting::Move,
    pool::{Job, Spec},
};

/// Something a node has to do.
pub(super) enum Task {
    /// It looks at what it hosts.
    Tick,
    /// An app has started, as it was deployed then.
    Hosts { app: usize, record: Arc<Deployment> },
    /// A peer tells what is deployed; it does so again some times if it does not get through.
    Told { by: usize, records: Arc<[Arc<Deployment>]>, times: u32 },
    /// It asks the next peer for a bundle.
    Fetch(Fetch),
    /// That peer has been asked.
    Fetching(Fetch, usize),
    /// A bundle is here, or nobody has given it.
    Fetched { fetch: Fetch, is_here: bool },
    /// It keeps a bundle.
    Kept { app: usize },
    /// Peers have heard that it drains.
    Drained,
    /// An app is served no more.
    Withdrawn { app: usize },
    /// A peer asks it to host an app.
    Asked { by: usize, app: usize },
    /// Another instance of a pool has started.
    Instance { app: usize, pool: u64 },
    /// What a pool ran has ended.
    Finished { app: usize, pool: u64, job: Job },
    /// A client calls.
    Begin { call: usize },
    /// A peer sends a call that began there; it was sent to this life of the node.
    Request { job: Job, life: u32 },
    /// A peer answers.
    Reply { from: usize, job: Job, answer: Result<Option<Load>, Error> },
    /// A peer gives up a call.
    Cancel { job: Job },
    /// The time of a call is over.
    Deadline { call: usize },
    /// Nobody has begun to serve what a call waits for.
    NoRoute { call: usize },
}

/// All calls, and all apps.
pub(crate) struct Work {
    pub(crate) specs: Vec<Arc<Spec>>,
    pub(crate) placement: placement::Config,
    /// How long it takes to fetch a bundle and to start the first instance.
    pub(crate) start: Duration,
    pub(crate) calls: Vec<Call>,
    pub(crate) moves: Vec<Move>,
    /// Who calls what, from now on.
    pub(crate) traffic: Option<Mix>,
    /// Which of the arrivals counts.
    arrivals: u64,
}

impl Default for Work {
    fn default() -> Self {
        Self {
            specs: Vec::new(),
            placement: placement::Config::default(),
            start: Duration::from_millis(300),
            calls: Vec::new(),
            moves: Vec::new(),
            traffic: None,
            arrivals: 0,
        }
    }
}

/// Calls that come at random, so many a second.
#[derive(Clone, Debug)]
pub(crate) struct Mix {
    pub(crate) per_second: f64,
    /// How often each app is called, by number.
    pub(crate) weights: Vec<(usize, f64)>,
    /// The nodes that clients call.
    pub(crate) entries: Vec<usize>,
    /// The share that has an idempotency key.
    pub(crate) idempotent: f64,
    pub(crate) timeout: Duration,
}

#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) app: usize,
    pub(crate) entry: usize,
    pub(crate) is_idempotent: bool,
    pub(crate) began: Duration,
    pub(crate) deadline: Duration,
    /// How often it was run.
    pub(crate) executions: u32,
    /// How often it was sent to a peer or put into the own queue.
    pub(crate) attempt: u32,
    pub(crate) end: Option<(Duration, End)>,
    pub(super) attempts: Attempts,
    pub(super) room: Local,
    /// The peer that has it, in which of its lives, and since when.
    pub(super) at: Option<(usize, u32, Instant)>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// It has a result; where it ran.
    Answered(usize),
    /// It failed so.
    Failed(String),
    /// The node died that the client had called, which the client sees.
    EntryLost,
}

/// What became of calls.
#[derive(Debug, Default)]
pub(crate) struct Figures {
    pub(crate) calls: usize,
    pub(crate) answered: usize,
    /// How those ended that have no result.
    pub(crate) failed: BTreeMap<String, usize>,
    pub(crate) open: usize,
    /// Those that were run more than once.
    pub(crate) repeated: usize,
    /// Calls that ran on another node than they began on.
    pub(crate) remote: usize,
    /// Attempts to run them.
    pub(crate) attempts: usize,
    /// How long answers took.
    pub(crate) median: Duration,
    pub(crate) p99: Duration,
}
impl World {
    /// Changes who calls what.
    pub(crate) fn call(&mut self, mix: Option<Mix>) {
        self.work.traffic = mix;
        self.work.arrivals += 1;
        self.next_arrival();
    }

    /// What became of the calls that began since then.
    pub(crate) fn figures(&self, since: Duration) -> Figures {
        let mut figures = Figures::default();
        let mut latencies = Vec::new();
        for call in self.work.calls.iter().filter(|call| call.began >= since) {
            figures.calls += 1;
            figures.attempts += call.attempt as usize;
            figures.repeated += usize::from(call.executions > 1);
            match &call.end {
                None => figures.open += 1,
                Some((at, End::Answered(node))) => {
                    figures.answered += 1;
                    figures.remote += usize::from(*node != call.entry);
                    latencies.push(*at - call.began);
                }
                Some((_, End::Failed(kind))) => *figures.failed.entry(kind.clone()).or_default() += 1,
                Some((_, End::EntryLost)) => *figures.failed.entry("EntryLost".to_owned()).or_default() += 1,
            }
        }
        latencies.sort_unstable();
        let quantile = |share: usize| latencies.get(latencies.len() * share / 100).copied().unwrap_or_default();
        (figures.median, figures.p99) = (quantile(50), quantile(99));
        figures
    }

    /// Calls of an app a second that ended with a result since then.
    pub(crate) fn throughput(&self, app: usize, since: Duration) -> f64 {
        let is_counted =
            |call: &&Call| call.app == app && matches!(&call.end, Some((at, End::Answered(_))) if *at >= since);
        self.work.calls.iter().filter(is_counted).count() as f64 / (self.now - since).as_secs_f64()
    }

    fn next_arrival(&mut self) {
        if let Some(mix) = &self.work.traffic {
            let after = Duration::from_secs_f64(-(1.0 - self.rng.f64()).ln() / mix.per_second);
            let number = self.work.arrivals;
            self.push(after, Item::Arrival { number });
        }
    }

    pub(super) fn arrive(&mut self, number: u64) {
        if number != self.work.arrivals {
            return;
        }
        let Some(mix) = self.work.traffic.clone() else { return };
        let mut left = self.rng.f64() * mix.weights.iter().map(|(_, weight)| weight).sum::<f64>();
        let drawn = mix.weights.iter().find(|(_, weight)| {
            left -= weight;
            left < 0.0
        });
        let app = drawn.unwrap_or(&mix.weights[0]).0;
        let is_idempotent = self.rng.f64() < mix.idempotent;
        // A client whose connection is refused takes the next node.
        let entries: Vec<_> =
            mix.entries.iter().copied().filter(|node| self.nodes[*node].membership.is_some()).collect();
        if let Some(entry) = self.rng.choice(entries) {
            let call = self.work.calls.len();
            self.work.calls.push(Call {
                app,
                entry,
                is_idempotent,
                began: self.now,
                deadline: self.now + mix.timeout,
                executions: 0,
                attempt: 0,
                end: None,
                attempts: Attempts::default(),
                room: Local::Absent,
                at: None,
            });
            let life = Some(self.nodes[entry].life);
            if let Some(state) = self.nodes[entry].entry.as_mut() {
                state.open.insert(call);
            }
            self.push(mix.timeout, Item::Task { node: entry, life, task: Task::Deadline { call } });
            self.push(Duration::ZERO, Item::Task { node: entry, life, task: Task::Begin { call } });
        }
        self.next_arrival();
    }

    pub(super) fn perform(&mut self, node: usize, task: Task) {
        match task {
            Task::Tick => self.tick(node),
            Task::Hosts { app, record } => self.serve(node, app, &record),
            Task::Told { by, records, times } => self.told(node, by, records, times),
            Task::Fetch(fetch) => self.fetch(node, fetch),
            Task::Fetching(fetch, peer) => self.fetching(node, fetch, peer),
            Task::Fetched { fetch, is_here } => self.fetched(node, fetch, is_here),
            Task::Kept { app } => self.kept(node, app),
            Task::Drained => self.drained(node),
            Task::Withdrawn { app } => self.withdrawn(node, app),
            Task::Asked { by, app } => self.asked(node, by, app),
            Task::Instance { app, pool } => self.step(node, app, pool, |pool, steps| pool.instance_started(steps)),
            Task::Finished { app, pool, job } => {
                self.step(node, app, pool, |pool, steps| pool.finished(steps));
                self.ran(node, job);
            }
            Task::Begin { call } => self.begin(call),
            Task::Request { job, life } => self.requested(node, job, life),
            Task::Reply { from, job, answer } => self.replied(node, from, job, answer),
            Task::Cancel { job } => {
                let app = self.work.calls[job.call].app;
                if let Some(pool) = self.nodes[node].hosting.as_mut().and_then(|hosting| hosting.pool_mut(app)) {
                    pool.cancel(job);
                }
            }
            Task::Deadline { call } => self.time_out(call),
            Task::NoRoute { call } => {
                let is_waiting = self.nodes[node].entry.as_mut().is_some_and(|entry| entry.waiting.remove(&call));
                if is_waiting {
                    self.end(call, End::Failed("Throttled".to_owned()));
                }
            }
        }
    }
}
