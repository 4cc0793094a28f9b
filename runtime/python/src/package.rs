//! The `fnmesh` package: Python sources inside this library, imported when they are first needed.

use pyo3::{prelude::*, sync::PyOnceLock};

/// Module names with their sources.
const SOURCES: [(&str, &str); 8] = [
    ("fnmesh", include_str!("../fnmesh/__init__.py")),
    ("fnmesh._encode", include_str!("../fnmesh/_encode.py")),
    ("fnmesh._errors", include_str!("../fnmesh/_errors.py")),
    ("fnmesh._http", include_str!("../fnmesh/_http.py")),
    ("fnmesh._load", include_str!("../fnmesh/_load.py")),
    ("fnmesh._logs", include_str!("../fnmesh/_logs.py")),
    ("fnmesh._loop", include_str!("../fnmesh/_loop.py")),
    ("fnmesh._signature", include_str!("../fnmesh/_signature.py")),
];

/// Makes `import fnmesh` work in this interpreter; this library is its `fnmesh._core` already.
pub(crate) fn install(py: Python<'_>) -> PyResult<()> {
    let finder = PyModule::from_code(
        py,
        c_str(concat!(include_str!("../fnmesh/_finder.py"), "\0")),
        c"<fnmesh._finder>",
        c"fnmesh._finder",
    )?;
    finder.getattr("install")?.call0().map(drop)
}

/// The source of a module of the package.
#[pyfunction]
pub(crate) fn source(name: &str) -> Option<&'static str> {
    SOURCES.iter().find(|(module, _)| *module == name).map(|(_, source)| *source)
}

/// `fnmesh._encode.convert`
pub(crate) fn convert(py: Python<'_>) -> PyResult<&Bound<'_, PyAny>> {
    static CONVERT: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    CONVERT.import(py, "fnmesh._encode", "convert")
}

/// `fnmesh._errors.describe`
pub(crate) fn describe(py: Python<'_>) -> PyResult<&Bound<'_, PyAny>> {
    static DESCRIBE: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    DESCRIBE.import(py, "fnmesh._errors", "describe")
}

/// `fnmesh.Cancelled`
pub(crate) fn cancelled(py: Python<'_>) -> PyResult<&Bound<'_, PyAny>> {
    static CANCELLED: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    CANCELLED.import(py, "fnmesh", "Cancelled")
}

/// `fnmesh.Request`
pub(crate) fn request(py: Python<'_>) -> PyResult<&Bound<'_, PyAny>> {
    static REQUEST: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    REQUEST.import(py, "fnmesh._http", "Request")
}

/// `fnmesh.Response`
pub(crate) fn response(py: Python<'_>) -> PyResult<&Bound<'_, PyAny>> {
    static RESPONSE: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    RESPONSE.import(py, "fnmesh._http", "Response")
}

/// A function of `fnmesh._loop`. The first use starts the event loop.
pub(crate) fn event_loop<'py>(py: Python<'py>, function: &str) -> PyResult<Bound<'py, PyAny>> {
    py.import("fnmesh._loop")?.getattr(function)
}

const fn c_str(text: &str) -> &std::ffi::CStr {
    match std::ffi::CStr::from_bytes_with_nul(text.as_bytes()) {
        Ok(text) => text,
        Err(_) => panic!("the source has no NUL of its own"),
    }
}
