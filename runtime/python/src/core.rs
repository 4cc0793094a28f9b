//! What all threads of the worker share.

use std::{
    collections::HashMap,
    io,
    os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd},
    ptr,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicPtr, AtomicU32, AtomicUsize, Ordering},
    },
    time::Instant,
};

use pyo3::prelude::*;
use rustix::io::{FdFlags, fcntl_setfd};

use crate::{
    baton::Baton,
    channel::{Channel, Flushed, UNSENT_BYTES},
    fork,
    frame::Header,
    function::Function,
    monitor::Monitor,
    runners::{CallKey, Runners},
    stream::Credit,
    task::{Loop, Task},
    writer::Writer,
};

/// Exit status after a frame that cannot be read, from sysexits.h.
const EX_SOFTWARE: i32 = 70;

/// Set once, and once more in an instance that a zygote forked, while that has one thread.
static CORE: AtomicPtr<Core> = AtomicPtr::new(ptr::null_mut());
/// This process is a fork of a worker: it must not touch the channels.
static FORKED: AtomicBool = AtomicBool::new(false);

/// The worker.
pub(crate) struct Core {
    pub(crate) channels: Vec<Channel>,
    pub(crate) baton: Baton,
    pub(crate) monitor: Monitor,
    pub(crate) writer: Writer,
    pub(crate) runners: Runners,
    pub(crate) tasks: Loop,
    /// Index of the function the leader is in.
    pub(crate) calling: AtomicU32,
    /// The channel whose calls were served last.
    pub(crate) served: AtomicUsize,
    app: OnceLock<App>,
    tracked: Mutex<HashMap<CallKey, Tracked>>,
}

/// The app, once it is loaded.
pub(crate) struct App {
    pub(crate) functions: Vec<Function>,
    pub(crate) max_reply_bytes: usize,
}

/// A call that goes on after its function returned.
pub(crate) enum Tracked {
    Stream(Arc<Credit>),
    Task(Py<Task>),
}

impl Core {
    /// Takes the inherited channels.
    pub(crate) fn inherit(channels: &[RawFd]) -> io::Result<&'static Self> {
        channels.iter().map(|&fd| inherit(fd)).collect::<io::Result<_>>().map(Self::install)
    }

    /// Makes a worker with these channels that of this process. What there was before is left alone from now on.
    pub(crate) fn install(channels: Vec<OwnedFd>) -> &'static Self {
        let core: &'static Self = Box::leak(Box::new(Self {
            channels: channels.into_iter().map(Channel::new).collect(),
            baton: Baton::new(),
            monitor: Monitor::new(),
            writer: Writer::default(),
            runners: Runners::new(),
            tasks: Loop::default(),
            calling: AtomicU32::new(0),
            served: AtomicUsize::new(0),
            app: OnceLock::new(),
            tracked: Mutex::default(),
        }));
        CORE.store(ptr::from_ref(core).cast_mut(), Ordering::Release);
        core
    }

    /// Starts the helper threads. Until then the process has only the one that loads the app.
    pub(crate) fn start_threads(&'static self) -> io::Result<()> {
        self.writer.start(self)?;
        self.monitor.start(self)?;
        // What was not taken so far is the writer's now.
        self.flush_all();
        Ok(())
    }

    /// The worker of this process, unless it is a fork of a worker.
    pub(crate) fn get() -> Option<&'static Self> {
        if is_forked() {
            return None;
        }
        // SAFETY: null or a reference that lives as long as the process, of a type that is `Sync`.
        unsafe { CORE.load(Ordering::Acquire).as_ref() }
    }

    /// Sets what was loaded. Later calls change nothing.
    pub(crate) fn set_app(&self, app: App) {
        self.app.get_or_init(|| app);
    }

    /// What was loaded, if it was.
    pub(crate) fn app(&self) -> Option<&App> {
        self.app.get()
    }

    pub(crate) fn function(&self, index: u32) -> Option<&Function> {
        self.app.get()?.functions.get(index as usize)
    }

    pub(crate) fn max_reply_bytes(&self) -> usize {
        self.app.get().map_or(usize::MAX, |app| app.max_reply_bytes)
    }

    /// Adds a frame to what is to be written; it goes out with the next flush.
    pub(crate) fn push(&self, channel: usize, header: Header, meta: &[u8], body: &[u8]) {
        self.channels[channel].push(header, meta, body);
    }

    /// Writes what is there for this channel, without waiting.
    pub(crate) fn flush(&self, channel: usize) {
        if is_forked() {
            return;
        }
        if !self.writer.is_started() {
            self.channels[channel].write_until(usize::MAX, None);
        } else if self.channels[channel].flush() == Flushed::Stuck {
            self.writer.watch(channel);
        }
    }

    /// Writes what is there for all channels, with the round's answers, without waiting.
    ///
    /// # Safety
    /// The caller owns leadership.
    pub(crate) unsafe fn flush_round(&self) {
        for (number, channel) in self.channels.iter().enumerate() {
            // SAFETY: by the contract above, and nothing else is borrowed.
            if !is_forked() && unsafe { channel.flush_round() } == Flushed::Stuck {
                self.writer.watch(number);
            }
        }
    }

    pub(crate) fn flush_all(&self) {
        for channel in 0..self.channels.len() {
            self.flush(channel);
        }
    }

    /// Writes everything, waiting for the node until `deadline`.
    pub(crate) fn drain(&self, py: Python<'_>, deadline: Instant) {
        self.flush_all();
        py.detach(|| {
            for channel in &self.channels {
                if self.writer.is_started() {
                    channel.wait_until_sent(deadline);
                } else {
                    channel.write_until(0, Some(deadline));
                }
            }
        });
    }

    /// Waits, without the GIL, until the node has read enough of a crowded channel.
    pub(crate) fn wait_for_room(&self, py: Python<'_>, channel: usize) {
        let channel = &self.channels[channel];
        py.detach(|| {
            if self.writer.is_started() { channel.wait_for_room() } else { channel.write_until(UNSENT_BYTES, None) }
        });
    }

    /// The calls that go on after their function returned.
    pub(crate) fn tracked(&self) -> MutexGuard<'_, HashMap<CallKey, Tracked>> {
        self.tracked.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether this process is a fork of a worker.
#[inline]
pub(crate) fn is_forked() -> bool {
    FORKED.load(Ordering::Relaxed)
}

/// Ends a fork that came back from user code: it has nobody to answer to.
#[inline]
pub(crate) fn leave_if_forked(py: Python<'_>) {
    if is_forked() {
        leave(py);
    }
}

#[cold]
fn leave(py: Python<'_>) -> ! {
    for stream in ["stdout", "stderr"] {
        // What cannot be written any more is lost, as at any exit.
        let _ = py.import("sys").and_then(|sys| sys.getattr(stream)?.call_method0("flush"));
    }
    quit(0);
}

/// In a new fork: lets go of the channels. True, and nothing is done, in an instance that a zygote forks.
#[pyfunction]
pub(crate) fn after_fork() -> bool {
    if fork::makes_instance() {
        return true;
    }
    let_go();
    false
}

fn let_go() {
    let Some(core) = Core::get() else { return };
    FORKED.store(true, Ordering::Relaxed);
    // SAFETY: plain system calls. The descriptors stay taken, by /dev/null, so that a file the fork opens cannot get
    // the number of a channel.
    unsafe {
        let null = libc::open(c"/dev/null".as_ptr(), libc::O_RDWR | libc::O_CLOEXEC);
        for channel in &core.channels {
            libc::dup3(null, channel.socket().as_raw_fd(), libc::O_CLOEXEC);
        }
        libc::close(null);
    }
}

/// Ends the process at once, without Python's or C's exit handlers.
pub(crate) fn quit(status: i32) -> ! {
    // SAFETY: no precondition.
    unsafe { libc::_exit(status) }
}

/// Ends the process because the node and the worker do not understand each other.
pub(crate) fn die(reason: &str) -> ! {
    eprintln!("fnmesh worker: {reason}");
    quit(EX_SOFTWARE)
}

fn inherit(fd: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: the node hands these descriptors to the worker for its use alone; a wrong number fails just below.
    let socket = unsafe { OwnedFd::from_raw_fd(fd) };
    fcntl_setfd(&socket, FdFlags::CLOEXEC)?;
    Ok(socket)
}
