//! Calls that the event loop finishes: coroutines and asynchronous generators.

use std::sync::{
    Mutex, MutexGuard, PoisonError,
    atomic::{AtomicBool, Ordering},
};

use pyo3::{prelude::*, sync::PyOnceLock, types::PyString};

use crate::{
    call::Call,
    core::{Core, Tracked, leave_if_forked},
    failure::Failure,
    frame::{Header, Kind},
    logs::{self, Lines},
    package,
    reply::{Content, Reply},
    stream::{self, Credit},
};

/// The way to the event loop's thread.
#[derive(Default)]
pub(crate) struct Loop {
    queue: Mutex<Vec<Py<Task>>>,
    /// A flush at the end of this turn of the event loop has been asked for.
    flushes: AtomicBool,
    /// The event loop has been started.
    used: AtomicBool,
}

/// A call on the event loop.
#[pyclass(frozen, module = "fnmesh")]
pub(crate) struct Task {
    pub(crate) call: Call,
    pub(crate) lines: Mutex<Lines>,
    work: Mutex<Option<Py<PyAny>>>,
    /// The `asyncio.Task`, once there is one.
    handle: Mutex<Option<Py<PyAny>>>,
    credit: Credit,
    /// It waits for credit.
    waits: AtomicBool,
    cancelled: AtomicBool,
    answered: AtomicBool,
}

/// Gives `work`, an awaitable or an asynchronous iterator, to the event loop.
pub(crate) fn start(py: Python<'_>, core: &Core, call: Call, head: &[u8], work: Bound<'_, PyAny>) {
    let key = call.key;
    let credit = Credit::default();
    if !head.is_empty() {
        credit.try_spend();
        stream::push_head(core, key, head);
    }
    let task = Task {
        call,
        lines: Mutex::default(),
        work: Mutex::new(Some(work.unbind())),
        handle: Mutex::new(None),
        credit,
        waits: AtomicBool::new(false),
        cancelled: AtomicBool::new(false),
        answered: AtomicBool::new(false),
    };
    if let Err(error) = Py::new(py, task).and_then(|task| core.tasks.enqueue(py, core, task)) {
        // Let go of outside the lock.
        let tracked = core.tracked().remove(&key);
        drop(tracked);
        Failure::raised(py, error).push(core, key);
    }
}

impl Loop {
    /// Whether there can be a task in the context of the calling thread.
    pub(crate) fn is_used(&self) -> bool {
        self.used.load(Ordering::Relaxed)
    }

    fn enqueue(&self, py: Python<'_>, core: &Core, task: Py<Task>) -> PyResult<()> {
        // First, so that a cancel finds it while the loop is imported.
        core.tracked().insert(task.get().call.key, Tracked::Task(task.clone_ref(py)));
        let wake = package::event_loop(py, "wake")?;
        self.used.store(true, Ordering::Relaxed);
        let mut queue = self.queue();
        queue.push(task);
        let first = queue.len() == 1;
        drop(queue);
        // One that is not the first one has a wake-up on its way that will find it, too.
        if first { wake.call0().map(drop) } else { Ok(()) }
    }

    fn queue(&self) -> MutexGuard<'_, Vec<Py<Task>>> {
        lock(&self.queue)
    }
}

/// The calls that wait to be started on the event loop.
#[pyfunction]
pub(crate) fn take_tasks() -> Vec<Py<Task>> {
    Core::get().map(|core| std::mem::take(&mut *core.tasks.queue())).unwrap_or_default()
}

/// Writes what the event loop's calls have answered in this turn.
#[pyfunction]
pub(crate) fn flush_tasks() {
    if let Some(core) = Core::get() {
        core.tasks.flushes.store(false, Ordering::Relaxed);
        core.flush_all();
    }
}

#[pymethods]
impl Task {
    /// What is to be awaited or iterated; once.
    fn work(&self) -> Option<Py<PyAny>> {
        lock(&self.work).take()
    }

    fn set_handle(&self, handle: Py<PyAny>) {
        *lock(&self.handle) = Some(handle);
    }

    fn handle(&self, py: Python<'_>) -> Option<Py<PyAny>> {
        lock(&self.handle).as_ref().map(|handle| handle.clone_ref(py))
    }

    /// Whether its code was begun.
    #[getter]
    fn begun(&self) -> bool {
        lock(&self.work).is_none()
    }

    #[getter]
    fn cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Relaxed)
    }

    /// Answers with `value`. If it is a stream or has to be awaited, returns it: the event loop goes on with it.
    fn answer<'py>(&self, py: Python<'py>, value: Bound<'py, PyAny>) -> PyResult<Option<Bound<'py, PyAny>>> {
        leave_if_forked(py);
        let Some(core) = Core::get() else { return Ok(None) };
        let mut buffer = Vec::new();
        match Reply::new(value, core.max_reply_bytes(), &mut buffer) {
            Ok(Reply { head, content: Content::Items(items) }) => {
                self.send_head(core, &head);
                Ok(Some(items.into_any()))
            }
            Ok(Reply { head, content: Content::Awaits(work) }) => {
                self.send_head(core, &head);
                Ok(Some(work))
            }
            Ok(reply) => self.finish(py, core, || reply.push(core, self.call.key, &buffer)).map(|()| None),
            Err(failure) => self.finish(py, core, || failure.push(core, self.call.key)).map(|()| None),
        }
    }

    /// Spends credit for one chunk. If there is none, `fnmesh._loop.resume` is called when there is.
    fn may_send(&self) -> bool {
        self.waits.store(true, Ordering::Relaxed);
        let may = self.credit.try_spend();
        self.waits.store(!may, Ordering::Relaxed);
        may
    }

    /// Sends one item. False if it cannot be sent, which answers the call.
    fn send<'py>(&self, py: Python<'py>, item: Bound<'py, PyAny>) -> PyResult<bool> {
        leave_if_forked(py);
        let Some(core) = Core::get() else { return Ok(false) };
        let mut buffer = Vec::new();
        match Content::item(item, core.max_reply_bytes(), &mut buffer) {
            Ok(chunk) => {
                chunk.push_chunk(core, self.call.key, &buffer);
                flush_soon(py, core).map(|()| true)
            }
            Err(failure) => self.finish(py, core, || failure.push(core, self.call.key)).map(|()| false),
        }
    }

    /// Ends the stream.
    fn end(&self, py: Python<'_>) -> PyResult<()> {
        let Some(core) = Core::get() else { return Ok(()) };
        let key = self.call.key;
        self.finish(py, core, || core.push(key.channel, Header::new(Kind::Result, key.id), &[], &[]))
    }

    /// Answers with what the function raised.
    fn fail(&self, py: Python<'_>, error: Bound<'_, PyAny>) -> PyResult<()> {
        leave_if_forked(py);
        let Some(core) = Core::get() else { return Ok(()) };
        let failure = Failure::raised(py, PyErr::from_value(error));
        self.finish(py, core, || failure.push(core, self.call.key))
    }
}

impl Task {
    /// The one that the calling code belongs to.
    pub(crate) fn current(py: Python<'_>) -> Option<Bound<'_, Self>> {
        static CURRENT: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
        let current = CURRENT.import(py, "fnmesh._loop", "current_task").ok()?;
        current.call0().ok()?.cast_into().ok()
    }

    /// The caller no longer waits.
    pub(crate) fn cancel(&self, this: &Bound<'_, Self>) {
        self.cancelled.store(true, Ordering::Relaxed);
        tell_loop(this, "cancel");
    }

    /// The caller takes so many more chunks.
    pub(crate) fn add_credit(&self, this: &Bound<'_, Self>, chunks: u16) {
        self.credit.add(chunks);
        if self.waits.swap(false, Ordering::Relaxed) {
            tell_loop(this, "resume");
        }
    }

    fn send_head(&self, core: &Core, head: &[u8]) {
        if !head.is_empty() {
            self.credit.try_spend();
            stream::push_head(core, self.call.key, head);
        }
    }

    /// Sends the one answer of this call.
    fn finish(&self, py: Python<'_>, core: &Core, push: impl FnOnce()) -> PyResult<()> {
        if self.answered.swap(true, Ordering::Relaxed) {
            return Ok(());
        }
        let key = self.call.key;
        let tracked = core.tracked().remove(&key);
        logs::end_task(core, self);
        if self.cancelled() {
            Failure::cancelled().push(core, key);
        } else {
            push();
        }
        // Outside the lock: this may be the last reference.
        drop(tracked);
        flush_soon(py, core)
    }
}

/// Flushes at the end of this turn of the event loop, once for all that is answered in it.
fn flush_soon(py: Python<'_>, core: &Core) -> PyResult<()> {
    if core.tasks.flushes.swap(true, Ordering::Relaxed) {
        return Ok(());
    }
    package::event_loop(py, "flush_soon")?.call0().map(drop)
}

fn tell_loop(task: &Bound<'_, Task>, what: &str) {
    let told =
        package::event_loop(task.py(), "tell").and_then(|tell| tell.call1((PyString::new(task.py(), what), task)));
    if let Err(error) = told {
        error.write_unraisable(task.py(), Some(task.as_any()));
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
