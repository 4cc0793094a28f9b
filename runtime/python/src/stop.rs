//! The end: finalize hooks, exit handlers, and out.

use std::{
    thread,
    time::{Duration, Instant},
};

use pyo3::prelude::*;

use crate::{
    core::{Core, quit},
    logs,
    runners::CallKey,
};

/// Time for exit handlers and for the node to read the last logs, after the finalize hooks.
const GRACE: Duration = Duration::from_secs(5);

/// Ends the worker as the node asked. Threads of the app that still run end with it.
pub(crate) fn stop(py: Python<'_>, core: &'static Core) -> ! {
    // How long the finalize hooks may take is the node's decision.
    report(py, py.import("fnmesh._load").and_then(|load| load.call_method0("finalize")));
    let deadline = Instant::now() + GRACE;
    let guard = move || {
        thread::sleep(GRACE);
        quit(0);
    };
    if thread::Builder::new().name("fnmesh-exit".into()).spawn(guard).is_ok() {
        report(py, py.import("atexit").and_then(|atexit| atexit.call_method0("_run_exitfuncs")));
    }
    logs::end(core, CallKey { channel: 0, id: 0 });
    core.drain(py, deadline);
    quit(0)
}

fn report(py: Python<'_>, result: PyResult<Bound<'_, PyAny>>) {
    if let Err(error) = result {
        error.write_unraisable(py, None);
    }
}
