//! When a thread runs that has something to do, while others want its core (`docs/adr/0042-gateways-in-batches.md`).
//!
//! One that answers a lot runs in batches: `SCHED_BATCH`. It does not interrupt whoever woke it, so that more requests
//! and answers have come when its turn does, and each system call and switch is for several of them. With few answers
//! it runs as soon as something comes, before threads that have longer turns or are as nice as the node.

use std::{cell::Cell, time::Duration};

use tokio::time::{Instant, sleep};

use crate::Control;

/// So many answers ...
const PORTION: u64 = 1024;
/// ... within this time are many; half of them are few.
const LOOK: Duration = Duration::from_millis(200);

/// The turns of one gateway thread.
#[derive(Debug)]
pub(crate) struct Turns {
    answers: Cell<u64>,
    /// When the last portion of them was complete.
    since: Cell<Instant>,
    /// It runs in batches, or cannot.
    is_settled: Cell<bool>,
}

impl Turns {
    /// Those of the calling thread, which has given no answers yet.
    pub(crate) fn begin(control: &dyn Control) -> Self {
        let is_settled = !control.run_in_batches(false);
        Self { answers: Cell::default(), since: Cell::new(Instant::now()), is_settled: Cell::new(is_settled) }
    }

    /// Counts an answer. Whether they have become many: then [`Self::run_in_batches`] is to be run on this thread.
    pub(crate) fn note_answer(&self) -> bool {
        let answers = self.answers.get() + 1;
        self.answers.set(answers);
        answers.is_multiple_of(PORTION) && !self.is_settled.get() && self.are_many()
    }

    fn are_many(&self) -> bool {
        let now = Instant::now();
        let are_many = now - self.since.replace(now) <= LOOK;
        self.is_settled.set(are_many);
        are_many
    }

    /// Has the calling thread run in batches until its answers have become few. It stays as it is for good where
    /// `control` cannot change that.
    pub(crate) async fn run_in_batches(&self, control: &dyn Control) {
        if !control.run_in_batches(true) {
            return;
        }
        loop {
            let before = self.answers.get();
            sleep(LOOK).await;
            if self.answers.get() - before < PORTION / 2 {
                break;
            }
        }
        if control.run_in_batches(false) {
            self.since.set(Instant::now());
            self.is_settled.set(false);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

    use serde_json::Value;
    use tokio::time::advance;

    use super::*;

    /// So many answers; whether they were found to be many.
    fn answer(turns: &Turns, count: u64) -> bool {
        (0..count).filter(|_| turns.note_answer()).count() > 0
    }

    /// Notes what it is asked for.
    #[derive(Default)]
    struct Noted {
        batched: AtomicBool,
        refuses: AtomicBool,
    }

    impl Control for Noted {
        fn run_in_batches(&self, batched: bool) -> bool {
            let agrees = !self.refuses.load(Relaxed);
            self.batched.store(batched && agrees, Relaxed);
            agrees
        }

        fn health(&self) -> Value {
            Value::Null
        }

        fn metrics(&self, _: &mut String) {}

        fn resource(&self, _: &str) -> Option<Value> {
            None
        }
    }

    #[tokio::test(start_paused = true)]
    async fn many_answers_within_a_short_time_are_many() {
        let turns = Turns::begin(&Noted::default());
        assert!(!answer(&turns, PORTION - 1));
        advance(LOOK).await;
        assert!(answer(&turns, 1));
        assert!(!answer(&turns, 10 * PORTION), "it is known");
    }

    #[tokio::test(start_paused = true)]
    async fn as_many_within_a_longer_time_are_not() {
        let turns = Turns::begin(&Noted::default());
        for _ in 0..10 {
            advance(LOOK + Duration::from_millis(1)).await;
            assert!(!answer(&turns, PORTION));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn thread_runs_in_batches_until_answers_are_few() {
        let noted = Noted::default();
        let turns = Turns::begin(&noted);
        for _ in 0..2 {
            assert!(answer(&turns, PORTION));
            let answers = async {
                for _ in 0..5 {
                    sleep(LOOK - Duration::from_millis(1)).await;
                    answer(&turns, PORTION / 2);
                    sleep(Duration::from_millis(1)).await;
                    assert!(noted.batched.load(Relaxed));
                }
                answer(&turns, PORTION / 2 - 1);
            };
            tokio::join!(turns.run_in_batches(&noted), answers);
            assert!(!noted.batched.load(Relaxed));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn thread_that_cannot_is_not_asked_again() {
        let noted = Noted::default();
        let turns = Turns::begin(&noted);
        noted.refuses.store(true, Relaxed);
        assert!(!answer(&Turns::begin(&noted), 10 * PORTION), "it could not from the beginning");
        assert!(answer(&turns, PORTION));
        turns.run_in_batches(&noted).await;
        assert!(!answer(&turns, 10 * PORTION));
    }
}
