//! The thread that sees when the leader's call lasts, and sends another one to take leadership. It never takes the GIL
//! itself.

use std::{
    io,
    sync::{
        OnceLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, Thread},
    time::Duration,
};

use pyo3::Python;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::{
    baton::Look,
    core::{Core, quit},
};

/// Time between two looks. A call that is seen by two looks has lasted that long.
pub(crate) const LOOK: Duration = Duration::from_millis(1);
/// Looks at a waiting leader before the thread goes to sleep.
const IDLE_LOOKS: u32 = 10;
/// Looks between two checks whether the node is still there, for the case that nobody can read.
const ALIVE_LOOKS: u64 = 256;

/// Its handle, and the clock it drives.
pub(crate) struct Monitor {
    thread: OnceLock<Thread>,
    asleep: AtomicBool,
    looks: AtomicU64,
    /// A thread is on its way to take leadership.
    sent: AtomicBool,
}

impl Monitor {
    pub(crate) const fn new() -> Self {
        Self {
            thread: OnceLock::new(),
            asleep: AtomicBool::new(false),
            looks: AtomicU64::new(0),
            sent: AtomicBool::new(false),
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

    /// Wakes the thread if it sleeps. The leader calls this when it has left its wait.
    pub(crate) fn wake(&self) {
        // Ordered after the leader's change of state, as `sleep` orders its look after `asleep`: one of both sees the other.
        let was_asleep = self.asleep.load(Ordering::SeqCst) && self.asleep.swap(false, Ordering::SeqCst);
        if let (true, Some(thread)) = (was_asleep, self.thread.get()) {
            thread.unpark();
        }
    }

    /// The thread that was sent, which has the GIL now, takes leadership. False if the call that was seen is over.
    pub(crate) fn take(&self, py: Python<'_>, core: &Core, seen: Look) -> bool {
        self.sent.store(false, Ordering::Release);
        let taken = core.baton.take(py, seen);
        if taken {
            // The call that was seen still runs, so this is its function.
            if let Some(function) = core.function(core.calling.load(Ordering::Relaxed)) {
                function.note_suspect();
            }
        }
        taken
    }

    fn run(&self, core: &'static Core) {
        let mut last = None;
        let mut idle = 0;
        loop {
            thread::sleep(LOOK);
            let looks = self.looks.fetch_add(1, Ordering::Relaxed);
            let seen = core.baton.look();
            if seen.calling() && last == Some(seen) {
                relieve(core, seen);
            }
            last = Some(seen);
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

    fn sleep(&self, core: &Core) {
        self.asleep.store(true, Ordering::SeqCst);
        while self.asleep.load(Ordering::SeqCst) && core.baton.look().waiting() {
            thread::park();
        }
        self.asleep.store(false, Ordering::SeqCst);
    }
}

/// Sends another thread to take leadership from the leader if that is still in the call that was seen.
fn relieve(core: &'static Core, seen: Look) {
    // The one that was sent before waits for the GIL still.
    if core.monitor.sent.load(Ordering::Acquire) {
        return;
    }
    let Some(next) = core.runners.reserve(core) else { return };
    core.monitor.sent.store(true, Ordering::Release);
    next.send(seen);
}

fn node_is_gone(core: &Core) -> bool {
    let mut polls = [PollFd::from_borrowed_fd(core.channels[0].socket(), PollFlags::empty())];
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    poll(&mut polls, Some(&now)).is_ok_and(|ready| ready > 0 && polls[0].revents().contains(PollFlags::HUP))
}
