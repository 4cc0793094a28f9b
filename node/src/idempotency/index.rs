//! Which calls are known, and how their answers are found: decisions without I/O or a clock.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use fnmesh_invoke::Error;
use tokio::sync::watch;

use super::answer::{Answer, Digest, Identity};

/// How long and how many answers are kept; the oldest go first.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    /// How long.
    pub(super) age: Duration,
    /// How many at most.
    pub(super) answers: usize,
    /// Bytes of all at most, without what the store adds to them.
    pub(super) bytes: u64,
}

/// How many old answers go at once: all of a day would hold up the thread whose call finds them.
const OLD_AT_ONCE: usize = 100;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

impl Bounds {
    /// Of a node that keeps them on disk. What must be known of each answer takes up to 180 bytes of memory.
    pub(super) const DISK: Self = Self { age: DAY, answers: 500_000, bytes: 1024 * 1024 * 1024 };
    /// Of a node that keeps them in memory.
    pub(super) const MEMORY: Self = Self { age: DAY, answers: 100_000, bytes: 64 * 1024 * 1024 };

    fn is_old(&self, stored_ms: u64, now_ms: u64) -> bool {
        u128::from(now_ms.saturating_sub(stored_ms)) >= self.age.as_millis()
    }
}

/// How the first call with a key has ended, for those that wait for it.
#[derive(Clone, Debug)]
pub(super) enum Ended {
    /// With an answer that may have been stored.
    Answer(Arc<Answer>),
    /// With an error that says nothing about the next try.
    Error(Error),
    /// With items that only its own caller can have.
    Streamed,
}

/// Where an answer is.
#[derive(Clone, Debug)]
pub(super) enum Place {
    /// In memory.
    Memory(Arc<Answer>),
    /// In this row of the table.
    Row(i64),
}

/// What is known of a call.
#[derive(Clone, Debug)]
pub(super) enum Found {
    /// Nothing: it is now this run of it that others wait for.
    New(u64),
    /// It runs.
    Running(watch::Receiver<Option<Ended>>),
    /// It has an answer.
    Stored(Place),
    /// The arguments were others.
    OtherArguments,
}

#[derive(Debug)]
struct Entry {
    arguments: Digest,
    state: State,
}

#[derive(Debug)]
enum State {
    Running { run: u64, ended: watch::Receiver<Option<Ended>> },
    Stored { row: i64, stored_ms: u64, answer: Option<Arc<Answer>> },
}

/// An answer in the order of their ages.
#[derive(Debug)]
struct Kept {
    call: Digest,
    row: i64,
    bytes: u64,
    stored_ms: u64,
}

/// The calls with a key that are known. Times are milliseconds since 1970: they must mean the same after a restart.
#[derive(Debug)]
pub(super) struct Index {
    entries: HashMap<Digest, Entry>,
    order: VecDeque<Kept>,
    bytes: u64,
    bounds: Bounds,
    runs: u64,
    /// The row of the next answer.
    next: i64,
}

impl Index {
    pub(super) fn new(bounds: Bounds) -> Self {
        Self { entries: HashMap::new(), order: VecDeque::new(), bytes: 0, bounds, runs: 0, next: 1 }
    }

    /// What is known of a call; if nothing, it counts as running until `ended` says how it ended.
    pub(super) fn begin(&mut self, id: Identity, ended: &watch::Sender<Option<Ended>>, now_ms: u64) -> Found {
        self.make_room(0, 0, now_ms);
        let known = self.entries.get(&id.call).filter(|entry| match entry.state {
            State::Running { .. } => true,
            State::Stored { stored_ms, .. } => !self.bounds.is_old(stored_ms, now_ms),
        });
        if let Some(entry) = known {
            return match &entry.state {
                _ if entry.arguments != id.arguments => Found::OtherArguments,
                State::Running { ended, .. } => Found::Running(ended.clone()),
                State::Stored { answer: Some(answer), .. } => Found::Stored(Place::Memory(Arc::clone(answer))),
                State::Stored { row, answer: None, .. } => Found::Stored(Place::Row(*row)),
            };
        }
        self.runs += 1;
        let state = State::Running { run: self.runs, ended: ended.subscribe() };
        self.entries.insert(id.call, Entry { arguments: id.arguments, state });
        Found::New(self.runs)
    }

    /// Run `run` of a call has ended; where it left no answer, the call is as if it had never been.
    pub(super) fn end(&mut self, id: Identity, run: u64) {
        self.forget(id, |state| matches!(state, State::Running { run: it, .. } if *it == run));
    }

    /// The answer in this row cannot be read.
    pub(super) fn lose(&mut self, id: Identity, lost: i64) {
        self.forget(id, |state| matches!(state, State::Stored { row, .. } if *row == lost));
    }

    fn forget(&mut self, id: Identity, is_it: impl FnOnce(&State) -> bool) {
        if self.entries.get(&id.call).is_some_and(|entry| is_it(&entry.state)) {
            self.entries.remove(&id.call);
        }
    }

    /// Lets go of some answers that are too old, and of the oldest until there is room for this many more.
    /// Whether any went before their time.
    pub(super) fn make_room(&mut self, answers: usize, bytes: u64, now_ms: u64) -> bool {
        let (mut let_go, mut is_early) = (0, false);
        while let Some(oldest) = self.order.front() {
            let is_old = let_go < OLD_AT_ONCE && self.bounds.is_old(oldest.stored_ms, now_ms);
            let is_full = self.order.len() + answers > self.bounds.answers || self.bytes + bytes > self.bounds.bytes;
            if !(is_old || is_full) {
                break;
            }
            let_go += 1;
            is_early |= !self.bounds.is_old(oldest.stored_ms, now_ms);
            self.bytes -= oldest.bytes;
            let (call, gone) = (oldest.call, oldest.row);
            self.order.pop_front();
            // A later answer to the same call has a row of its own.
            if self.entries.get(&call).is_some_and(|it| matches!(it.state, State::Stored { row, .. } if row == gone)) {
                self.entries.remove(&call);
            }
        }
        is_early
    }

    /// Where the answers begin that are still wanted: all rows before it can go.
    pub(super) fn first_row(&self) -> i64 {
        self.order.front().map_or(self.next, |oldest| oldest.row)
    }

    /// The row for the next answer.
    pub(super) fn next_row(&self) -> i64 {
        self.next
    }

    /// An answer is stored, in this row. `run` is what gave it; none if it is from before the node started.
    pub(super) fn keep(
        &mut self,
        id: Identity,
        run: Option<u64>,
        (row, bytes, stored_ms): (i64, u64, u64),
        answer: Option<Arc<Answer>>,
    ) {
        self.next = self.next.max(row + 1);
        self.bytes += bytes;
        self.order.push_back(Kept { call: id.call, row, bytes, stored_ms });
        // Who waits for another run gets what that one answers.
        if let Some(Entry { state: State::Running { run: other, .. }, .. }) = self.entries.get(&id.call)
            && run != Some(*other)
        {
            return;
        }
        self.entries
            .insert(id.call, Entry { arguments: id.arguments, state: State::Stored { row, stored_ms, answer } });
    }

    /// How many answers there are.
    #[cfg(test)]
    pub(super) fn answers(&self) -> usize {
        self.entries.values().filter(|entry| matches!(entry.state, State::Stored { .. })).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: Bounds = Bounds { age: Duration::from_millis(100), answers: 3, bytes: 50 };

    struct Fixture {
        index: Index,
        ended: watch::Sender<Option<Ended>>,
    }

    impl Fixture {
        fn new() -> Self {
            Self { index: Index::new(BOUNDS), ended: watch::Sender::new(None) }
        }

        fn begin(&mut self, call: u8, now_ms: u64) -> Found {
            self.index.begin(id(call, 1), &self.ended, now_ms)
        }

        /// Runs a call to an answer of so many bytes.
        fn answer(&mut self, call: u8, bytes: u64, now_ms: u64) -> i64 {
            let Found::New(run) = self.begin(call, now_ms) else { panic!("call {call} is known") };
            self.index.make_room(1, bytes, now_ms);
            let row = self.index.next_row();
            self.index.keep(id(call, 1), Some(run), (row, bytes, now_ms), None);
            self.index.end(id(call, 1), run);
            row
        }

        fn is_stored(&mut self, call: u8, now_ms: u64) -> bool {
            // Asked without a trace.
            match self.begin(call, now_ms) {
                Found::Stored(_) => true,
                Found::New(run) => {
                    self.index.end(id(call, 1), run);
                    false
                }
                other => panic!("{other:?}"),
            }
        }
    }

    fn id(call: u8, arguments: u8) -> Identity {
        Identity { call: [call; 16], arguments: [arguments; 16] }
    }

    #[test]
    fn answer_is_found_until_it_is_too_old() {
        let mut it = Fixture::new();
        let row = it.answer(1, 10, 1_000);
        assert!(matches!(it.begin(1, 1_099), Found::Stored(Place::Row(found)) if found == row));
        assert!(!it.is_stored(1, 1_100));
        assert_eq!(it.index.first_row(), row + 1);
    }

    #[test]
    fn other_arguments_are_seen_while_it_runs_and_after() {
        let mut it = Fixture::new();
        let Found::New(run) = it.begin(1, 0) else { panic!("known") };
        assert!(matches!(it.index.begin(id(1, 2), &it.ended, 0), Found::OtherArguments));
        it.index.keep(id(1, 1), Some(run), (1, 1, 0), None);
        assert!(matches!(it.index.begin(id(1, 2), &it.ended, 0), Found::OtherArguments));
        assert!(matches!(it.index.begin(id(1, 2), &it.ended, 100), Found::New(_)));
    }

    #[test]
    fn call_that_left_no_answer_runs_again() {
        let mut it = Fixture::new();
        let Found::New(run) = it.begin(1, 0) else { panic!("known") };
        assert!(matches!(it.begin(1, 0), Found::Running(_)));
        it.index.end(id(1, 1), run);
        assert!(matches!(it.begin(1, 0), Found::New(again) if again != run));
        // An old run does not end a new one.
        it.index.end(id(1, 1), run);
        assert!(matches!(it.begin(1, 0), Found::Running(_)));
    }

    #[test]
    fn oldest_go_when_there_are_too_many() {
        let mut it = Fixture::new();
        for call in 1..=4 {
            it.answer(call, 1, 0);
        }
        let stored = [1, 2, 3, 4].map(|call| it.is_stored(call, 0));
        assert_eq!((stored, it.index.answers()), ([false, true, true, true], 3));
        assert_eq!(it.index.first_row(), 2);
    }

    #[test]
    fn oldest_go_when_they_are_too_large() {
        let mut it = Fixture::new();
        it.answer(1, 20, 0);
        it.answer(2, 20, 0);
        assert!(it.index.make_room(1, 30, 0) && !it.index.make_room(1, 30, 0));
        it.answer(3, 30, 0);
        assert_eq!([1, 2, 3].map(|call| it.is_stored(call, 0)), [false, true, true]);
        assert_eq!(it.index.bytes, 50);
    }

    #[test]
    fn many_old_answers_go_by_and_by_and_are_found_by_nobody() {
        let bounds = Bounds { answers: 1_000, bytes: 1_000, ..BOUNDS };
        let mut it = Fixture { index: Index::new(bounds), ended: watch::Sender::new(None) };
        for call in 0..250 {
            it.answer(call, 1, 0);
        }
        assert!(!it.index.make_room(0, 0, 100));
        assert!(!it.is_stored(249, 100));
        assert_eq!(it.index.first_row(), 1 + 2 * OLD_AT_ONCE as i64);
        // The answer of today is not that of yesterday, which is still in line.
        it.answer(249, 1, 100);
        it.index.make_room(0, 0, 100);
        assert!(it.is_stored(249, 199));
        assert_eq!((it.index.order.len(), it.index.answers(), it.index.bytes), (1, 1, 1));
    }

    #[test]
    fn calls_that_run_are_never_let_go_of() {
        let mut it = Fixture::new();
        let Found::New(_) = it.begin(9, 0) else { panic!("known") };
        for call in 1..=4 {
            it.answer(call, 1, 0);
        }
        assert!(matches!(it.begin(9, 1_000_000), Found::Running(_)));
    }

    #[test]
    fn late_answer_counts_unless_the_call_runs_anew() {
        let mut it = Fixture::new();
        let Found::New(first) = it.begin(1, 0) else { panic!("known") };
        it.index.end(id(1, 1), first);
        let Found::New(second) = it.begin(1, 0) else { panic!("known") };
        it.index.keep(id(1, 1), Some(first), (1, 1, 0), None);
        assert!(matches!(it.begin(1, 0), Found::Running(_)));
        it.index.end(id(1, 1), second);
        it.index.keep(id(1, 1), Some(first), (2, 1, 0), None);
        assert!(it.is_stored(1, 0));
    }

    #[test]
    fn unreadable_answer_is_lost_alone() {
        let mut it = Fixture::new();
        let row = it.answer(1, 1, 0);
        it.index.lose(id(1, 1), row + 1);
        assert!(it.is_stored(1, 0));
        it.index.lose(id(1, 1), row);
        assert!(!it.is_stored(1, 0));
        // What is left of it goes with its time, and takes no later answer along.
        it.answer(1, 1, 50);
        assert!(it.is_stored(1, 100));
    }

    #[test]
    fn clock_that_goes_back_makes_no_answer_old() {
        let mut it = Fixture::new();
        it.answer(1, 1, 1_000);
        assert!(it.is_stored(1, 0));
    }
}
