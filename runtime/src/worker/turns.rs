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
/// How much less nice than its process a thread of the node is that runs soon.
const AHEAD: libc::c_int = 10;

/// When a thread runs that has something to do, while others do as well.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Turns {
    /// Soon, and briefly: `SCHED_OTHER` with short turns. What it answers does not wait for those who compute.
    #[default]
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
            Self::Prompt => 1.0,
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
        // SAFETY: reads nothing of this process. Not every C library has a function for it.
        let policy = unsafe { libc::syscall(libc::SYS_sched_getscheduler, thread) };
        [libc::SCHED_OTHER, libc::SCHED_BATCH].map(libc::c_long::from).contains(&policy)
    }

    /// How nice the thread is stays.
    fn set(self, thread: libc::pid_t) -> io::Result<()> {
        self.set_with(thread, niceness(thread))
    }

    fn set_with(self, thread: libc::pid_t, nice: libc::c_int) -> io::Result<()> {
        match self {
            Self::Prompt => schedule(thread, libc::SCHED_OTHER, SHORT, nice),
            Self::Batched => schedule(thread, libc::SCHED_BATCH, USUAL, nice),
        }
    }
}

/// Has the calling thread, which is none of a worker, run in batches (`SCHED_BATCH`) and be as nice as its process; or
/// else soon, in short turns, and less nice than its process where that is allowed. Whether it does so: not where it was
/// given other scheduling, or the kernel refuses.
pub fn run_in_batches(batched: bool) -> bool {
    let usual = niceness(process::id().cast_signed());
    let takes = |turns: Turns, nice| turns.set_with(0, nice).is_ok();
    Turns::has_one(0)
        && match batched {
            true => takes(Turns::Batched, usual),
            false => takes(Turns::Prompt, usual - AHEAD) || takes(Turns::Prompt, usual),
        }
}

/// How nice a thread is. A process has the number of its first one.
fn niceness(thread: libc::pid_t) -> libc::c_int {
    // SAFETY: reads nothing of this process.
    unsafe { libc::getpriority(libc::PRIO_PROCESS, thread.cast_unsigned()) }
}

/// Changes the policy of a thread, how long its turns are, and how nice it is.
fn schedule(thread: libc::pid_t, policy: libc::c_int, turn: Duration, nice: libc::c_int) -> io::Result<()> {
    let attributes = libc::sched_attr {
        size: size_of::<libc::sched_attr>() as u32,
        sched_policy: policy.cast_unsigned(),
        sched_flags: 0,
        sched_nice: nice,
        sched_priority: 0,
        sched_runtime: turn.as_nanos() as u64,
        sched_deadline: 0,
        sched_period: 0,
    };
    // SAFETY: the pointer is to a value on this stack, which the call only reads, and which says its size.
    match unsafe { libc::syscall(libc::SYS_sched_setattr, thread, &raw const attributes, 0) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::mpsc, thread};

    use super::*;

    #[test]
    fn turns_follow_the_load_and_do_not_flap() {
        let (prompt, batched) = (Turns::Prompt, Turns::Batched);
        for (calls, cores) in [(0.0, 0.0), (50.0, 0.01), (1_999.0, 0.19)] {
            assert_eq!(prompt.at(calls, cores), prompt, "{calls} {cores}");
        }
        for (calls, cores) in [(2_000.0, 0.0), (80_000.0, 0.3), (0.0, 0.2), (200.0, 1.0)] {
            assert_eq!(prompt.at(calls, cores), batched, "{calls} {cores}");
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
        // SAFETY: reads nothing of this process.
        let policy = || unsafe { libc::sched_getscheduler(0) };
        let usual = niceness(process::id().cast_signed());
        let ahead = if may_be_less_nice() { (usual - AHEAD).max(-20) } else { usual };
        for (batched, turns, expected, nice) in [
            (true, Turns::Batched, libc::SCHED_BATCH, usual),
            (false, Turns::Prompt, libc::SCHED_OTHER, ahead),
            (true, Turns::Batched, libc::SCHED_BATCH, usual),
        ] {
            assert!(run_in_batches(batched));
            assert_eq!((policy(), niceness(0)), (expected, nice));
            let turn = turn();
            turns.take().unwrap();
            assert_eq!(turn, self::turn());
        }
        // SAFETY: reads the policy alone.
        unsafe { libc::sched_setscheduler(0, libc::SCHED_IDLE, &libc::sched_param { sched_priority: 0 }) };
        assert!(!run_in_batches(true));
        assert_eq!(policy(), libc::SCHED_IDLE);
    }

    /// Whether a thread of this process may be less nice than it is.
    fn may_be_less_nice() -> bool {
        // SAFETY: changes that one thread alone, which ends.
        let tries = || unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, niceness(0) - AHEAD) };
        thread::spawn(tries).join().unwrap() == 0
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
