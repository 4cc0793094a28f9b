//! The threads that run user code. One of them leads; the others run a call or are parked.

use std::{
    cell::Cell,
    panic::{AssertUnwindSafe, catch_unwind},
    ptr,
    sync::{
        Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    thread::{self, Thread},
    time::{Duration, Instant},
};

use pyo3::{ffi, prelude::*};

use crate::{
    baton::Look,
    call::{Call, Workspace},
    core::{Core, die},
    leader,
};

/// As large as the main thread's usually is, so that recursion reaches equally deep in every thread.
const STACK_BYTES: usize = 8 * 1024 * 1024;

/// A thread that waits so long for the interpreter waits for one that computes: CPython takes its lock from such a thread
/// after the switch interval, a millisecond here (`_load.py`), unless the app sets a shorter one; while one that blocks
/// gives it away.
const HELD: Duration = Duration::from_micros(800);

/// Mandates of a runner.
const NOTHING: u64 = 0;
const LEAD: u64 = 1;

thread_local! {
    static CURRENT: Cell<Option<&'static Runner>> = const { Cell::new(None) };
}

/// A call's name in the worker: its channel and its id there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct CallKey {
    pub(crate) channel: usize,
    pub(crate) id: u32,
}

impl CallKey {
    /// Never 0, as ids are not.
    fn packed(self) -> u64 {
        (self.channel as u64) << 32 | u64::from(self.id)
    }
}

/// A thread that runs user code, with its Python thread state, for the life of the process.
pub(crate) struct Runner {
    thread: OnceLock<Thread>,
    /// What the thread is to do: nothing, [`LEAD`], or to take leadership from the call of this [`Look`].
    mandate: AtomicU64,
    /// Python's name of the thread.
    ident: AtomicU64,
    /// The call whose user code this thread is in, packed, or 0. Changes under the GIL only.
    running: AtomicU64,
    /// `fnmesh.Cancelled` was sent to this thread for that call. Changes under the GIL only.
    cancelled: AtomicBool,
    /// What the baton said when this thread entered user code as the leader, packed, or 0.
    entered: Cell<u64>,
    /// The call that this thread's code belongs to, or null.
    call: Cell<*const Call>,
    /// Code of the call wrote something that may be part of a line.
    wrote: Cell<bool>,
}

// SAFETY: `entered`, `call` and `wrote` are used by the runner's own thread only, which has it from `Runner::current` or
// from the loop it runs.
unsafe impl Sync for Runner {}
// SAFETY: as above: the thread that starts the runner's own one does not use them.
unsafe impl Send for Runner {}

impl Default for Runner {
    fn default() -> Self {
        Self {
            thread: OnceLock::new(),
            mandate: AtomicU64::new(NOTHING),
            ident: AtomicU64::new(0),
            running: AtomicU64::new(0),
            cancelled: AtomicBool::new(false),
            entered: Cell::new(0),
            call: Cell::new(ptr::null()),
            wrote: Cell::new(false),
        }
    }
}

impl Runner {
    /// The calling thread's runner, if it is one.
    pub(crate) fn current() -> Option<&'static Self> {
        CURRENT.get()
    }

    /// Makes the calling thread a runner.
    pub(crate) fn enlist(&'static self, _: Python<'_>) {
        // SAFETY: the call has no precondition.
        let ident = unsafe { ffi::PyThread_get_thread_ident() };
        self.ident.store(ident, Ordering::Relaxed);
        self.thread.get_or_init(thread::current);
        CURRENT.set(Some(self));
    }

    /// Makes this parked thread the leader.
    pub(crate) fn appoint(&self) {
        self.wake(LEAD);
    }

    /// Makes this parked thread the leader if the leader still is in the call that was seen.
    pub(crate) fn send(&self, seen: Look) {
        self.wake(seen.packed());
    }

    fn wake(&self, mandate: u64) {
        self.mandate.store(mandate, Ordering::Release);
        if let Some(thread) = self.thread.get() {
            thread.unpark();
        }
    }

    fn wait_for_mandate(&self) -> u64 {
        loop {
            match self.mandate.load(Ordering::Acquire) {
                NOTHING => thread::park(),
                mandate => return mandate,
            }
        }
    }

    /// Remembers, for [`Self::defers_output`], how this thread entered user code. What it remembered before.
    #[inline]
    pub(crate) fn set_entered(&self, entered: Option<Look>) -> Option<Look> {
        unpack(self.entered.replace(entered.map_or(0, Look::packed)))
    }

    /// Whether this thread leads and is inside user code: then what it writes goes out at the end of the round.
    pub(crate) fn defers_output(&self, core: &Core) -> bool {
        unpack(self.entered.get()).is_some_and(|entered| core.baton.look() == entered)
    }

    /// Makes `call` this thread's call while `code` runs.
    #[inline(always)]
    pub(crate) fn scope<T>(&self, call: &Call, code: impl FnOnce() -> T) -> T {
        struct Leave<'a>(&'a Cell<*const Call>);
        impl Drop for Leave<'_> {
            fn drop(&mut self) {
                self.0.set(ptr::null());
            }
        }
        self.call.set(call);
        let _leave = Leave(&self.call);
        code()
    }

    /// This thread's call.
    pub(crate) fn with_call<T>(&self, code: impl FnOnce(&Call) -> T) -> Option<T> {
        // SAFETY: the pointer is set by `scope` only, which borrows the call for as long.
        unsafe { self.call.get().as_ref() }.map(code)
    }

    /// Notes that there may be a line to end with the call.
    pub(crate) fn note_written(&self) {
        self.wrote.set(true);
    }

    /// Whether [`Self::note_written`] was called since the last time.
    #[inline]
    pub(crate) fn has_written(&self) -> bool {
        self.wrote.replace(false)
    }

    /// Runs user code that [`Runners::interrupt`] may cancel. True beside its result if that happened.
    #[inline(always)]
    pub(crate) fn interruptible<T>(&self, _: Python<'_>, key: CallKey, code: impl FnOnce() -> T) -> (T, bool) {
        struct Leave<'a>(&'a AtomicU64);
        impl Drop for Leave<'_> {
            fn drop(&mut self) {
                self.0.store(0, Ordering::Relaxed);
            }
        }
        self.running.store(key.packed(), Ordering::Relaxed);
        let leave = Leave(&self.running);
        let result = code();
        drop(leave);
        let cancelled = self.cancelled.load(Ordering::Relaxed);
        if cancelled {
            self.cancelled.store(false, Ordering::Relaxed);
            // Takes the exception back if the thread has not met it yet, so that it cannot hit anything else.
            // SAFETY: the GIL is held; a null exception clears.
            unsafe { ffi::PyThreadState_SetAsyncExc(self.ident.load(Ordering::Relaxed) as _, ptr::null_mut()) };
        }
        (result, cancelled)
    }
}

/// What [`Runner::set_entered`] packed.
fn unpack(entered: u64) -> Option<Look> {
    (entered != 0).then(|| Look::unpack(entered))
}

/// All runners.
pub(crate) struct Runners {
    limit: AtomicUsize,
    list: Mutex<List>,
}

#[derive(Default)]
struct List {
    all: Vec<&'static Runner>,
    /// The last one parked comes first: its stack is still in the cache.
    idle: Vec<&'static Runner>,
}

impl Runners {
    pub(crate) fn new() -> Self {
        Self { limit: AtomicUsize::new(1), list: Mutex::default() }
    }

    /// Allows a thread for each call the node keeps in flight, and one more to lead.
    pub(crate) fn set_limit(&self, concurrency: usize) {
        self.limit.store(concurrency.saturating_add(1), Ordering::Relaxed);
    }

    /// A thread that waits to be appointed; started if there is none and the limit allows one more.
    pub(crate) fn reserve(&self, core: &'static Core) -> Option<&'static Runner> {
        let mut list = self.list();
        if let Some(idle) = list.idle.pop() {
            return Some(idle);
        }
        if list.all.len() >= self.limit.load(Ordering::Relaxed) {
            return None;
        }
        // Lives as long as its thread, which is as long as the process.
        let runner: &'static Runner = Box::leak(Box::default());
        let name = format!("fnmesh-{}", list.all.len());
        let builder = thread::Builder::new().name(name).stack_size(STACK_BYTES);
        let handle = builder.spawn(move || start(core, runner)).ok()?;
        runner.thread.get_or_init(|| handle.thread().clone());
        list.all.push(runner);
        Some(runner)
    }

    /// Gives back a thread that was reserved and not appointed, or parks the calling one.
    pub(crate) fn put_back(&self, runner: &'static Runner) {
        self.list().idle.push(runner);
    }

    /// The calling thread becomes the first runner.
    pub(crate) fn enlist_first(&self, py: Python<'_>) -> &'static Runner {
        let runner: &'static Runner = Box::leak(Box::default());
        runner.enlist(py);
        self.list().all.push(runner);
        runner
    }

    /// The main thread becomes a runner and the first leader.
    pub(crate) fn lead_first(&self, py: Python<'_>, core: &'static Core) -> ! {
        let runner = self.enlist_first(py);
        runner.mandate.store(LEAD, Ordering::Release);
        run(py, core, runner)
    }

    /// Raises `fnmesh.Cancelled` in the thread that is in this call's user code, if there is one.
    pub(crate) fn interrupt(&self, exception: &Bound<'_, PyAny>, key: CallKey) {
        let running =
            self.list().all.iter().copied().find(|runner| runner.running.load(Ordering::Relaxed) == key.packed());
        let Some(runner) = running else { return };
        runner.cancelled.store(true, Ordering::Relaxed);
        let ident = runner.ident.load(Ordering::Relaxed) as std::ffi::c_long;
        // SAFETY: the GIL is held, so the thread still is in this call and stays there until it gets the GIL.
        unsafe { ffi::PyThreadState_SetAsyncExc(ident, exception.as_ptr()) };
    }

    fn list(&self) -> MutexGuard<'_, List> {
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn start(core: &'static Core, runner: &'static Runner) {
    // The thread state is made when the thread is needed first, and kept: making one for each call would cost more than the call.
    runner.wait_for_mandate();
    Python::attach(|py| {
        runner.enlist(py);
        run(py, core, runner)
    })
}

fn run(py: Python<'_>, core: &'static Core, runner: &'static Runner) -> ! {
    let mut workspace = Workspace::default();
    loop {
        let (mandate, since) = py.detach(|| (runner.wait_for_mandate(), Instant::now()));
        runner.mandate.store(NOTHING, Ordering::Relaxed);
        if mandate != LEAD && !core.monitor.take(py, core, Look::unpack(mandate), since.elapsed() >= HELD) {
            core.runners.put_back(runner);
            continue;
        }
        // A leader that dies would leave a worker that never answers again.
        catch_unwind(AssertUnwindSafe(|| leader::lead(py, core, runner, &mut workspace)))
            .unwrap_or_else(|_| die("the leader panicked"));
        core.runners.put_back(runner);
    }
}
