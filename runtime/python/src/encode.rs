//! Python objects as JSON text.

use std::fmt::Write as _;

use pyo3::{
    ffi as py_ffi,
    prelude::*,
    types::{PyBool, PyDict, PyFloat, PyInt, PyList, PyString, PyTuple},
};

use crate::{failure::Failure, ffi, package, parse};

/// Levels of containers inside each other.
const MAX_DEPTH: u16 = 512;
/// Steps of a path that an error shows.
const SHOWN_STEPS: usize = 16;

/// Writes one value.
pub(crate) struct Writer<'a> {
    pub(crate) out: &'a mut Vec<u8>,
    /// Most bytes it may take.
    pub(crate) limit: usize,
}

/// Why a value cannot be sent.
enum Unsendable {
    /// What is wrong, and the way to it from the inside out.
    Value(Box<(String, Vec<Step>)>),
    TooLarge,
    Raised(PyErr),
}

enum Step {
    Index(usize),
    Key(String),
}

type Written = Result<(), Unsendable>;

impl Writer<'_> {
    /// Appends `value` to `out`. On failure part of it may be there.
    pub(crate) fn write(mut self, value: &Bound<'_, PyAny>) -> Result<(), Failure> {
        let written = self.value(value, 0).and_then(|()| self.check_size());
        written.map_err(|unsendable| match unsendable {
            Unsendable::Value(value) => Failure::result(format!("{}: {}", path(&value.1), value.0)),
            Unsendable::TooLarge => Failure::too_large(self.limit),
            Unsendable::Raised(error) => Failure::raised(value.py(), error),
        })
    }

    fn value(&mut self, value: &Bound<'_, PyAny>, depth: u16) -> Written {
        if let Ok(text) = value.cast_exact::<PyString>() {
            self.string(text)
        } else if let Ok(int) = value.cast_exact::<PyInt>() {
            self.int(int)
        } else if let Ok(dict) = value.cast_exact::<PyDict>() {
            self.dict(dict, self.enter(depth)?)
        } else if let Ok(list) = value.cast_exact::<PyList>() {
            self.list(list, self.enter(depth)?)
        } else if let Ok(float) = value.cast_exact::<PyFloat>() {
            self.float(float)
        } else if value.is_none() {
            self.out.extend_from_slice(b"null");
            Ok(())
        } else if let Ok(boolean) = value.cast_exact::<PyBool>() {
            self.out.extend_from_slice(if boolean.is_true() { b"true" } else { b"false" });
            Ok(())
        } else if let Ok(tuple) = value.cast_exact::<PyTuple>() {
            self.tuple(tuple, self.enter(depth)?)
        } else {
            let converted = self.convert(value)?;
            self.value(&converted, self.enter(depth)?)
        }
    }

    fn string(&mut self, text: &Bound<'_, PyString>) -> Written {
        let text = ffi::utf8(text).ok_or_else(|| unsendable("cannot send a string with a lone surrogate"))?;
        write_string(text, self.out);
        Ok(())
    }

    fn int(&mut self, int: &Bound<'_, PyInt>) -> Written {
        if let Some(small) = small_int(int) {
            self.out.extend_from_slice(itoa::Buffer::new().format(small).as_bytes());
            return Ok(());
        }
        // Refuses more digits than sys.set_int_max_str_digits allows, as the conversion takes quadratic time.
        let digits = int
            .str()
            .map_err(|_| unsendable("cannot send an int with more digits than sys.get_int_max_str_digits()"))?;
        self.out.extend_from_slice(ffi::utf8(&digits).unwrap_or_default().as_bytes());
        Ok(())
    }

    fn float(&mut self, float: &Bound<'_, PyFloat>) -> Written {
        let float = float.value();
        if !float.is_finite() {
            let name = if float.is_nan() { "NaN" } else { "an infinite number" };
            return Err(unsendable(&format!("cannot send {name}, which JSON does not have")));
        }
        self.out.extend_from_slice(zmij::Buffer::new().format_finite(float).as_bytes());
        Ok(())
    }

    fn list(&mut self, list: &Bound<'_, PyList>, depth: u16) -> Written {
        self.out.push(b'[');
        let mut index = 0;
        // The list may change while user code converts an item: its length is looked at each time.
        while index < list.len() {
            let item = list.get_item(index).map_err(Unsendable::Raised)?;
            self.item(index, &item, depth)?;
            index += 1;
        }
        self.out.push(b']');
        Ok(())
    }

    fn tuple(&mut self, tuple: &Bound<'_, PyTuple>, depth: u16) -> Written {
        self.out.push(b'[');
        for (index, item) in tuple.iter_borrowed().enumerate() {
            self.item(index, &item, depth)?;
        }
        self.out.push(b']');
        Ok(())
    }

    fn item(&mut self, index: usize, item: &Bound<'_, PyAny>, depth: u16) -> Written {
        if index > 0 {
            self.out.push(b',');
        }
        self.check_size()?;
        self.value(item, depth).map_err(|error| error.inside(|| Step::Index(index)))
    }

    fn dict(&mut self, dict: &Bound<'_, PyDict>, depth: u16) -> Written {
        self.out.push(b'{');
        let (mut position, mut first) = (0, true);
        while let Some((key, value)) = next_member(dict, &mut position) {
            if !first {
                self.out.push(b',');
            }
            first = false;
            self.check_size()?;
            self.key(&key)?;
            self.out.push(b':');
            self.value(&value, depth).map_err(|error| error.inside(|| Step::Key(key.to_string())))?;
        }
        self.out.push(b'}');
        Ok(())
    }

    /// Keys that are no strings become the text of their JSON value, as with `json.dumps`.
    fn key(&mut self, key: &Bound<'_, PyAny>) -> Written {
        if let Ok(text) = key.cast_exact::<PyString>() {
            return self.string(text);
        }
        let converted = if is_key(key) { key.clone() } else { self.convert(key).unwrap_or_else(|_| key.clone()) };
        if let Ok(text) = converted.cast_exact::<PyString>() {
            return self.string(text);
        }
        if !is_key(&converted) {
            return Err(unsendable(&format!("cannot send a key of type {}", type_name(key))));
        }
        self.out.push(b'"');
        self.value(&converted, 0)?;
        self.out.push(b'"');
        Ok(())
    }

    /// One of the basic types for a value of another type.
    fn convert<'py>(&self, value: &Bound<'py, PyAny>) -> Result<Bound<'py, PyAny>, Unsendable> {
        let py = value.py();
        let converted = package::convert(py).and_then(|convert| convert.call1((value,))).map_err(Unsendable::Raised)?;
        if converted.is(py.NotImplemented()) {
            return Err(unsendable(&format!("cannot send value of type {}", type_name(value))));
        }
        Ok(converted)
    }

    fn enter(&self, depth: u16) -> Result<u16, Unsendable> {
        if depth < MAX_DEPTH {
            Ok(depth + 1)
        } else {
            Err(unsendable(&format!(
                "cannot send more than {MAX_DEPTH} levels inside each other, or a value that contains itself"
            )))
        }
    }

    fn check_size(&self) -> Written {
        if self.out.len() <= self.limit { Ok(()) } else { Err(Unsendable::TooLarge) }
    }
}

/// The value of an int that has no more than 64 bits.
#[inline]
pub(crate) fn small_int(int: &Bound<'_, PyInt>) -> Option<i64> {
    let mut overflow = 0;
    // SAFETY: `int` is an int, so this does not fail.
    let small = unsafe { py_ffi::PyLong_AsLongLongAndOverflow(int.as_ptr(), &mut overflow) };
    (overflow == 0).then_some(small)
}

/// Appends `text` as a JSON string.
pub(crate) fn write_string(text: &str, out: &mut Vec<u8>) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let mut rest = text.as_bytes();
    out.reserve(rest.len() + 2);
    out.push(b'"');
    loop {
        let plain = parse::special(rest);
        out.extend_from_slice(&rest[..plain]);
        let Some((&byte, after)) = rest[plain..].split_first() else { break };
        rest = after;
        match ESCAPES[usize::from(byte)] {
            b'u' => {
                let (high, low) = (HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]);
                out.extend_from_slice(&[b'\\', b'u', b'0', b'0', high, low]);
            }
            short => out.extend_from_slice(&[b'\\', short]),
        }
    }
    out.push(b'"');
}

/// For each byte that [`parse::special`] finds, what follows the backslash in its escape.
const ESCAPES: [u8; 256] = {
    let mut table = [0; 256];
    let mut control = 0;
    while control < 0x20 {
        table[control] = b'u';
        control += 1;
    }
    table[0x08] = b'b';
    table[0x09] = b't';
    table[0x0a] = b'n';
    table[0x0c] = b'f';
    table[0x0d] = b'r';
    table[b'"' as usize] = b'"';
    table[b'\\' as usize] = b'\\';
    table
};

/// The next member of a dict that user code may change meanwhile; then members may be skipped or come twice.
fn next_member<'py>(
    dict: &Bound<'py, PyDict>,
    position: &mut py_ffi::Py_ssize_t,
) -> Option<(Bound<'py, PyAny>, Bound<'py, PyAny>)> {
    let py = dict.py();
    let (mut key, mut value) = (std::ptr::null_mut(), std::ptr::null_mut());
    // SAFETY: `dict` is a dict. The position is checked against its size on each call, and the borrowed references get an
    // owner before any other code runs.
    unsafe {
        if py_ffi::PyDict_Next(dict.as_ptr(), position, &mut key, &mut value) == 0 {
            return None;
        }
        Some((Bound::from_borrowed_ptr(py, key), Bound::from_borrowed_ptr(py, value)))
    }
}

fn is_key(key: &Bound<'_, PyAny>) -> bool {
    key.is_none()
        || key.is_exact_instance_of::<PyInt>()
        || key.is_exact_instance_of::<PyBool>()
        || key.is_exact_instance_of::<PyFloat>()
}

fn type_name(value: &Bound<'_, PyAny>) -> String {
    value.get_type().name().map_or_else(|_| "?".to_owned(), |name| name.to_string())
}

fn unsendable(what: &str) -> Unsendable {
    Unsendable::Value(Box::new((what.to_owned(), Vec::new())))
}

impl Unsendable {
    fn inside(mut self, step: impl FnOnce() -> Step) -> Self {
        if let Self::Value(value) = &mut self {
            value.1.push(step());
        }
        self
    }
}

/// `$.items[3]["unit price"]`, from steps that were noted from the inside out.
fn path(steps: &[Step]) -> String {
    let mut path = "$".to_owned();
    for step in steps.iter().rev().take(SHOWN_STEPS) {
        // Writing to a string cannot fail.
        let _ = match step {
            Step::Index(index) => write!(path, "[{index}]"),
            Step::Key(key) if is_plain(key) => write!(path, ".{key}"),
            Step::Key(key) => write!(path, "[{key:?}]"),
        };
    }
    if steps.len() > SHOWN_STEPS {
        path.push('…');
    }
    path
}

fn is_plain(key: &str) -> bool {
    !key.is_empty()
        && key.chars().all(|c| c.is_alphanumeric() || c == '_')
        && !key.starts_with(|c: char| c.is_numeric())
}
