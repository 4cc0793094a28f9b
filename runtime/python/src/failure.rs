//! Why a call or the start failed, as an `error` frame says it.

use pyo3::{exceptions::PyBaseException, prelude::*};

use crate::{
    core::Core,
    encode::write_string,
    frame::{BodyFormat, Header, Kind},
    runners::CallKey,
};

/// Error codes of the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub(crate) enum Code {
    UnknownFunction = 1001,
    InvalidInput = 1002,
    Raised = 1003,
    Cancelled = 1005,
    LoadFailed = 1006,
    Internal = 32933,
}

/// The body of an `error` frame. One pointer, so that the results of calls that succeed stay small.
#[derive(Debug)]
pub(crate) struct Failure(Box<Details>);

#[derive(Debug)]
struct Details {
    code: Code,
    kind: String,
    message: String,
    stack: String,
}

impl Failure {
    fn new(code: Code, kind: &str, message: String) -> Self {
        Self(Box::new(Details { code, kind: kind.to_owned(), message, stack: String::new() }))
    }

    /// The arguments do not fit.
    pub(crate) fn invalid(message: String) -> Self {
        Self::new(Code::InvalidInput, "InvalidInput", message)
    }

    /// The node asked for a function that `ready` did not name.
    pub(crate) fn unknown_function(index: u16) -> Self {
        Self::new(Code::UnknownFunction, "UnknownFunction", format!("this worker has no function with index {index}"))
    }

    /// The caller no longer waits.
    pub(crate) fn cancelled() -> Self {
        Self::new(Code::Cancelled, "Cancelled", "the call was cancelled".to_owned())
    }

    /// The worker's own fault.
    pub(crate) fn internal(message: &str) -> Self {
        Self::new(Code::Internal, "Internal", message.to_owned())
    }

    /// The value cannot be sent.
    pub(crate) fn result(message: String) -> Self {
        Self::new(Code::Raised, "ResultError", message)
    }

    /// The value is larger than allowed.
    pub(crate) fn too_large(limit: usize) -> Self {
        let message =
            format!("the result is larger than the limit of {limit} bytes (max_reply_bytes); stream it in parts");
        Self::new(Code::Raised, "ResultTooLarge", message)
    }

    /// The user's code raised.
    pub(crate) fn raised(py: Python<'_>, error: PyErr) -> Self {
        Self::described(py, Code::Raised, error)
    }

    /// The app's code cannot be loaded.
    pub(crate) fn load(py: Python<'_>, error: PyErr) -> Self {
        Self::described(py, Code::LoadFailed, error)
    }

    fn described(py: Python<'_>, code: Code, error: PyErr) -> Self {
        // Which also gives the exception its traceback.
        let error = error.into_value(py).into_bound(py);
        match describe(py, &error) {
            Ok((kind, message, stack)) => Self(Box::new(Details { code, kind, message, stack })),
            // Describing an exception may fail where it happened: out of memory, or at the recursion limit.
            Err(_) => {
                let kind = error.get_type().name().map(|name| name.to_string()).unwrap_or_default();
                Self::new(code, &kind, "the exception cannot be described".to_owned())
            }
        }
    }

    /// Adds the `error` frame that answers this call.
    pub(crate) fn push(&self, core: &Core, key: CallKey) {
        let Details { code, kind, message, stack } = &*self.0;
        let mut body = Vec::with_capacity(64 + message.len() + stack.len());
        body.extend_from_slice(b"{\"type\":");
        write_string(kind, &mut body);
        body.extend_from_slice(b",\"message\":");
        write_string(message, &mut body);
        body.extend_from_slice(b",\"stack\":");
        write_string(stack, &mut body);
        body.push(b'}');
        let header = Header::new(Kind::Error, key.id).format(BodyFormat::Json).aux(*code as u16);
        core.push(key.channel, header, &[], &body);
    }
}

fn describe(py: Python<'_>, error: &Bound<'_, PyBaseException>) -> PyResult<(String, String, String)> {
    crate::package::describe(py)?.call1((error,))?.extract()
}
