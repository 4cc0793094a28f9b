//! The thread that sees when the leader's call lasts, and sends another one to take leadership. It never takes the GIL
//! itself.

use std::{
    io,
    sync::{
        OnceLock,
        atomic::{AtomicBool, AtomicI32, AtomicU64, Ordering},
    },
    thread::{self, Thread},
    time::{Duration, Instant},
};

use pyo3::Python;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::{
    baton::Look,
    core::{Core, quit},
    usage::{self, Usage},
};

/// Time between two looks. A call that is seen by two looks has lasted that long.
pub(crate) const LOOK: Duration = Duration::from_millis(1);
/// CPU time that the leader may use for a call, and time that it may take, until another thread takes leadership although
/// it computes: before, that thread would be one more that wants the interpreter, and serve nobody sooner. The more such
/// threads there are, the less CPU time each of them gets, so that they do not become many.
const PATIENCE: Duration = Duration::from_millis(20);
const LONGEST_PATIENCE: Duration = Duration::from_millis(100);
/// How long a process whose threads had to leave their cores has to do nothing until that means that it waits.
const CALM: Duration = Duration::from_millis(5);
/// A call that computes for so great a part of the time does not block.
const COMPUTING_PART: u32 = 4;
/// A process that computes for so great a part of the time on one core is saturated. It may not have one for itself.
const SATURATED_PART: u32 = 2;
/// Looks at a waiting leader before the thread goes to sleep.
const IDLE_LOOKS: u32 = 10;
/// Looks between two at what the process uses.
const USAGE_LOOKS: u64 = 16;
/// Looks between two checks whether the node is still there, for the case that nobody can read.
const ALIVE_LOOKS: u64 = 256;

/// Its handle, and the clock it drives.
pub(crate) struct Monitor {
    thread: OnceLock<Thread>,
    asleep: AtomicBool,
    looks: AtomicU64,
    /// A thread is on its way to take leadership.
    sent: AtomicBool,
    /// It is to take leadership even if the call computes.
    insists: AtomicBool,
    /// The clock of the leader's CPU time.
    clock: AtomicI32,
    /// The process computed half of the time lately, or more.
    saturated: AtomicBool,
}

impl Monitor {
    pub(crate) const fn new() -> Self {
        Self {
            thread: OnceLock::new(),
            asleep: AtomicBool::new(false),
            looks: AtomicU64::new(0),
            sent: AtomicBool::new(false),
            insists: AtomicBool::new(false),
            clock: AtomicI32::new(libc::CLOCK_PROCESS_CPUTIME_ID),
            saturated: AtomicBool::new(false),
        }
    }

    /// Starts the thread.
    pub(crate) fn start(&self, core: &'static Core) -> io::Result<()> {
        let handle = thread::Builder::new().name("fnmesh-monitor".into()).spawn(move || core.monitor.run(core))?;
        self.thread.get_or_init(|| handle.thread().clone());
        Ok(())
    }

    /// A clock of about a millisecond that costs one load; it stands still while the leader waits.
    pub(crate) fn looks(&self) -> u64 {
        self.looks.load(Ordering::Relaxed)
    }

    /// Whether the process computed half of the time lately, or more, so that threads wait for the interpreter.
    pub(crate) fn is_saturated(&self) -> bool {
        self.saturated.load(Ordering::Relaxed)
    }

    /// The calling thread leads from now on.
    pub(crate) fn follow(&self) {
        self.clock.store(usage::clock_of_thread(), Ordering::Relaxed);
    }

    /// Wakes the thread if it sleeps. The leader calls this when it has left its wait.
    pub(crate) fn wake(&self) {
        // Ordered after the leader's change of state, as `sleep` orders its look after `asleep`: one of both sees the other.
        let was_asleep = self.asleep.load(Ordering::SeqCst) && self.asleep.swap(false, Ordering::SeqCst);
        if let (true, Some(thread)) = (was_asleep, self.thread.get()) {
            thread.unpark();
        }
    }

    /// The thread that was sent, which has the GIL now, takes leadership. False if the call that was seen is over, or if it
    /// `computes`, as the wait for the GIL has shown, and may go on.
    pub(crate) fn take(&self, py: Python<'_>, core: &Core, seen: Look, computes: bool) -> bool {
        let insists = self.insists.load(Ordering::Relaxed);
        self.sent.store(false, Ordering::Release);
        let taken = (insists || !computes) && core.baton.take(py, seen);
        if taken && !insists {
            // The call that was seen still runs, so this is its function.
            if let Some(function) = core.function(core.calling.load(Ordering::Relaxed)) {
                function.note_suspect();
            }
        }
        taken
    }

    fn run(&self, core: &'static Core) {
        let mut watch: Option<Watch> = None;
        let mut before = (Instant::now(), Usage::of_process());
        let mut idle = 0;
        loop {
            thread::sleep(LOOK);
            let looks = self.looks.fetch_add(1, Ordering::Relaxed);
            let seen = core.baton.look();
            watch = seen.calling().then(|| match watch {
                Some(mut watch) if watch.seen == seen => {
                    match watch.look(self.leader_cpu()) {
                        Doing::Computes => {}
                        doing => relieve(core, seen, doing == Doing::Lasts),
                    }
                    watch
                }
                _ => Watch::new(seen, self.leader_cpu()),
            });
            if looks.is_multiple_of(USAGE_LOOKS) {
                let now = (Instant::now(), Usage::of_process());
                let used = now.1.cpu.saturating_sub(before.1.cpu);
                self.saturated.store(used >= (now.0 - before.0) / SATURATED_PART, Ordering::Relaxed);
                before = now;
            }
            idle = if seen.waiting() { idle + 1 } else { 0 };
            if idle > IDLE_LOOKS {
                self.sleep(core);
                idle = 0;
            }
            if looks.is_multiple_of(ALIVE_LOOKS) && node_is_gone(core) {
                quit(0);
            }
        }
    }

    fn leader_cpu(&self) -> Duration {
        usage::cpu_time(self.clock.load(Ordering::Relaxed))
    }

    fn sleep(&self, core: &Core) {
        self.asleep.store(true, Ordering::SeqCst);
        while self.asleep.load(Ordering::SeqCst) && core.baton.look().waiting() {
            thread::park();
        }
        self.asleep.store(false, Ordering::SeqCst);
    }
}

/// A call that is looked at again and again.
struct Watch {
    seen: Look,
    since: Instant,
    /// The CPU time that its thread had used then.
    leader_cpu: Duration,
    /// Since when no thread of the process had to leave its core.
    calm: (Instant, Usage),
    /// For how long it has to be calm to be trusted.
    wanted: Duration,
}

/// What a call does, as far as the process shows it.
#[derive(PartialEq, Eq)]
enum Doing {
    Blocks,
    Computes,
    /// It computes, and has done so for long.
    Lasts,
}

impl Watch {
    fn new(seen: Look, leader_cpu: Duration) -> Self {
        let since = Instant::now();
        Self { seen, since, leader_cpu, calm: (since, Usage::of_process()), wanted: Duration::ZERO }
    }

    fn look(&mut self, leader_cpu: Duration) -> Doing {
        let now = (Instant::now(), Usage::of_process());
        if now.0 - self.since >= LONGEST_PATIENCE || leader_cpu.saturating_sub(self.leader_cpu) >= PATIENCE {
            return Doing::Lasts;
        }
        if now.1.preemptions != self.calm.1.preemptions {
            // It may wait for its core only.
            (self.calm, self.wanted) = (now, CALM);
        }
        let took = now.0 - self.calm.0;
        let used = now.1.cpu.saturating_sub(self.calm.1.cpu);
        if took >= self.wanted && used < took / COMPUTING_PART { Doing::Blocks } else { Doing::Computes }
    }
}

/// Sends another thread to take leadership from the leader if that is still in the call that was seen.
fn relieve(core: &'static Core, seen: Look, insists: bool) {
    // The one that was sent before waits for the GIL still.
    if core.monitor.sent.load(Ordering::Acquire) {
        return;
    }
    let Some(next) = core.runners.reserve(core) else { return };
    core.monitor.insists.store(insists, Ordering::Relaxed);
    core.monitor.sent.store(true, Ordering::Release);
    next.send(seen);
}

fn node_is_gone(core: &Core) -> bool {
    let mut polls = [PollFd::from_borrowed_fd(core.channels[0].socket(), PollFlags::empty())];
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    poll(&mut polls, Some(&now)).is_ok_and(|ready| ready > 0 && polls[0].revents().contains(PollFlags::HUP))
}
