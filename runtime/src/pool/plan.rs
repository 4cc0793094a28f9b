//! How many instances a pool should have. Pure: (event, now) -> actions.

use std::time::{Duration, Instant};

/// First pause after an instance could not start; doubles with each further failure.
const FIRST_BACKOFF: Duration = Duration::from_millis(100);
/// The longest pause.
const MAX_BACKOFF: Duration = Duration::from_secs(30);

/// What happened to an instance of the pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// It is loaded and takes calls.
    Ready,
    /// It could not be started.
    StartFailed,
    /// A ready one died unasked. `called` when a call had reached it: then the call is to blame,
    /// and the next instance starts at once.
    Lost {
        /// Whether a call had reached it.
        called: bool,
    },
    /// A ready one is given up: it still runs, but takes no more calls and is going to be killed.
    Condemned,
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// Start an instance then.
    StartAt(Instant),
}

/// The pool's size and how its starts went.
///
/// Invariant: instances that are ready, starting or scheduled add up to `want` after every event.
#[derive(Debug)]
pub(crate) struct Plan {
    want: usize,
    starting: usize,
    ready: usize,
    failures: u32,
}

impl Plan {
    pub(crate) fn new(want: usize) -> Self {
        Self { want, starting: 0, ready: 0, failures: 0 }
    }

    /// The first starts.
    pub(crate) fn open(&mut self, now: Instant) -> Vec<Action> {
        self.fill(now)
    }

    /// What `event` calls for.
    pub(crate) fn handle(&mut self, event: Event, now: Instant) -> Vec<Action> {
        match event {
            Event::Ready => {
                self.starting -= 1;
                self.ready += 1;
                self.failures = 0;
            }
            Event::StartFailed => {
                self.starting -= 1;
                self.failures += 1;
            }
            Event::Lost { called } => {
                self.ready -= 1;
                self.failures = if called { 0 } else { self.failures + 1 };
            }
            Event::Condemned => self.ready -= 1,
        }
        self.fill(now)
    }

    fn fill(&mut self, now: Instant) -> Vec<Action> {
        let missing = self.want.saturating_sub(self.starting + self.ready);
        self.starting += missing;
        vec![Action::StartAt(now + self.backoff()); missing]
    }

    fn backoff(&self) -> Duration {
        match self.failures {
            0 => Duration::ZERO,
            failures => FIRST_BACKOFF.saturating_mul(1 << (failures - 1).min(16)).min(MAX_BACKOFF),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn starts(actions: &[Action], now: Instant) -> Vec<Duration> {
        actions.iter().map(|Action::StartAt(at)| *at - now).collect()
    }

    #[test]
    fn opens_with_all_instances_at_once() {
        let now = Instant::now();
        assert_eq!(starts(&Plan::new(3).open(now), now), [Duration::ZERO; 3]);
    }

    #[test]
    fn lost_instance_that_was_called_is_replaced_at_once() {
        let now = Instant::now();
        let mut plan = Plan::new(1);
        plan.open(now);
        plan.handle(Event::Ready, now);
        assert_eq!(starts(&plan.handle(Event::Lost { called: true }, now), now), [Duration::ZERO]);
    }

    #[test]
    fn failing_starts_back_off_up_to_the_limit() {
        let now = Instant::now();
        let mut plan = Plan::new(1);
        plan.open(now);
        let pauses: Vec<_> =
            (0..12).flat_map(|_| starts(&plan.handle(Event::StartFailed, now), now)).map(|it| it.as_millis()).collect();
        assert_eq!(pauses[..4], [100, 200, 400, 800]);
        assert_eq!(pauses[11], 30_000);
    }

    #[test]
    fn instance_that_dies_before_any_call_backs_off() {
        let now = Instant::now();
        let mut plan = Plan::new(1);
        plan.open(now);
        plan.handle(Event::Ready, now);
        assert_eq!(starts(&plan.handle(Event::Lost { called: false }, now), now), [FIRST_BACKOFF]);
    }

    proptest! {
        #[test]
        fn never_forgets_an_instance(want in 1usize..5, choices in prop::collection::vec(0u8..4, 0..200)) {
            let now = Instant::now();
            let mut plan = Plan::new(want);
            let mut starting = plan.open(now).len();
            let mut ready = 0;
            for choice in choices {
                let event = match choice {
                    0 if starting > 0 => { starting -= 1; ready += 1; Event::Ready }
                    1 if starting > 0 => { starting -= 1; Event::StartFailed }
                    2 if ready > 0 => { ready -= 1; Event::Lost { called: choice % 2 == 0 } }
                    3 if ready > 0 => { ready -= 1; Event::Condemned }
                    _ => continue,
                };
                starting += plan.handle(event, now).len();
                prop_assert_eq!(starting + ready, want);
            }
        }
    }
}
