//! What a function can ask about the call it runs for.

use pyo3::prelude::*;

use crate::{call::Call, core::Core, runners::Runner, task::Task};

/// The invocation id of the call this code runs for, 32 hexadecimal digits; `None` outside calls.
#[pyfunction]
pub(crate) fn invocation_id(py: Python<'_>) -> Option<String> {
    with_call(py, Call::invocation_id)
}

/// Seconds until the deadline of the call this code runs for, at least 0; `None` outside calls.
#[pyfunction]
pub(crate) fn remaining(py: Python<'_>) -> Option<f64> {
    with_call(py, |call| call.remaining().as_secs_f64())
}

/// The W3C `traceparent` of the call this code runs for; `None` if it has none.
#[pyfunction]
pub(crate) fn traceparent(py: Python<'_>) -> Option<Bound<'_, PyAny>> {
    with_call(py, |call| call.extra(py, "traceparent")).flatten()
}

fn with_call<T>(py: Python<'_>, code: impl Fn(&Call) -> T) -> Option<T> {
    let task = || {
        let core = Core::get()?;
        core.tasks.is_used().then(|| Task::current(py)).flatten().map(|task| code(&task.get().call))
    };
    Runner::current().and_then(|runner| runner.with_call(&code)).or_else(task)
}
