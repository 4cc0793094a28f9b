//! The worker core: the extension module that an app's own Python interpreter loads to serve calls.
//!
//! It speaks the worker protocol (`docs/worker-protocol.md`) on the socket pairs it inherits. Of its threads that run
//! user code one at a time leads: it reads all channels, runs calls inline and writes their answers together
//! (`leader`). When a call waits, a monitor passes leadership to another thread, so that a blocking function delays
//! others by about two milliseconds at most, the first time (`baton`, `monitor`, `runners`); one that computes keeps it
//! for 20 ms, as another thread would only share the interpreter with it. Coroutines go to one event loop (`task`),
//! generators keep a thread of their own (`stream`).
//!
//! A zygote runs the same code up to where the app is loaded; its instances go on from there, each in a process of its
//! own (`zygote`, `fork`). Until then no thread is started.
//!
//! Invariants: only the thread that owns leadership touches what was read; no lock is held while Python code runs or
//! while a thread waits for the GIL; no thread that holds the GIL waits for the node.

use std::os::fd::RawFd;

use pyo3::prelude::*;

mod arguments;
mod baton;
#[cfg(feature = "bench")]
mod bench;
mod call;
mod channel;
mod context;
mod core;
mod encode;
mod failure;
mod ffi;
mod fork;
#[path = "../../src/worker/frame.rs"]
pub mod frame;
mod function;
mod keys;
mod leader;
mod load;
mod logs;
mod monitor;
mod package;
mod parse;
mod reply;
mod runners;
mod stop;
mod stream;
mod task;
mod traces;
mod usage;
mod writer;
mod zygote;

/// Serves calls until the node stops the worker. Does not return.
#[pyfunction]
fn main(py: Python<'_>, channels: Vec<RawFd>) -> PyResult<()> {
    package::install(py)?;
    let mut core = core::Core::inherit(&channels)?;
    let loaded = load::load(py, core);
    if loaded.is_zygote {
        core = zygote::serve(py, core, &loaded);
    }
    core.start_threads()?;
    load::start(py, core, loaded);
    core.runners.lead_first(py, core)
}

#[pymodule]
mod fnmesh_python {
    use pyo3::prelude::*;

    #[pymodule_init]
    fn init(_module: &Bound<'_, PyModule>) -> PyResult<()> {
        crate::ffi::init();
        Ok(())
    }

    #[cfg(feature = "bench")]
    #[pymodule_export]
    use super::bench::{Bench, call_object, call_object_reusing, vectorcall};
    #[pymodule_export]
    use super::{
        context::{invocation_id, remaining, traceparent},
        core::after_fork,
        logs::{record, write},
        main,
        package::source,
        parse::parse_json,
        task::{Task, flush_tasks, take_tasks},
    };
}
