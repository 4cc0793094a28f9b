//! What a pool tells of itself, and why it refuses calls.

use std::{
    sync::atomic::Ordering::Relaxed,
    time::{Duration, Instant},
};

use fnmesh_invoke::{CircuitState, Error, Failure, PoolStatus};

use super::{
    Pool, RETRY_SOON, lock,
    plan::{Circuit, Plan},
};

/// What the owner of a pool knows and others want to.
#[derive(Debug)]
pub(super) struct Published {
    want: usize,
    starting: usize,
    start_time: Option<Duration>,
    circuit: Circuit,
    failures: u32,
    /// The last failed start or death since an instance proved itself.
    failure: Option<Failure>,
}

impl Default for Published {
    fn default() -> Self {
        Self { want: 0, starting: 0, start_time: None, circuit: Circuit::Closed, failures: 0, failure: None }
    }
}

/// Calls that waited because no instance was there.
#[derive(Debug, Default)]
pub(super) struct ColdStarts {
    calls: u64,
    total: Duration,
    last: Duration,
}

impl ColdStarts {
    pub(super) fn add(&mut self, waited: Duration) {
        self.calls += 1;
        self.total += waited;
        self.last = waited;
    }
}

impl Pool {
    /// Publishes what the plan says; `failure` is the last one.
    pub(crate) fn publish(&self, plan: &Plan, failure: Option<&Failure>, now: Instant) {
        let (circuit, failures) = (plan.circuit(now), plan.failures());
        self.on_probation.store(plan.on_probation(), Relaxed);
        self.is_spread.store(plan.is_spread(), Relaxed);
        self.is_exhausted.store(plan.is_exhausted(), Relaxed);
        let published = Published {
            want: plan.want(),
            starting: plan.starting(),
            start_time: plan.start_time(),
            circuit,
            failures,
            failure: failure.filter(|_| failures > 0).cloned(),
        };
        let before = std::mem::replace(&mut *lock(&self.published), published);
        if circuit == before.circuit {
            return;
        }
        if let Circuit::Open { .. } = circuit {
            // Those that wait are to be refused.
            self.queue.wake_many(usize::MAX);
        }
    }

    /// Why no call is served now, after failures, as long as the next try lies ahead.
    pub(crate) fn refused(&self, now: Instant) -> Option<Error> {
        let published = lock(&self.published);
        let Circuit::Open { until } = published.circuit else { return None };
        let retry_after = until.checked_duration_since(now).filter(|left| !left.is_zero())?;
        let mut failure = published.failure.clone().unwrap_or_default();
        let (times, wait) = (published.failures, retry_after.as_secs_f64());
        failure.message = format!("{} ({times} failures in a row; the next try is in {wait:.1} s)", failure.message);
        Some(Error::StartFailed { app: self.app.to_string(), failure: Box::new(failure), retry_after })
    }

    pub(crate) fn status(&self) -> PoolStatus {
        let now = Instant::now();
        let instances: Vec<_> = lock(&self.instances).values().map(|instance| instance.status(now)).collect();
        let length = self.queue.length();
        let cold = lock(&self.cold_starts);
        let published = lock(&self.published);
        let (circuit, retry_after) = match published.circuit {
            Circuit::Closed => (CircuitState::Closed, None),
            Circuit::HalfOpen => (CircuitState::HalfOpen, None),
            Circuit::Open { until } if until <= now => (CircuitState::HalfOpen, None),
            Circuit::Open { until } => (CircuitState::Open, Some((until - now).max(RETRY_SOON))),
        };
        PoolStatus {
            language: self.language,
            in_flight: instances.iter().map(|instance| instance.in_flight).sum(),
            instances,
            starting: published.starting,
            want: published.want,
            min_instances: self.bounds.min,
            max_instances: self.bounds.max,
            queued: length.calls,
            queued_bytes: length.bytes,
            max_queued: self.queue.most_calls(now),
            max_queued_bytes: self.max_queue_bytes,
            standby: Some(self.standby.load(Relaxed)).filter(|pid| *pid > 0),
            started: self.started.load(Relaxed),
            lost: self.lost.load(Relaxed),
            start_ms: published.start_time.map(precise_ms),
            cold_starts: cold.calls,
            cold_start_total_ms: precise_ms(cold.total),
            cold_start_last_ms: (cold.calls > 0).then(|| precise_ms(cold.last)),
            circuit,
            failures: published.failures,
            failure: published.failure.clone(),
            retry_after_ms: retry_after.map(ms),
        }
    }
}

/// To the microsecond: an instance may be there in less than a millisecond.
fn precise_ms(time: Duration) -> f64 {
    time.as_micros() as f64 / 1e3
}

fn ms(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
