//! Whether the instances of a pool compute as much as they can, and whether another one would help.
//!
//! Concurrency does not tell: calls that compute wait for their turn inside of an instance, where they count as being
//! run. An instance computes on one core, so one that uses a whole core has no time left.

/// Of a core: an instance that uses so much has no time left.
const FULL: f64 = 0.9;
/// Of a core: instances that use less on average have time again, and if all together use less, one is enough.
const RELIEVED: f64 = 0.7;
/// In so many looks in a row all instances have to be full before anything is done about it.
const LOOKS: u32 = 2;

/// What the machine did between two looks at its processes.
#[derive(Clone, Debug)]
pub(crate) struct Effort {
    /// Cores that each ready instance used; `None` for one that was not there all the time.
    pub(crate) cores: Vec<Option<f64>>,
    /// Cores that nobody used, if that is known.
    pub(crate) idle: Option<f64>,
}

impl Effort {
    /// Whether an instance may be full, so that it matters what the rest of the machine does.
    pub(crate) fn is_noteworthy(&self) -> bool {
        self.cores.iter().flatten().any(|cores| *cores >= FULL)
    }
}

/// How strained the instances of a pool are.
#[derive(Debug, Default)]
pub(super) struct Strain {
    /// How many looks in a row found all instances full.
    looks: u32,
    /// Whether they were full, and have no time again yet.
    is_high: bool,
    /// Whether they were full, and one would not be enough yet.
    is_spread: bool,
    /// Whether the machine had nothing left for one more instance.
    is_machine_full: bool,
    /// Instances that there should be.
    want: usize,
    /// Answers of all instances until the last look.
    answers: u64,
}

impl Strain {
    /// Takes `effort` down. There are `all` instances, starting ones included.
    pub(super) fn note(&mut self, effort: &Effort, answers: u64, all: usize) {
        // Instances that answer nothing are stuck rather than busy: more of them would be stuck as well.
        let is_answering = answers > self.answers;
        self.answers = answers;
        let ready = effort.cores.len();
        let are_full = ready > 0 && effort.cores.iter().all(|cores| cores.is_some_and(|cores| cores >= FULL));
        self.looks = if are_full && is_answering { self.looks + 1 } else { 0 };
        let used: f64 = effort.cores.iter().flatten().sum();
        let measured = effort.cores.iter().flatten().count();
        self.is_high = self.looks >= LOOKS || (self.is_high && ready > 0 && used >= RELIEVED * measured as f64);
        self.is_spread = self.is_high || (self.is_spread && used >= RELIEVED);
        let room = effort.idle.map_or(0, |idle| idle.round() as usize);
        self.is_machine_full = self.is_high && effort.idle.is_some() && room == 0;
        // What a start is good for shows only afterwards: as many at once as there are, then another look.
        let starting = all.saturating_sub(ready);
        self.want = if self.looks >= LOOKS { all + ready.min(room).saturating_sub(starting) } else { 0 };
    }

    /// Instances that there should be so that those there are have time again; 0 if they have.
    pub(super) fn want(&self) -> usize {
        self.want
    }

    /// Whether all instances were full for a while, and have no time again yet.
    pub(super) fn is_high(&self) -> bool {
        self.is_high
    }

    /// Whether they were, and what they do is still too much for one.
    pub(super) fn is_spread(&self) -> bool {
        self.is_spread
    }

    /// Whether one more instance would find no core.
    pub(super) fn is_machine_full(&self) -> bool {
        self.is_machine_full
    }

    /// There are no calls.
    pub(super) fn clear(&mut self) {
        *self = Self { answers: self.answers, ..Self::default() };
    }
}
