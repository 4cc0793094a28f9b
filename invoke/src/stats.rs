use std::{
    sync::{
        OnceLock,
        atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
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
            Error::LoopDetected { .. } | Error::KeyReused { .. } => Self::Refused,
            Error::FunctionFailed(_) => Self::Failed,
            Error::Throttled { .. } | Error::Draining => Self::Throttled,
            Error::DeadlineExceeded { .. } => Self::Timeout,
            Error::StartFailed { .. } | Error::InstanceLost { .. } | Error::OutcomeUnknown { .. } => Self::Lost,
            Error::PeerUnreachable { .. } | Error::Internal { .. } => Self::Lost,
        }
    }
}

/// Upper bounds of the latency histogram, in microseconds; a last bucket takes the rest.
pub const LATENCY_BUCKETS: [u64; 12] =
    [250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 100_000, 250_000, 1_000_000, 5_000_000, 30_000_000];

/// Counters of one function. Each thread writes to a part of its own, so that threads do not wait for
/// each other's cache lines; readers add the parts up.
#[derive(Debug, Default)]
pub struct Stats {
    /// Made when they are first written to: most functions are called on few threads.
    shards: [OnceLock<Box<Shard>>; SHARDS],
}

/// Threads that count without sharing; further threads share with these.
const SHARDS: usize = 16;

/// Relaxed atomics: cheap to write, read only by metrics.
#[derive(Debug, Default)]
// Two cache lines: processors fetch them in pairs.
#[repr(align(128))]
struct Shard {
    calls: [AtomicU64; Outcome::ALL.len()],
    latency: [AtomicU64; LATENCY_BUCKETS.len() + 1],
    latency_sum_us: AtomicU64,
}

impl Stats {
    /// Counts one ended call that took `elapsed`.
    pub fn record(&self, outcome: Outcome, elapsed: Duration) {
        static THREADS: AtomicUsize = AtomicUsize::new(0);
        thread_local! {
            static MINE: usize = THREADS.fetch_add(1, Relaxed) % SHARDS;
        }
        let shard = self.shards[MINE.with(|&mine| mine)].get_or_init(Box::default);
        let us = u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX);
        shard.calls[outcome as usize].fetch_add(1, Relaxed);
        shard.latency[LATENCY_BUCKETS.partition_point(|&bound| bound < us)].fetch_add(1, Relaxed);
        shard.latency_sum_us.fetch_add(us, Relaxed);
    }

    /// Calls that ended so.
    pub fn calls(&self, outcome: Outcome) -> u64 {
        self.sum(|shard| &shard.calls[outcome as usize])
    }

    /// Calls per latency bucket (not cumulative); the last one is above all bounds.
    pub fn latency(&self) -> [u64; LATENCY_BUCKETS.len() + 1] {
        std::array::from_fn(|index| self.sum(|shard| &shard.latency[index]))
    }

    /// The sum of all latencies.
    pub fn latency_sum(&self) -> Duration {
        Duration::from_micros(self.sum(|shard| &shard.latency_sum_us))
    }

    fn sum(&self, counter: impl Fn(&Shard) -> &AtomicU64) -> u64 {
        self.shards.iter().filter_map(OnceLock::get).map(|shard| counter(shard).load(Relaxed)).sum()
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

    #[test]
    fn counts_of_all_threads_add_up() {
        let stats = Stats::default();
        std::thread::scope(|scope| {
            for _ in 0..2 * SHARDS {
                scope.spawn(|| stats.record(Outcome::Ok, Duration::from_millis(1)));
            }
        });
        assert_eq!(stats.calls(Outcome::Ok), 2 * SHARDS as u64);
        assert_eq!(stats.latency_sum(), Duration::from_millis(2 * SHARDS as u64));
    }
}
