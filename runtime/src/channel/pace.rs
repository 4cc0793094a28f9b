use std::{cell::Cell, time::Duration};

use super::driver::SWEEP;

/// Calls that take longer than that, on average, are better spread over instances than packed into one.
const SLOW: Duration = Duration::from_millis(5);

/// How fast an instance answers the calls of one thread. Costs an addition a call, and is judged while deadlines are
/// looked at anyway. An instance is slow when it is stuck, or computes, or its calls wait for something; the last of
/// them does not need another instance, but finds no harm there.
#[derive(Debug, Default)]
pub(super) struct Pace {
    /// Answers since the last tick.
    answers: Cell<u32>,
    slow: Cell<bool>,
}

impl Pace {
    pub(super) fn note_answer(&self) {
        self.answers.set(self.answers.get().wrapping_add(1));
    }

    /// A time of [`SWEEP`] has passed, and so many calls have no answer yet.
    pub(super) fn tick(&self, running: usize) {
        let answers = self.answers.replace(0);
        // Little's law: the time a call takes is the calls in flight over their rate.
        self.slow.set(running as u128 * SWEEP.as_micros() > SLOW.as_micros() * u128::from(answers));
    }

    /// As of the last tick.
    pub(super) fn is_slow(&self) -> bool {
        self.slow.get()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pace(answers: u32, running: usize) -> bool {
        let pace = Pace::default();
        (0..answers).for_each(|_| pace.note_answer());
        pace.tick(running);
        pace.is_slow()
    }

    #[test]
    fn stuck_or_computing_instance_is_slow() {
        assert!(pace(0, 1), "no answer at all");
        assert!(pace(2, 1), "10 ms each");
        assert!(pace(20, 10), "10 at a time, 10 ms each");
    }

    #[test]
    fn busy_but_quick_instance_is_not() {
        assert!(!pace(600, 100), "100 in flight, but each for 3 ms only");
        assert!(!pace(1, 0), "all answered");
        assert!(!pace(0, 0), "nobody called");
    }
}
