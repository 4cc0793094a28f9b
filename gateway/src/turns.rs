//! When a thread runs that has something to do, while others want its core (`docs/adr/0042-gateways-in-batches.md`).
//!
//! One that does little runs as soon as something comes, before all others where that is allowed: it is soon done. One
//! that answers a lot runs in batches: it does not interrupt whoever woke it, so that more requests and answers have
//! come when its turn does, and each system call and switch is for several of them.

use std::{
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    time::{Duration, Instant},
};

use rustix::time::{ClockId, clock_gettime};
use tokio::{sync::Notify, time::sleep};

use crate::{Control, Load};

/// So many answers within [`LOOK`] are a lot; half of them are few.
const PORTION: u64 = 1024;
/// The same for what a thread computes, as a part of one core.
const MUCH: f64 = 0.2;
const LOOK: Duration = Duration::from_millis(200);
/// So often within [`LOOK`] it is seen whether answers are many already: until then each costs more than it has to.
const STEPS: u32 = 10;

/// Tells when a thread wakes, so that nothing has to look at one that sleeps.
#[derive(Debug, Default)]
pub(crate) struct Wakes {
    wanted: AtomicBool,
    woken: Notify,
}

impl Wakes {
    /// The thread has woken.
    pub(crate) fn note(&self) {
        if self.wanted.load(Relaxed) {
            self.wanted.store(false, Relaxed);
            self.woken.notify_one();
        }
    }

    async fn next(&self) {
        self.wanted.store(true, Relaxed);
        self.woken.notified().await;
    }
}

/// What a thread had done at a time.
#[derive(Clone, Copy, Debug)]
struct Done {
    at: Instant,
    answers: u64,
    computed: Duration,
}

impl Done {
    /// By the calling thread.
    fn now(answers: u64) -> Self {
        let time = clock_gettime(ClockId::ThreadCPUTime);
        let computed =
            Duration::from_secs(time.tv_sec.unsigned_abs()) + Duration::from_nanos(time.tv_nsec.unsigned_abs());
        Self { at: Instant::now(), answers, computed }
    }

    /// What it has done since then, when it had that load; half of what brings a load keeps it.
    fn load(&self, before: &Self, load: Load) -> Load {
        let looks = (self.at - before.at).div_duration_f64(LOOK).max(1.0);
        let answers = (self.answers - before.answers) as f64 / PORTION as f64 / looks;
        let computed = (self.computed - before.computed).div_duration_f64(LOOK) / MUCH / looks;
        let least = |wanted| if load >= wanted { 0.5 } else { 1.0 };
        if answers >= least(Load::Many) {
            Load::Many
        } else if computed >= least(Load::Long) {
            Load::Long
        } else {
            Load::Little
        }
    }
}

/// Gives the calling thread, which has given so many `answers`, the turns that become its load. Ends when `control`
/// cannot: it stays as it is then.
pub(crate) async fn follow_load(control: &dyn Control, answers: impl Fn() -> u64, wakes: &Wakes) {
    let mut load = Load::Little;
    while control.take_turns(load) {
        let taken = load;
        while load == taken {
            if load == Load::Little {
                wakes.next().await;
            }
            load = look(&answers, load).await;
        }
    }
}

/// What the calling thread does, which had that load until now.
async fn look(answers: impl Fn() -> u64, load: Load) -> Load {
    let before = Done::now(answers());
    for _ in 0..STEPS {
        sleep(LOOK / STEPS).await;
        if load != Load::Many && answers() - before.answers >= PORTION {
            return Load::Many;
        }
    }
    Done::now(answers()).load(&before, load)
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Mutex,
        atomic::{AtomicU64, AtomicUsize},
    };

    use serde_json::Value;
    use tokio::time::timeout;

    use super::*;

    /// Notes the load it is told, and how often.
    #[derive(Default)]
    struct Noted {
        load: Mutex<Option<Load>>,
        times: AtomicUsize,
        refuses: AtomicBool,
    }

    impl Noted {
        fn load(&self) -> Option<Load> {
            *self.load.lock().unwrap()
        }
    }

    impl Control for Noted {
        fn take_turns(&self, load: Load) -> bool {
            *self.load.lock().unwrap() = Some(load);
            self.times.fetch_add(1, Relaxed);
            !self.refuses.load(Relaxed)
        }

        fn health(&self) -> Value {
            Value::Null
        }

        fn metrics(&self, _: &mut String) {}

        fn resource(&self, _: &str) -> Option<Value> {
            None
        }
    }

    /// Has the calling thread compute for so long.
    fn compute(time: Duration) {
        let until = Done::now(0).computed + time;
        while Done::now(0).computed < until {}
    }

    #[test]
    fn load_is_many_answers_or_much_of_a_core_and_half_of_it_keeps_it() {
        let before = Done { at: Instant::now(), answers: 10, computed: Duration::from_secs(1) };
        let load = |answers, part: f64, looks, load| {
            let passed = LOOK * looks;
            let computed = before.computed + passed.mul_f64(part);
            Done { at: before.at + passed, answers: before.answers + answers, computed }.load(&before, load)
        };
        for (answers, part, looks, until_now, expected) in [
            (0, 0.0, 1, Load::Little, Load::Little),
            (PORTION - 1, MUCH * 0.9, 1, Load::Little, Load::Little),
            (PORTION, 0.0, 1, Load::Little, Load::Many),
            (PORTION, 0.0, 2, Load::Little, Load::Little),
            (1, MUCH * 1.1, 1, Load::Little, Load::Long),
            (1, MUCH * 1.1, 10, Load::Little, Load::Long),
            (PORTION / 2, 0.0, 1, Load::Long, Load::Little),
            (0, MUCH * 0.6, 1, Load::Long, Load::Long),
            (PORTION, 1.0, 1, Load::Long, Load::Many),
            (PORTION / 2, 0.0, 1, Load::Many, Load::Many),
            (PORTION / 2 - 1, MUCH * 0.6, 1, Load::Many, Load::Long),
            (PORTION / 2 - 1, MUCH * 0.4, 1, Load::Many, Load::Little),
        ] {
            let found = load(answers, part, looks, until_now);
            assert_eq!(found, expected, "{answers} answers, {part} of a core, {looks} looks, {until_now:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn turns_are_those_of_the_load_and_nothing_looks_at_a_thread_that_sleeps() {
        let (noted, wakes, answers) = (Noted::default(), Wakes::default(), AtomicU64::new(0));
        let load = async {
            for _ in 0..2 {
                sleep(10 * LOOK).await;
                assert_eq!(noted.load(), Some(Load::Little));
                // Nobody has said that the thread woke.
                answers.fetch_add(PORTION, Relaxed);
                sleep(10 * LOOK).await;
                assert_eq!(noted.load(), Some(Load::Little));
                wakes.note();
                sleep(LOOK / 2).await;
                answers.fetch_add(PORTION, Relaxed);
                sleep(LOOK / 4).await;
                for _ in 0..5 {
                    assert_eq!(noted.load(), Some(Load::Many));
                    answers.fetch_add(PORTION / 2, Relaxed);
                    sleep(LOOK).await;
                }
                compute(LOOK.mul_f64(MUCH));
                sleep(LOOK).await;
                assert_eq!(noted.load(), Some(Load::Long));
            }
            sleep(10 * LOOK).await;
            assert_eq!((noted.load(), noted.times.load(Relaxed)), (Some(Load::Little), 7));
        };
        tokio::select! {
            () = follow_load(&noted, || answers.load(Relaxed), &wakes) => panic!("it could change the turns"),
            () = load => {}
        }
    }

    #[tokio::test(start_paused = true)]
    async fn thread_that_cannot_is_not_asked_again() {
        let noted = Noted::default();
        noted.refuses.store(true, Relaxed);
        timeout(LOOK, follow_load(&noted, || 0, &Wakes::default())).await.unwrap();
        assert_eq!(noted.times.load(Relaxed), 1);
    }
}
