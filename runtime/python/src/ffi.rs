//! Functions of CPython that every supported version exports, though the limited API of 3.9 does not name them.

use std::{
    ffi::{c_char, c_void},
    mem::{ManuallyDrop, transmute},
    ops::Deref,
    ptr::null_mut,
    sync::atomic::{AtomicPtr, Ordering},
};

use pyo3::{
    ffi::{Py_ssize_t, PyObject},
    prelude::*,
    types::PyString,
};

unsafe extern "C" {
    fn _Py_Dealloc(object: *mut PyObject);
    /// In the limited API since 3.10.
    fn PyUnicode_AsUTF8AndSize(text: *mut PyObject, size: *mut Py_ssize_t) -> *const c_char;
    /// Public since 3.9, never in the limited API; from 3.12 on that has `PyObject_Vectorcall`, which takes the names of
    /// keyword arguments as a tuple.
    fn PyObject_VectorcallDict(
        callable: *mut PyObject,
        values: *const *mut PyObject,
        count: usize,
        names: *mut PyObject,
    ) -> *mut PyObject;
}

type Vectorcall = unsafe extern "C" fn(*mut PyObject, *const *mut PyObject, usize, *mut PyObject) -> *mut PyObject;

/// `PyObject_Vectorcall` where the interpreter exports it (3.11 and newer; before, C compilers inline it), a detour less
/// than [`positional`].
static VECTORCALL: AtomicPtr<c_void> = AtomicPtr::new(positional as *mut c_void);

/// The same for all interpreters.
unsafe extern "C" fn positional(
    callable: *mut PyObject,
    values: *const *mut PyObject,
    count: usize,
    _names: *mut PyObject,
) -> *mut PyObject {
    // SAFETY: the contract of `call`.
    unsafe { PyObject_VectorcallDict(callable, values, count, null_mut()) }
}

/// Looks for functions that only some interpreters have. Until then, and without them, others do.
pub(crate) fn init() {
    // SAFETY: a lookup by name in what is loaded, which includes the interpreter that loads this library.
    let found = unsafe { libc::dlsym(libc::RTLD_DEFAULT, c"PyObject_Vectorcall".as_ptr()) };
    if !found.is_null() {
        VECTORCALL.store(found, Ordering::Relaxed);
    }
}

/// Calls with arguments by position, and by name if `names`, a dict, is not null. A new reference, or null with an
/// exception set.
///
/// # Safety
/// The GIL is held; the callable, the `count` values and the names are live objects.
#[inline(always)]
pub(crate) unsafe fn call(
    callable: *mut PyObject,
    values: *const *mut PyObject,
    count: usize,
    names: *mut PyObject,
) -> *mut PyObject {
    // SAFETY: the contract above is that of all these functions, and what is stored has this signature.
    unsafe {
        if !names.is_null() {
            return PyObject_VectorcallDict(callable, values, count, names);
        }
        let vectorcall = transmute::<*mut c_void, Vectorcall>(VECTORCALL.load(Ordering::Relaxed));
        vectorcall(callable, values, count, null_mut())
    }
}

/// Drops a reference as C extensions for the limited API of 3.9 do, in place, and as later interpreters do themselves:
/// an immortal object, whose count is negative as 32 bits, is left alone.
///
/// # Safety
/// The GIL is held, and the caller owns the reference.
#[inline(always)]
pub(crate) unsafe fn decref(object: *mut PyObject) {
    // SAFETY: an object begins with its reference count, whose lower half comes first on these machines; without
    // immortality (before 3.12) a count beyond 31 bits only means that the object stays.
    unsafe {
        if cfg!(not(all(target_endian = "little", target_pointer_width = "64"))) {
            return pyo3::ffi::Py_DECREF(object);
        }
        let count = object.cast::<i32>();
        if *count > 0 {
            *count -= 1;
            if *count == 0 {
                _Py_Dealloc(object);
            }
        }
    }
}

/// A reference that is dropped by [`decref`].
#[repr(transparent)]
pub(crate) struct Owned<'py>(ManuallyDrop<Bound<'py, PyAny>>);

impl<'py> From<Bound<'py, PyAny>> for Owned<'py> {
    #[inline(always)]
    fn from(object: Bound<'py, PyAny>) -> Self {
        Self(ManuallyDrop::new(object))
    }
}

impl<'py> Deref for Owned<'py> {
    type Target = Bound<'py, PyAny>;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl Drop for Owned<'_> {
    #[inline(always)]
    fn drop(&mut self) {
        // SAFETY: a `Bound` exists under the GIL only, and nothing else drops this one's reference.
        unsafe { decref(self.0.as_ptr()) }
    }
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
