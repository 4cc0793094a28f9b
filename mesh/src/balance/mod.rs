//! Where a call runs. Pure: the clock is passed in, and each thread owns its [`Balancer`], so that nothing is locked.
//!
//! Here, unless the pool is saturated and a peer is clearly less busy: where all are, calls stay. Else at the
//! cheaper of two peers of the own zone drawn at random ([power of two choices][p2c]), or at one from elsewhere if that
//! is less than half as costly. A peer's cost is its peak EWMA of latency times the calls it has to do first: those this
//! thread has in flight there, those the peer reported, and the new one. Peak EWMA is [Finagle's][finagle]; the update
//! is that of [`tower::load::peak_ewma`][tower], linkerd's: a slower answer counts at once, a faster one by and by, and
//! silence makes a peer look better until it is tried again.
//!
//! [p2c]: https://www.eecs.harvard.edu/~michaelm/postscripts/handbook2001.pdf
//! [finagle]: https://twitter.github.io/finagle/guide/Clients.html#power-of-two-choices-p2c-least-loaded
//! [tower]: https://docs.rs/tower/latest/src/tower/load/peak_ewma.rs.html

mod budget;
mod retry;
mod span;
mod stats;
#[cfg(test)]
mod tests;

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

pub use budget::RetryBudget;
pub use retry::{Attempts, may_retry};
use rustc_hash::FxBuildHasher;
use span::Span;
pub use stats::Outcome;
use stats::{FunctionStats, PeerStats};

use crate::{
    NodeId,
    membership::Load,
    table::{FunctionKey, Peer},
};

/// How peers are chosen.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// How fast old latencies fade: after this long an answer counts for a third. Default 10 s.
    pub decay: Duration,
    /// What a failed call counts as at least. Default 1 s; four times the median of the peers, if that is more.
    pub failure_latency: Duration,
    /// Failures in a row that eject a peer. Default 5.
    pub failures: u32,
    /// Calls in [`Self::window`] from which on more than half of them failing ejects a peer. Default 10.
    pub min_calls: u32,
    /// How far back failures count. Default 10 s.
    pub window: Duration,
    /// How long a peer is ejected for the first time; it doubles each further time. Default 1 s.
    pub ejection: Duration,
    /// How long at most. Default 30 s.
    pub max_ejection: Duration,
    /// A peer of the own zone is preferred to one that is not more than so many times cheaper. Default 2.
    pub zone_factor: f64,
    /// Functions of which figures are kept. Default 10,000.
    pub max_functions: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            decay: Duration::from_secs(10),
            failure_latency: Duration::from_secs(1),
            failures: 5,
            min_calls: 10,
            window: Duration::from_secs(10),
            ejection: Duration::from_secs(1),
            max_ejection: Duration::from_secs(30),
            zone_factor: 2.0,
            max_functions: 10_000,
        }
    }
}

/// Whether the own node can run a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Local {
    /// It does not serve the function.
    Absent,
    /// It has room.
    Ready,
    /// It serves the function, but a call would have to wait; its app is so busy here, as it would be told to peers.
    Saturated(Load),
}

/// Where to run a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice {
    /// Here.
    Here,
    /// There.
    Peer(NodeId),
}

/// What one thread knows of the peers it calls.
#[derive(Debug)]
pub struct Balancer {
    config: Config,
    node: NodeId,
    zone: Box<str>,
    rng: fastrand::Rng,
    functions: HashMap<FunctionKey, FunctionStats, FxBuildHasher>,
}

impl Balancer {
    /// The balancer of a thread of `node`, which is in `zone`. `seed` decides all that is left to chance.
    pub fn new(config: Config, node: NodeId, zone: &str, seed: u64) -> Self {
        let rng = fastrand::Rng::with_seed(seed);
        Self { config, node, zone: zone.into(), rng, functions: HashMap::default() }
    }

    /// Where a call of `function` should run, given its `peers` as [`crate::table::VersionRoutes::peers`] has them.
    /// Nodes in `tried` failed it already, this one among them if it did. `None`: nobody is left to try.
    ///
    /// Tell the outcome: [`Self::sent`] when the call is on its way to a peer, [`Self::done`] when it has ended.
    pub fn choose(
        &mut self,
        function: FunctionKey,
        peers: &[Peer],
        local: Local,
        tried: &[NodeId],
        now: Instant,
    ) -> Option<Choice> {
        let below = match local {
            Local::Absent => None,
            _ if tried.contains(&self.node) => None,
            Local::Ready => return Some(Choice::Here),
            Local::Saturated(own) => Some(own),
        };
        let zone = Span::of_zone(peers, &self.zone);
        let all = Span::all(peers);
        let draw = Draw { function, peers, tried, below, now };
        let first = self.draw(&draw, zone, None, Peers::Healthy);
        let first = first.or_else(|| self.draw(&draw, all, None, Peers::Healthy));
        if first.is_none() && below.is_some() {
            return Some(Choice::Here);
        }
        // Better an ejected peer than none.
        let first = first.or_else(|| self.draw(&draw, all, None, Peers::Any))?;
        let second = self.draw(&draw, zone, Some(first), Peers::Healthy);
        let farther = self.draw(&draw, zone.others(), Some(first), Peers::Healthy);
        let rivals = second.into_iter().chain(farther);
        let best = rivals.fold(first, |best, rival| self.cheaper(&draw, best, rival));
        Some(Choice::Peer(peers[best].node))
    }

    /// A call of `function` is on its way to `peer`.
    pub fn sent(&mut self, function: FunctionKey, peer: NodeId, now: Instant) {
        self.make_room(function);
        let config = &self.config;
        self.functions.entry(function).or_default().sent(peer, now, config);
    }

    /// A call that was sent has ended after `latency`. Call it once for each [`Self::sent`], also for calls that were
    /// cancelled.
    pub fn done(&mut self, function: FunctionKey, peer: NodeId, outcome: Outcome, latency: Duration, now: Instant) {
        if let Some(stats) = self.functions.get_mut(&function) {
            stats.done(peer, outcome, latency, now, &self.config);
        }
    }

    /// Whether this thread sends `peer` no calls of `function` for now, because too many failed.
    pub fn is_ejected(&self, function: FunctionKey, peer: NodeId, now: Instant) -> bool {
        self.peer(function, peer).is_some_and(|stats| stats.is_ejected(now))
    }

    fn peer(&self, function: FunctionKey, peer: NodeId) -> Option<&PeerStats> {
        self.functions.get(&function)?.peer(peer)
    }

    /// One of a span's peers at random, other than `besides`, that may be called.
    fn draw(&mut self, draw: &Draw<'_>, span: Span, besides: Option<usize>, which: Peers) -> Option<usize> {
        let may = |index: &usize| {
            let peer = &draw.peers[*index];
            let is_new = Some(*index) != besides && peer.node != self.node && !draw.tried.contains(&peer.node);
            let may_ever = is_new && draw.below.is_none_or(|own| is_worth_it(own, peer.load()));
            may_ever && (which == Peers::Any || !self.is_out(draw, *index))
        };
        let mut rng = self.rng.clone();
        // Nearly always the first draw is good; looking at all peers would cost more than the rest of the choice.
        let lucky = (0..4).filter(|_| span.len() > 0).map(|_| span.nth(rng.usize(..span.len()))).find(may);
        let drawn =
            lucky.or_else(|| rng.choice((0..span.len()).map(|place| span.nth(place)).filter(may).collect::<Vec<_>>()));
        self.rng = rng;
        drawn
    }

    /// Whether a peer is ejected and its ejection counts: never do those of more than half of the peers.
    fn is_out(&self, draw: &Draw<'_>, index: usize) -> bool {
        let is_ejected = |peer: &&Peer| self.is_ejected(draw.function, peer.node, draw.now);
        is_ejected(&&draw.peers[index]) && {
            let before = draw.peers[..index].iter().filter(is_ejected).count();
            before < draw.peers.len() / 2
        }
    }

    fn cheaper(&mut self, draw: &Draw<'_>, a: usize, b: usize) -> usize {
        let (peer_a, peer_b) = (&draw.peers[a], &draw.peers[b]);
        let mut cost_a = self.cost(draw.function, peer_a, draw.now);
        let mut cost_b = self.cost(draw.function, peer_b, draw.now);
        match (*peer_a.zone == *self.zone, *peer_b.zone == *self.zone) {
            (true, false) => cost_b *= self.config.zone_factor,
            (false, true) => cost_a *= self.config.zone_factor,
            _ => {}
        }
        if cost_b < cost_a { b } else { a }
    }

    /// Seconds until an answer of the peer may be expected, roughly.
    fn cost(&mut self, function: FunctionKey, peer: &Peer, now: Instant) -> f64 {
        let config = &self.config;
        let Some(stats) = self.functions.get_mut(&function) else { return 0.0 };
        let (ewma, pending) = match stats.peer(peer.node) {
            Some(known) => (known.ewma(now, config), known.pending()),
            None => (None, 0),
        };
        let ewma = ewma.unwrap_or_else(|| stats.median(now, config));
        // While nothing is known the calls in flight decide.
        let ewma = ewma.max(1e-6);
        // The report is a share of the peer's capacity; as calls it says how much longer than an idle one it takes.
        ewma * (f64::from(pending) + peer.load().ratio() + 1.0)
    }

    fn make_room(&mut self, function: FunctionKey) {
        if self.functions.len() < self.config.max_functions || self.functions.contains_key(&function) {
            return;
        }
        // What has calls in flight stays, or their end could not be counted; a tenth at a time, or each call would
        // look at all functions.
        let mut idle: Vec<_> = self.functions.iter().filter(|(_, stats)| stats.is_idle()).collect();
        idle.sort_unstable_by_key(|(_, stats)| stats.used_at());
        let oldest: Vec<_> = idle.iter().take(1 + self.config.max_functions / 10).map(|(key, _)| **key).collect();
        for key in oldest {
            self.functions.remove(&key);
        }
    }
}

/// Whether a call that would wait at a node so busy had better go to a peer so busy: it could begin there, or would wait
/// for clearly less. Figures of peers are a moment old, so that nodes which are alike would send each other half of
/// their calls for nothing.
fn is_worth_it(own: Load, peer: Load) -> bool {
    peer < own && peer < Load::FULL.max(Load(own.0 - own.0 / 8))
}

/// What is drawn from.
struct Draw<'a> {
    function: FunctionKey,
    peers: &'a [Peer],
    tried: &'a [NodeId],
    /// Only peers that are less busy than this.
    below: Option<Load>,
    now: Instant,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Peers {
    /// Those that are not ejected.
    Healthy,
    /// All.
    Any,
}
