use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use crate::Error;

/// How a call ended, as counters and metrics group it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// A result.
    Ok,
    /// The caller's fault: unknown function, bad input, too large.
    Refused,
    /// The function raised.
    Failed,
    /// No room: throttled or draining.
    Throttled,
    /// The deadline passed.
    Timeout,
    /// The worker died, could not start, or fnmesh failed.
    Lost,
    /// The caller went away.
    Cancelled,
}

impl Outcome {
    /// All of them, in the order [`Stats::calls`] uses.
    pub const ALL: [Self; 7] =
        [Self::Ok, Self::Refused, Self::Failed, Self::Throttled, Self::Timeout, Self::Lost, Self::Cancelled];

    /// The metric label.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Refused => "refused",
            Self::Failed => "failed",
            Self::Throttled => "throttled",
            Self::Timeout => "timeout",
            Self::Lost => "lost",
            Self::Cancelled => "cancelled",
        }
    }
}

impl From<&Error> for Outcome {
    fn from(error: &Error) -> Self {
        match error {
            Error::UnknownFunction { .. } | Error::InvalidInput { .. } | Error::TooLarge { .. } => Self::Refused,
            Error::LoopDetected { .. } => Self::Refused,
            Error::FunctionFailed(_) => Self::Failed,
            Error::Throttled { .. } | Error::Draining => Self::Throttled,
            Error::DeadlineExceeded { .. } => Self::Timeout,
            Error::StartFailed { .. } | Error::InstanceLost { .. } => Self::Lost,
            Error::PeerUnreachable { .. } | Error::Internal { .. } => Self::Lost,
        }
    }
}

/// Upper bounds of the latency histogram, in microseconds; a last bucket takes the rest.
pub const LATENCY_BUCKETS: [u64; 12] =
    [250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 100_000, 250_000, 1_000_000, 5_000_000, 30_000_000];

/// Counters of one function. Relaxed atomics: cheap to write, read only by metrics.
#[derive(Debug, Default)]
pub struct Stats {
    calls: [AtomicU64; Outcome::ALL.len()],
    latency: [AtomicU64; LATENCY_BUCKETS.len() + 1],
    latency_sum_us: AtomicU64,
}

impl Stats {
    /// Counts one ended call that took `elapsed`.
    pub fn record(&self, outcome: Outcome, elapsed: Duration) {
        let us = u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX);
        self.calls[outcome as usize].fetch_add(1, Relaxed);
        self.latency[LATENCY_BUCKETS.partition_point(|&bound| bound < us)].fetch_add(1, Relaxed);
        self.latency_sum_us.fetch_add(us, Relaxed);
    }

    /// Calls that ended so.
    pub fn calls(&self, outcome: Outcome) -> u64 {
        self.calls[outcome as usize].load(Relaxed)
    }

    /// Calls per latency bucket (not cumulative); the last one is above all bounds.
    pub fn latency(&self) -> [u64; LATENCY_BUCKETS.len() + 1] {
        std::array::from_fn(|index| self.latency[index].load(Relaxed))
    }

    /// The sum of all latencies.
    pub fn latency_sum(&self) -> Duration {
        Duration::from_micros(self.latency_sum_us.load(Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bucket_bounds_are_inclusive() {
        let stats = Stats::default();
        stats.record(Outcome::Ok, Duration::from_micros(250));
        stats.record(Outcome::Failed, Duration::from_micros(251));
        stats.record(Outcome::Ok, Duration::from_secs(3_600));
        let latency = stats.latency();
        assert_eq!((latency[0], latency[1], latency[LATENCY_BUCKETS.len()]), (1, 1, 1));
        assert_eq!((stats.calls(Outcome::Ok), stats.calls(Outcome::Failed)), (2, 1));
    }
}
