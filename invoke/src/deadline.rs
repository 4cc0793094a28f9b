use std::time::{Duration, Instant};

/// When a call must have ended. Absolute on one machine; crosses machines as remaining budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Deadline(Instant);

impl Deadline {
    /// The deadline `timeout` after `now`; a sum past the clock's range is cut to a day from `now`.
    pub fn after(now: Instant, timeout: Duration) -> Self {
        const DAY: Duration = Duration::from_secs(86_400);
        Self(now.checked_add(timeout).unwrap_or_else(|| now + DAY))
    }

    /// What is left at `now`; zero once passed.
    pub fn remaining(self, now: Instant) -> Duration {
        self.0.saturating_duration_since(now)
    }

    /// Whether it has passed at `now`.
    pub fn is_over(self, now: Instant) -> bool {
        self.0 <= now
    }

    /// The point in time itself.
    pub fn instant(self) -> Instant {
        self.0
    }
}
