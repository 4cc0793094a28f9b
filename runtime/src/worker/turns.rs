//! How workers and gateway threads take turns with others on the cores (`docs/adr/0039-turns-by-load.md`).

use std::{fs, io, process, time::Duration};

/// From so many calls a second on a worker runs in batches, until they are half as many.
const MANY: f64 = 2_000.0;
/// The same for what it computes, as a part of one core: who computes has no use for short turns.
const MUCH: f64 = 0.2;
/// The least turn that the kernel knows. It looks at those of ordinary processes since Linux 6.12.
const SHORT: Duration = Duration::from_micros(100);
/// As long as those of all others.
const USUAL: Duration = Duration::ZERO;
/// How much less nice than its process a thread of the node is that runs soon ([`OwnTurns`]).
const AHEAD: libc::c_int = 10;
/// How a thread of the node runs before all ordinary ones; nobody else is likely to ask for just that.
const FIRST: libc::c_int = libc::SCHED_FIFO | libc::SCHED_RESET_ON_FORK;
/// The least that comes before them.
const FIRST_PRIORITY: u32 = 1;

/// When a thread runs that has something to do, while others do as well.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Turns {
    /// As any other process, while it is not known what it does: `SCHED_OTHER`.
    #[default]
    Usual,
    /// Soon, and briefly: `SCHED_OTHER` with short turns. What it answers does not wait for those who compute.
    Prompt,
    /// When whoever woke it sleeps or has used up its turn: `SCHED_BATCH`. A gateway gathers more calls before they
    /// are run, which takes less of all cores.
    Batched,
}

impl Turns {
    /// Those of a worker that gets so many calls now, and computes on so much of a core.
    #[must_use]
    pub(crate) fn at(self, calls_per_second: f64, cores: f64) -> Self {
        let least = match self {
            Self::Usual | Self::Prompt => 1.0,
            Self::Batched => 0.5,
        };
        if (calls_per_second / MANY).max(cores / MUCH) >= least { Self::Batched } else { Self::Prompt }
    }

    /// Has this thread take them, and what it starts. Makes direct system calls only.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub(super) fn take(self) -> io::Result<()> {
        self.set(0)
    }

    /// Has a process take them, with all its threads but those that asked for other scheduling. It does without where
    /// the kernel refuses.
    pub(crate) fn give(self, pid: u32) {
        let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else { return };
        for thread in threads.flatten() {
            if let Some(Ok(thread)) = thread.file_name().to_str().map(str::parse)
                && Self::has_one(thread)
            {
                // It may have ended by now.
                let _ = self.set(thread);
            }
        }
    }

    /// Whether a thread is scheduled as one of these.
    fn has_one(thread: libc::pid_t) -> bool {
        [libc::SCHED_OTHER, libc::SCHED_BATCH].contains(&(policy(thread) & !libc::SCHED_RESET_ON_FORK))
    }

    /// How nice the thread is stays.
    fn set(self, thread: libc::pid_t) -> io::Result<()> {
        schedule(thread, &self.attributes(niceness(thread)))
    }

    fn attributes(self, nice: libc::c_int) -> libc::sched_attr {
        let (policy, turn) = match self {
            Self::Usual => (libc::SCHED_OTHER, USUAL),
            Self::Prompt => (libc::SCHED_OTHER, SHORT),
            Self::Batched => (libc::SCHED_BATCH, USUAL),
        };
        libc::sched_attr { sched_nice: nice, sched_runtime: turn.as_nanos() as u64, ..attributes(policy) }
    }
}

/// When a thread of the node itself runs that has something to do, while others do as well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OwnTurns {
    /// Before all ordinary threads, where that is allowed (`SCHED_FIFO`), else soon. For one that does little: it keeps
    /// its core until it sleeps.
    First,
    /// In short turns; also less nice than the process, where that is allowed.
    Soon,
    /// When whoever woke it sleeps or has used up its turn: `SCHED_BATCH`.
    Batched,
}

/// Gives the calling thread these turns, and what it starts ordinary ones. Whether it has them: not where it was given
/// other scheduling, or the kernel refuses.
pub fn take_turns(turns: OwnTurns) -> bool {
    let usual = niceness(process::id().cast_signed());
    let takes = |way: libc::sched_attr| {
        let way = libc::sched_attr { sched_flags: libc::SCHED_FLAG_RESET_ON_FORK as u64, ..way };
        schedule(0, &way).is_ok()
    };
    let soon = || [usual - AHEAD, usual].into_iter().any(|nice| takes(Turns::Prompt.attributes(nice)));
    let first = libc::sched_attr { sched_priority: FIRST_PRIORITY, ..attributes(libc::SCHED_FIFO) };
    (Turns::has_one(0) || policy(0) == FIRST)
        && match turns {
            OwnTurns::First => takes(first) || soon(),
            OwnTurns::Soon => soon(),
            OwnTurns::Batched => takes(Turns::Batched.attributes(usual)),
        }
}

/// How nice a thread is. A process has the number of its first one.
fn niceness(thread: libc::pid_t) -> libc::c_int {
    // SAFETY: reads nothing of this process.
    unsafe { libc::getpriority(libc::PRIO_PROCESS, thread.cast_unsigned()) }
}

/// How a thread is scheduled, and whether what it starts is not; less than 0 where there is none.
fn policy(thread: libc::pid_t) -> libc::c_int {
    // SAFETY: reads nothing of this process. Not every C library has a function for it.
    unsafe { libc::syscall(libc::SYS_sched_getscheduler, thread) as libc::c_int }
}

/// Those of a thread with this policy and usual turns, of niceness 0.
fn attributes(policy: libc::c_int) -> libc::sched_attr {
    libc::sched_attr {
        size: size_of::<libc::sched_attr>() as u32,
        sched_policy: policy.cast_unsigned(),
        sched_flags: 0,
        sched_nice: 0,
        sched_priority: 0,
        sched_runtime: USUAL.as_nanos() as u64,
        sched_deadline: 0,
        sched_period: 0,
    }
}

/// Changes how a thread is scheduled.
fn schedule(thread: libc::pid_t, attributes: &libc::sched_attr) -> io::Result<()> {
    // SAFETY: the pointer is to a value that the call only reads, and which says its size.
    match unsafe { libc::syscall(libc::SYS_sched_setattr, thread, &raw const *attributes, 0) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::mpsc, thread};

    use rustix::{
        process::{Resource, Rlimit, setrlimit},
        thread::{CapabilitySet, capabilities, set_capabilities},
    };

    use super::*;

    #[test]
    fn turns_follow_the_load_and_do_not_flap() {
        let (prompt, batched) = (Turns::Prompt, Turns::Batched);
        for (calls, cores) in [(0.0, 0.0), (50.0, 0.01), (1_999.0, 0.19)] {
            assert_eq!([Turns::Usual, prompt].map(|turns| turns.at(calls, cores)), [prompt; 2], "{calls} {cores}");
        }
        for (calls, cores) in [(2_000.0, 0.0), (80_000.0, 0.3), (0.0, 0.2), (200.0, 1.0)] {
            assert_eq!([Turns::Usual, prompt].map(|turns| turns.at(calls, cores)), [batched; 2], "{calls} {cores}");
            assert_eq!(batched.at(calls / 2.0, cores / 2.0), batched, "{calls} {cores}");
        }
        for (calls, cores) in [(0.0, 0.0), (999.0, 0.09)] {
            assert_eq!(batched.at(calls, cores), prompt, "{calls} {cores}");
        }
    }

    /// A thread that has done something first; it ends with the sender.
    fn thread_that(does: fn() -> libc::c_int) -> (libc::pid_t, mpsc::Sender<()>) {
        let (end, ended) = mpsc::channel();
        let (say, said) = mpsc::channel();
        thread::spawn(move || {
            assert_eq!(does(), 0);
            say.send(rustix::thread::gettid().as_raw_nonzero().get()).unwrap();
            let _ = ended.recv();
        });
        (said.recv().unwrap(), end)
    }

    #[test]
    fn short_turns_are_for_those_that_are_known_to_do_little() {
        let turns = [Turns::default(), Turns::Prompt, Turns::default()];
        let [before, short, after] =
            thread::spawn(move || turns.map(|turns| turns.take().map(|()| turn()).unwrap())).join().unwrap();
        // Kernels before 6.12 know none.
        assert!(before == after && (short == before || short == SHORT.as_nanos() as u64), "{before} {short} {after}");
    }

    #[test]
    fn all_threads_of_a_process_take_them_and_keep_what_they_asked_for() {
        // SAFETY: reads nothing of this process.
        let (nicer, _end) = thread_that(|| unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, 7) });
        // SAFETY: the pointer is to a value on the stack, which the call only reads.
        let (idler, _end) = thread_that(|| unsafe {
            libc::sched_setscheduler(0, libc::SCHED_IDLE, &libc::sched_param { sched_priority: 0 })
        });
        for (turns, policy) in [(Turns::Batched, libc::SCHED_BATCH), (Turns::Prompt, libc::SCHED_OTHER)] {
            turns.give(std::process::id());
            // SAFETY: read nothing of this process.
            unsafe {
                let policies = [0, nicer, idler].map(|thread| libc::sched_getscheduler(thread));
                assert_eq!(policies, [policy, policy, libc::SCHED_IDLE]);
                assert_eq!(libc::getpriority(libc::PRIO_PROCESS, nicer.cast_unsigned()), 7);
            }
        }
    }

    #[test]
    fn thread_of_the_node_runs_in_batches_unless_it_was_given_other_scheduling() {
        takes_turns_as_allowed();
        // Without the privilege a thread whose children are ordinary must stay one.
        let other = libc::SCHED_IDLE | libc::SCHED_RESET_ON_FORK;
        // SAFETY: the pointer is to a value that is only read.
        unsafe { libc::sched_setscheduler(0, other, &libc::sched_param { sched_priority: 0 }) };
        assert!(!take_turns(OwnTurns::Batched));
        assert_eq!(policy(0), other);
    }

    #[test]
    fn thread_of_a_node_without_the_privilege_runs_as_soon_as_limits_allow() {
        let raised = Rlimit { current: Some(40), maximum: Some(40) };
        // Who may not has other limits.
        let _ = setrlimit(Resource::Nice, raised);
        let mut capabilities = capabilities(None).unwrap();
        capabilities.effective.remove(CapabilitySet::SYS_NICE);
        set_capabilities(None, capabilities).unwrap();
        takes_turns_as_allowed();
    }

    /// Has the calling thread run in batches and soon, and a thread that it starts as usual.
    fn takes_turns_as_allowed() {
        let usual = niceness(process::id().cast_signed());
        let (first, soon, batched) = (first(usual), soon(usual), (libc::SCHED_BATCH, usual));
        for (turns, expected) in [
            (OwnTurns::First, first),
            (OwnTurns::Batched, batched),
            (OwnTurns::Soon, soon),
            (OwnTurns::Batched, batched),
            (OwnTurns::First, first),
            (OwnTurns::Soon, soon),
        ] {
            assert!(take_turns(turns));
            assert_eq!((policy(0), niceness(0)), (expected.0 | libc::SCHED_RESET_ON_FORK, expected.1));
            if expected.0 == libc::SCHED_OTHER {
                let short = thread::spawn(|| Turns::Prompt.take().map(|()| turn())).join().unwrap();
                assert_eq!(turn(), short.unwrap());
            }
            let started = thread::spawn(|| (policy(0), niceness(0))).join().unwrap();
            assert!(started.0 != libc::SCHED_FIFO && started.1 >= usual.min(0), "{started:?}");
        }
    }

    /// Policy and niceness of a thread like the calling one that runs first.
    fn first(usual: libc::c_int) -> (libc::c_int, libc::c_int) {
        let may = thread::spawn(|| {
            // SAFETY: changes a thread that ends; the pointer is to a value that is only read.
            unsafe { libc::sched_setscheduler(0, libc::SCHED_FIFO, &libc::sched_param { sched_priority: 1 }) == 0 }
        });
        if may.join().unwrap() { (libc::SCHED_FIFO, usual) } else { soon(usual) }
    }

    /// The same of one that runs soon.
    fn soon(usual: libc::c_int) -> (libc::c_int, libc::c_int) {
        let may = thread::spawn(|| {
            // SAFETY: changes a thread that ends.
            unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, niceness(0) - AHEAD) == 0 }
        });
        (libc::SCHED_OTHER, if may.join().unwrap() { (usual - AHEAD).max(-20) } else { usual })
    }

    /// How long a turn of the calling thread is, in nanoseconds: 0 where the kernel does not say.
    fn turn() -> u64 {
        // SAFETY: all of its fields are numbers.
        let mut attributes: libc::sched_attr = unsafe { std::mem::zeroed() };
        let size = size_of::<libc::sched_attr>() as u32;
        // SAFETY: the pointer is to a value on this stack of that size, which the call fills.
        assert_eq!(unsafe { libc::syscall(libc::SYS_sched_getattr, 0, &raw mut attributes, size, 0) }, 0);
        attributes.sched_runtime
    }

    #[test]
    fn process_that_is_gone_is_no_trouble() {
        Turns::Batched.give(u32::MAX);
    }
}
