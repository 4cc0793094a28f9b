//! What `loadtest/dispatch` measures: calls through the worker's own path without its sockets, and hard-coded loops
//! over CPython's C API beside it.

use std::{
    os::fd::{FromRawFd, OwnedFd, RawFd},
    ptr::null_mut,
};

use pyo3::{exceptions::PyValueError, ffi as py_ffi, prelude::*};
use rustix::net::RecvFlags;

use crate::{call::Workspace, core::Core, ffi, leader, load, package, runners::Runner};

/// The channel whose calls are measured.
const CHANNEL: usize = 1;

/// A worker that has loaded an app and does not serve its channels.
#[pyclass(frozen, module = "fnmesh")]
pub(crate) struct Bench {
    core: &'static Core,
    runner: &'static Runner,
    /// The other end of the channel.
    node: OwnedFd,
}

#[pymethods]
impl Bench {
    /// Starts the worker as `main` does. The `load` frame has to be in channel 0 already; `node` is the other end of
    /// channel 1.
    #[new]
    fn new(py: Python<'_>, channels: Vec<RawFd>, node: RawFd) -> PyResult<Self> {
        package::install(py)?;
        let core = Core::inherit(&channels)?;
        let loaded = load::load(py, core);
        core.start_threads()?;
        load::start(py, core, loaded);
        // SAFETY: the caller gives the descriptor away.
        let node = unsafe { OwnedFd::from_raw_fd(node) };
        Ok(Self { core, runner: core.runners.enlist_first(py), node })
    }

    /// Serves `frames` as one round of the leader, `rounds` times, and returns the seconds it took. `answers` is what
    /// has to come out each time.
    fn dispatch(&self, py: Python<'_>, frames: &[u8], answers: &[u8], rounds: usize) -> PyResult<f64> {
        let (core, runner) = (self.core, self.runner);
        let (mut workspace, mut written) = (Workspace::default(), Vec::new());
        core.baton.work(py);
        let started = cpu_seconds();
        for _ in 0..rounds {
            let mut round = leader::Round::new(core);
            // SAFETY: this thread leads, and the reference ends with this statement.
            unsafe { core.channels[CHANNEL].input() }.add(frames);
            let leads = leader::serve(py, core, runner, &mut workspace, CHANNEL, &mut round);
            // SAFETY: as above.
            unsafe { core.channels[CHANNEL].take_answers(&mut written) };
            if !leads || (written != answers && !self.sends(&written, answers)) {
                return Err(PyValueError::new_err("a call was not answered as it should be"));
            }
        }
        Ok(cpu_seconds() - started)
    }
}

impl Bench {
    /// Whether what was sent and `unsent` are these answers: once in a millisecond those of a round do not wait for its
    /// end.
    fn sends(&self, unsent: &[u8], answers: &[u8]) -> bool {
        let mut sent = vec![0; answers.len()];
        let received = rustix::net::recv(&self.node, &mut sent, RecvFlags::DONTWAIT).map_or(0, |(length, _)| length);
        sent.truncate(received);
        sent.extend_from_slice(unsent);
        sent == answers
    }
}

/// Calls `function` with two C integers, which become a new tuple for each call, and reads a C integer from its result:
/// the sum of the results and the seconds it took.
#[pyfunction]
pub(crate) fn call_object(function: &Bound<'_, PyAny>, left: i64, right: i64, calls: usize) -> PyResult<(i64, f64)> {
    // SAFETY: the GIL is held. `PyTuple_SetItem` takes over the integers; the tuple and the result are owned here.
    timed(function, calls, || unsafe {
        let arguments = py_ffi::PyTuple_New(2);
        py_ffi::PyTuple_SetItem(arguments, 0, py_ffi::PyLong_FromLongLong(left));
        py_ffi::PyTuple_SetItem(arguments, 1, py_ffi::PyLong_FromLongLong(right));
        let result = py_ffi::PyObject_CallObject(function.as_ptr(), arguments);
        ffi::decref(arguments);
        result
    })
}

/// The same with one tuple for all calls.
#[pyfunction]
pub(crate) fn call_object_reusing(
    function: &Bound<'_, PyAny>,
    left: i64,
    right: i64,
    calls: usize,
) -> PyResult<(i64, f64)> {
    let arguments = (left, right).into_pyobject(function.py())?;
    // SAFETY: the GIL is held, and the tuple lives.
    timed(function, calls, || unsafe { py_ffi::PyObject_CallObject(function.as_ptr(), arguments.as_ptr()) })
}

/// The same without a tuple, by vectorcall.
#[pyfunction]
pub(crate) fn vectorcall(function: &Bound<'_, PyAny>, left: i64, right: i64, calls: usize) -> PyResult<(i64, f64)> {
    // SAFETY: the GIL is held; the integers are owned here and outlive the call.
    timed(function, calls, || unsafe {
        let arguments = [py_ffi::PyLong_FromLongLong(left), py_ffi::PyLong_FromLongLong(right)];
        let result = ffi::call(function.as_ptr(), arguments.as_ptr(), 2, null_mut());
        arguments.into_iter().for_each(|argument| ffi::decref(argument));
        result
    })
}

/// `call` returns a new reference, or null with an exception set.
fn timed(function: &Bound<'_, PyAny>, calls: usize, call: impl Fn() -> *mut py_ffi::PyObject) -> PyResult<(i64, f64)> {
    let mut sum = 0;
    let started = cpu_seconds();
    for _ in 0..calls {
        let result = call();
        if result.is_null() {
            return Err(PyErr::fetch(function.py()));
        }
        // SAFETY: the GIL is held, and the result is owned here.
        unsafe {
            sum += py_ffi::PyLong_AsLongLong(result);
            ffi::decref(result);
        }
    }
    Ok((sum, cpu_seconds() - started))
}

/// What this thread has used: other programs may take turns on its core.
fn cpu_seconds() -> f64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: writes one timespec; the clock exists since Linux 2.6.12.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut time) };
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}
