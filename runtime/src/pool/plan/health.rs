//! What failed starts and deaths mean for the next start, and for calls meanwhile.

use std::time::{Duration, Instant};

/// First pause after a failure that no call explains; doubles with each further one.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// The longest pause.
const MAX_PAUSE: Duration = Duration::from_secs(30);
/// Deaths in a row that no call explains, from which on calls are refused until the next try.
const OPEN_AFTER: u32 = 3;
/// Failed starts in a row from which on they are. A single one may be the machine's fault: calls wait for the next try.
const OPEN_AFTER_STARTS: u32 = 2;
/// Instances in a row that died on their first calls, from which on the next takes one call at a time: the deadly
/// call then dies alone, and the others are answered.
const PROBATION_AFTER: u32 = 3;
/// Instances in a row that died on their first call, of whatever function: it is the app then, not a function.
const HOPELESS_AFTER: u32 = 10;
/// From here on instances that die on their first calls are replaced with a pause. Calls wait meanwhile.
const PAUSE_AFTER: u32 = 5;
/// The longest pause while single calls explain the deaths.
const MAX_DEADLY_PAUSE: Duration = Duration::from_millis(250);
/// An instance that has lived so long has started well, even if nobody called.
const STABLE: Duration = Duration::from_secs(30);

/// How a ready instance died.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Death {
    /// Calls it had.
    pub(crate) in_flight: usize,
    /// Whether it had answered a call before.
    pub(crate) answered: bool,
    /// The function that was called last.
    pub(crate) function: u16,
}

/// Whether a pool takes calls, with regard to failures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Circuit {
    /// As usual.
    Closed,
    /// No instance is there; calls are refused until the next try.
    Open {
        /// When that is.
        until: Instant,
    },
    /// An instance starts, or is there but has not proved itself.
    HalfOpen,
}

/// Which functions were called when instances died on a single call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Culprits {
    #[default]
    None,
    One(u16),
    Several,
}

/// Failures since an instance last proved itself.
#[derive(Debug, Default)]
pub(super) struct Health {
    /// Failed starts, and deaths that no call explains.
    failures: u32,
    start_failed: bool,
    /// Instances that died on their first calls.
    deadly: u32,
    culprits: Culprits,
    last: Option<Instant>,
    not_before: Option<Instant>,
}

impl Health {
    pub(super) fn start_failed(&mut self, now: Instant) {
        self.start_failed = true;
        self.fail(now);
    }

    /// An instance that was ready since then died.
    pub(super) fn died(&mut self, death: Death, since: Instant, now: Instant) {
        if death.answered || now.saturating_duration_since(since) >= STABLE {
            *self = Self::default();
        }
        self.start_failed = false;
        if death.in_flight == 0 {
            return self.fail(now);
        }
        if death.answered {
            // The calls it had are to blame, and get an error each.
            return;
        }
        self.deadly += 1;
        if death.in_flight == 1 {
            self.culprits = match self.culprits {
                Culprits::None => Culprits::One(death.function),
                Culprits::One(other) if other != death.function => Culprits::Several,
                same => same,
            };
        }
        if self.deadly >= HOPELESS_AFTER && self.culprits == Culprits::Several {
            self.failures = self.failures.max(OPEN_AFTER - 1);
            self.fail(now);
        } else {
            let doubled = self.deadly.checked_sub(PAUSE_AFTER).map(|times| FIRST_PAUSE / 4 * (1 << times.min(8)));
            self.pause(doubled.unwrap_or_default().min(MAX_DEADLY_PAUSE), now);
        }
    }

    /// A ready instance is there since then.
    pub(super) fn look(&mut self, answered: bool, since: Instant, now: Instant) {
        let came_later = self.last.is_some_and(|last| since >= last);
        if came_later && (answered || now.saturating_duration_since(since) >= STABLE) {
            *self = Self::default();
        }
    }

    /// When an instance that is ready since then will have proved itself without a call; `None` if that is of no use.
    pub(super) fn stable_at(&self, since: Instant) -> Option<Instant> {
        self.last.filter(|last| since >= *last).map(|_| since + STABLE)
    }

    /// No start before then.
    pub(super) fn not_before(&self) -> Option<Instant> {
        self.not_before
    }

    pub(super) fn failures(&self) -> u32 {
        self.failures.max(self.deadly)
    }

    pub(super) fn is_failing(&self) -> bool {
        self.failures > 0 || self.on_probation()
    }

    pub(super) fn is_open(&self) -> bool {
        self.failures >= if self.start_failed { OPEN_AFTER_STARTS } else { OPEN_AFTER }
    }

    pub(super) fn on_probation(&self) -> bool {
        self.deadly >= PROBATION_AFTER || self.failures >= OPEN_AFTER
    }

    fn fail(&mut self, now: Instant) {
        self.failures += 1;
        let pause = FIRST_PAUSE.saturating_mul(1 << (self.failures - 1).min(16)).min(MAX_PAUSE);
        self.pause(pause, now);
    }

    fn pause(&mut self, pause: Duration, now: Instant) {
        self.last = Some(now);
        self.not_before = Some(now + pause);
    }
}
