use std::time::{Duration, Instant};

/// How many calls may be sent a second time: a share of those that were sent, so that retries cannot multiply the load
/// of a mesh that fails because of it. A token bucket, as [Finagle's][finagle].
///
/// [finagle]: https://twitter.github.io/finagle/guide/Clients.html#retries
#[derive(Debug)]
pub struct RetryBudget {
    /// Tokens for each call.
    share: f64,
    /// The most tokens there can be.
    burst: f64,
    /// Tokens for each second, so that a node with few calls can retry at all.
    per_second: f64,
    tokens: f64,
    at: Instant,
}

impl RetryBudget {
    /// 10 % of the calls and one more each second; a hundred at once, for all that were in flight to a node that died.
    pub fn new(now: Instant) -> Self {
        Self { share: 0.1, burst: 100.0, per_second: 1.0, tokens: 100.0, at: now }
    }

    /// A call is sent for the first time.
    pub fn call(&mut self) {
        self.tokens = (self.tokens + self.share).min(self.burst);
    }

    /// Whether a call may be sent again; if so, it counts.
    pub fn retry(&mut self, now: Instant) -> bool {
        let passed = now.saturating_duration_since(self.at);
        // Whole milliseconds only: rounding must not make tokens.
        if passed >= Duration::from_millis(1) {
            self.tokens = (self.tokens + passed.as_secs_f64() * self.per_second).min(self.burst);
            self.at = now;
        }
        let is_allowed = self.tokens >= 1.0;
        if is_allowed {
            self.tokens -= 1.0;
        }
        is_allowed
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_dead_node_s_calls_are_retried_but_no_storm() {
        let now = Instant::now();
        let mut budget = RetryBudget::new(now);
        assert_eq!((0..1_000).filter(|_| budget.retry(now)).count(), 100);
        (0..1_000).for_each(|_| budget.call());
        assert!((99..=100).contains(&(0..1_000).filter(|_| budget.retry(now)).count()), "10 % of them");
        assert!(budget.retry(now + Duration::from_secs(1)));
    }

    proptest! {
        #[test]
        fn retries_stay_within_their_share(events in prop::collection::vec((any::<bool>(), 0..50_u64), 0..500)) {
            let start = Instant::now();
            let (mut now, mut budget, mut calls, mut retries) = (start, RetryBudget::new(start), 0, 0);
            for (is_call, ms) in events {
                now += Duration::from_millis(ms);
                if is_call {
                    budget.call();
                    calls += 1;
                } else if budget.retry(now) {
                    retries += 1;
                }
            }
            let most = 100.0 + 0.1 * f64::from(calls) + (now - start).as_secs_f64() + 1e-6;
            prop_assert!(f64::from(retries) <= most, "{} of {}", retries, most);
        }
    }
}
