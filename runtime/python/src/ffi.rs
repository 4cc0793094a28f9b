//! Functions of CPython that every supported version exports, though the limited API of 3.9 does not name them.

use std::ffi::c_char;

use pyo3::{
    ffi::{Py_ssize_t, PyObject},
    prelude::*,
    types::PyString,
};

unsafe extern "C" {
    /// In the limited API since 3.10.
    fn PyUnicode_AsUTF8AndSize(text: *mut PyObject, size: *mut Py_ssize_t) -> *const c_char;
    /// Public since 3.9, never in the limited API; from 3.12 on that has `PyObject_Vectorcall`, which takes the names of
    /// keyword arguments as a tuple.
    pub(crate) fn PyObject_VectorcallDict(
        callable: *mut PyObject,
        values: *const *mut PyObject,
        count: usize,
        names: *mut PyObject,
    ) -> *mut PyObject;
}

/// The UTF-8 of a string, which the string itself keeps. `None` if it has a lone surrogate.
pub(crate) fn utf8<'a>(text: &'a Bound<'_, PyString>) -> Option<&'a str> {
    let mut size = 0;
    // SAFETY: `text` is a string; the bytes it returns are UTF-8 and live as long as the string, which never changes.
    unsafe {
        let bytes = PyUnicode_AsUTF8AndSize(text.as_ptr(), &mut size);
        if bytes.is_null() {
            pyo3::ffi::PyErr_Clear();
            return None;
        }
        Some(std::str::from_utf8_unchecked(std::slice::from_raw_parts(bytes.cast(), size.unsigned_abs())))
    }
}
