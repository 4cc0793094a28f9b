use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use fnmesh_invoke::Error;
use rustc_hash::FxBuildHasher;

use super::Config;
use crate::NodeId;

/// How often the median of all peers is computed anew.
const MEDIAN_AGE: Duration = Duration::from_millis(100);
/// Figures of a peer that has had no calls for so long are worth nothing, and it may be gone for good.
const KEPT: Duration = Duration::from_secs(600);

/// What the end of a call says of the peer that ran it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It answered; what the function itself raised is an answer.
    Answered,
    /// It has too much to do, or took too long.
    Busy,
    /// It did not do its part.
    Failed,
    /// The caller gave up; it says nothing.
    Cancelled,
}

impl Outcome {
    /// What a failed call says of the peer.
    pub fn of(error: &Error) -> Self {
        match error {
            Error::UnknownFunction { .. } | Error::InvalidInput { .. } | Error::TooLarge { .. } => Self::Answered,
            Error::FunctionFailed(_) | Error::LoopDetected { .. } | Error::KeyReused { .. } => Self::Answered,
            // Who asks for the impossible shall not eject peers by it: a deadline may just have been too short.
            Error::Throttled { .. } | Error::Draining | Error::DeadlineExceeded { .. } => Self::Busy,
            Error::StartFailed { .. } | Error::InstanceLost { .. } => Self::Failed,
            Error::PeerUnreachable { .. } | Error::OutcomeUnknown { .. } | Error::Internal { .. } => Self::Failed,
        }
    }
}

/// What is known of one function's peers.
#[derive(Debug, Default)]
pub(super) struct FunctionStats {
    peers: HashMap<NodeId, PeerStats, FxBuildHasher>,
    median: Option<(Instant, f64)>,
    used_at: Option<Instant>,
    /// When it was seen last whether there are figures that are worth nothing.
    tidied_at: Option<Instant>,
}

/// What is known of one peer.
#[derive(Debug)]
pub(super) struct PeerStats {
    pending: u32,
    /// Peak EWMA in seconds, and when it was updated.
    ewma: Option<(f64, Instant)>,
    /// Failures since the last answer.
    failures: u32,
    /// Calls and failures in this half of the window, and in the one before.
    halves: [Half; 2],
    half_began: Instant,
    /// Until when it gets no calls.
    ejected_until: Option<Instant>,
    /// For how long it was ejected the last time.
    ejected_for: Duration,
}

#[derive(Clone, Copy, Debug, Default)]
struct Half {
    calls: u32,
    failures: u32,
}

impl FunctionStats {
    pub(super) fn peer(&self, peer: NodeId) -> Option<&PeerStats> {
        self.peers.get(&peer)
    }

    pub(super) fn sent(&mut self, peer: NodeId, now: Instant, config: &Config) {
        self.used_at = Some(now);
        self.tidy(now);
        let stats = self.peers.entry(peer).or_insert_with(|| PeerStats::new(now));
        stats.roll(now, config);
        stats.pending += 1;
    }

    pub(super) fn done(&mut self, peer: NodeId, outcome: Outcome, latency: Duration, now: Instant, config: &Config) {
        let slow = config.failure_latency.as_secs_f64().max(4.0 * self.median(now, config));
        let Some(stats) = self.peers.get_mut(&peer) else { return };
        stats.pending = stats.pending.saturating_sub(1);
        stats.roll(now, config);
        let latency = latency.as_secs_f64();
        match outcome {
            Outcome::Answered => {
                stats.observe(latency, now, config);
                stats.answered(now, config);
            }
            // A quick refusal must not look like a quick answer.
            Outcome::Busy => stats.observe(latency.max(slow), now, config),
            Outcome::Failed => {
                stats.observe(latency.max(slow), now, config);
                stats.failed(now, config);
            }
            Outcome::Cancelled => {}
        }
    }

    /// Forgets peers that have not been called for long, now and then.
    fn tidy(&mut self, now: Instant) {
        let tidied_at = *self.tidied_at.get_or_insert(now);
        if now.saturating_duration_since(tidied_at) >= KEPT {
            self.peers.retain(|_, stats| !stats.is_stale(now));
            self.tidied_at = Some(now);
        }
    }

    pub(super) fn is_idle(&self) -> bool {
        self.peers.values().all(|stats| stats.pending == 0)
    }

    pub(super) fn used_at(&self) -> Option<Instant> {
        self.used_at
    }

    /// The median of the peers' averages; 0 if none is known.
    pub(super) fn median(&mut self, now: Instant, config: &Config) -> f64 {
        if let Some((at, median)) = self.median
            && now.saturating_duration_since(at) < MEDIAN_AGE
        {
            return median;
        }
        let mut known: Vec<_> = self.peers.values().filter_map(|stats| stats.ewma(now, config)).collect();
        let middle = known.len() / 2;
        let median = if known.is_empty() { 0.0 } else { *known.select_nth_unstable_by(middle, f64::total_cmp).1 };
        // What is not known yet may be so with the next answer.
        self.median = (!known.is_empty()).then_some((now, median));
        median
    }
}

impl PeerStats {
    fn new(now: Instant) -> Self {
        Self {
            pending: 0,
            ewma: None,
            failures: 0,
            halves: [Half::default(); 2],
            half_began: now,
            ejected_until: None,
            ejected_for: Duration::ZERO,
        }
    }

    pub(super) fn pending(&self) -> u32 {
        self.pending
    }

    /// Seconds an answer takes, as it seems now: each moment without an answer counts like one in no time.
    pub(super) fn ewma(&self, now: Instant, config: &Config) -> Option<f64> {
        self.ewma.map(|(ewma, at)| ewma * fading(now.saturating_duration_since(at), config))
    }

    pub(super) fn is_ejected(&self, now: Instant) -> bool {
        self.ejected_until.is_some_and(|until| now < until)
    }

    fn is_stale(&self, now: Instant) -> bool {
        // Each call begins another half of the window when it is time.
        self.pending == 0 && now.saturating_duration_since(self.half_began) >= KEPT
    }

    fn observe(&mut self, latency: f64, now: Instant, config: &Config) {
        let ewma = match self.ewma {
            Some((old, at)) if latency < old => {
                let weight = fading(now.saturating_duration_since(at), config);
                old * weight + latency * (1.0 - weight)
            }
            _ => latency,
        };
        self.ewma = Some((ewma, now));
    }

    fn answered(&mut self, now: Instant, config: &Config) {
        self.failures = 0;
        self.halves[0].calls += 1;
        // It has shown for as long as it was ejected that it works again.
        if let Some(until) = self.ejected_until
            && now.saturating_duration_since(until) >= self.ejected_for.max(config.ejection)
        {
            (self.ejected_until, self.ejected_for) = (None, Duration::ZERO);
        }
    }

    fn failed(&mut self, now: Instant, config: &Config) {
        self.failures += 1;
        self.halves[0].calls += 1;
        self.halves[0].failures += 1;
        let calls: u32 = self.halves.iter().map(|half| half.calls).sum();
        let failures: u32 = self.halves.iter().map(|half| half.failures).sum();
        let is_bad = self.failures >= config.failures || (calls >= config.min_calls && failures * 2 > calls);
        // Calls that were sent before it was ejected say nothing new.
        if is_bad && !self.is_ejected(now) {
            self.ejected_for = (self.ejected_for * 2).clamp(config.ejection, config.max_ejection);
            self.ejected_until = Some(now + self.ejected_for);
            self.halves = [Half::default(); 2];
            // When it is back the first failure is enough.
            self.failures = config.failures.saturating_sub(1);
        }
    }

    /// Begins another half of the window when it is time.
    fn roll(&mut self, now: Instant, config: &Config) {
        let age = now.saturating_duration_since(self.half_began);
        if age >= config.window / 2 {
            let before = if age < config.window { self.halves[0] } else { Half::default() };
            self.halves = [Half::default(), before];
            self.half_began = now;
        }
    }
}

fn fading(age: Duration, config: &Config) -> f64 {
    (-age.as_secs_f64() / config.decay.as_secs_f64()).exp()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LATENCY: Duration = Duration::from_millis(2);

    fn id(peer: u32) -> NodeId {
        let mut bytes = [0; 16];
        bytes[..4].copy_from_slice(&peer.to_be_bytes());
        NodeId::from_bytes(bytes)
    }

    #[test]
    fn peers_that_are_gone_leave_nothing_behind() {
        let (config, mut now) = (Config::default(), Instant::now());
        let mut stats = FunctionStats::default();
        let (stays, waits) = (id(0), id(1));
        stats.sent(waits, now, &config);
        let mut most = 0;
        // Each minute another node takes the place of one that is gone.
        for peer in 2..1_000 {
            now += Duration::from_secs(60);
            for peer in [stays, id(peer)] {
                stats.sent(peer, now, &config);
                stats.done(peer, Outcome::Answered, LATENCY, now, &config);
            }
            most = most.max(stats.peers.len());
        }
        assert!(most <= 24, "figures of {most} peers");
        assert!(stats.peer(stays).is_some_and(|peer| peer.ewma(now, &config).is_some()), "it is still called");
        assert_eq!(stats.peer(waits).map(PeerStats::pending), Some(1), "its call has not ended");
    }
}
