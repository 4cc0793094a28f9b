//! JSON text straight into Python objects: RFC 8259 and nothing beyond it.

use std::ffi::CString;

use jiter::{Jiter, JiterError, JiterErrorType, JsonErrorType, NumberAny, NumberInt, Peek};
use pyo3::{
    exceptions::PyValueError,
    ffi,
    prelude::*,
    types::{PyBool, PyDict, PyFloat, PyInt, PyList, PyString},
};

use crate::keys::Keys;

/// Levels of arrays and objects inside each other.
const MAX_DEPTH: u8 = 128;
/// Python's own default limit, and jiter's.
const MAX_DIGITS: usize = 4300;

/// Why text was refused.
#[derive(Debug)]
pub(crate) struct Refused {
    what: String,
    index: usize,
}

impl Refused {
    pub(crate) fn new(what: impl Into<String>, index: usize) -> Self {
        Self { what: what.into(), index }
    }

    /// What is wrong, and where in `text`.
    pub(crate) fn describe(&self, text: &[u8]) -> String {
        let position = Jiter::new(text).error_position(self.index);
        format!("not valid JSON: {} at {position}", self.what)
    }
}

impl From<JiterError> for Refused {
    fn from(error: JiterError) -> Self {
        let what = match error.error_type {
            JiterErrorType::JsonError(JsonErrorType::NumberOutOfRange) => {
                format!("a number has more than {MAX_DIGITS} digits")
            }
            JiterErrorType::JsonError(kind) => kind.to_string(),
            kind @ JiterErrorType::WrongType { .. } => kind.to_string(),
        };
        Self::new(what, error.index)
    }
}

/// Strict JSON as a Python object.
#[pyfunction]
pub(crate) fn parse_json<'py>(py: Python<'py>, text: &[u8]) -> PyResult<Bound<'py, PyAny>> {
    let value = Reader::new(py, text, &mut Keys::default()).document();
    value.map_err(|refused| PyValueError::new_err(refused.describe(text)))
}

/// Reads one text.
pub(crate) struct Reader<'a, 'py> {
    py: Python<'py>,
    jiter: Jiter<'a>,
    keys: &'a mut Keys,
}

impl<'a, 'py> Reader<'a, 'py> {
    pub(crate) fn new(py: Python<'py>, text: &'a [u8], keys: &'a mut Keys) -> Self {
        Self { py, jiter: Jiter::new(text), keys }
    }

    pub(crate) fn py(&self) -> Python<'py> {
        self.py
    }

    /// The whole text as one value.
    pub(crate) fn document(mut self) -> Result<Bound<'py, PyAny>, Refused> {
        let peek = self.peek()?;
        let value = self.value(peek, 0)?;
        self.finish()?;
        Ok(value)
    }

    pub(crate) fn peek(&mut self) -> Result<Peek, Refused> {
        Ok(self.jiter.peek()?)
    }

    pub(crate) fn finish(&mut self) -> Result<(), Refused> {
        Ok(self.jiter.finish()?)
    }

    /// Enters an array; `None` when it is empty.
    pub(crate) fn first_item(&mut self) -> Result<Option<Peek>, Refused> {
        Ok(self.jiter.known_array()?)
    }

    pub(crate) fn next_item(&mut self) -> Result<Option<Peek>, Refused> {
        Ok(self.jiter.array_step()?)
    }

    /// Enters an object; `None` when it is empty.
    pub(crate) fn first_key(&mut self) -> Result<Option<&str>, Refused> {
        Ok(self.jiter.known_object()?)
    }

    pub(crate) fn next_key(&mut self) -> Result<Option<&str>, Refused> {
        Ok(self.jiter.next_key()?)
    }

    /// The value that `peek` saw, inside `depth` arrays and objects.
    pub(crate) fn value(&mut self, peek: Peek, depth: u8) -> Result<Bound<'py, PyAny>, Refused> {
        match peek {
            Peek::String => Ok(PyString::new(self.py, self.jiter.known_str()?).into_any()),
            Peek::Object => self.object(self.enter(depth)?),
            Peek::Array => self.array(self.enter(depth)?),
            Peek::True | Peek::False => Ok(PyBool::new(self.py, self.jiter.known_bool(peek)?).to_owned().into_any()),
            Peek::Null => {
                self.jiter.known_null()?;
                Ok(self.py.None().into_bound(self.py))
            }
            Peek::NaN | Peek::Infinity => Err(self.refuse("NaN and Infinity are not JSON")),
            _ if peek.is_num() => self.number(peek),
            _ => Err(self.refuse("expected a value")),
        }
    }

    fn array(&mut self, depth: u8) -> Result<Bound<'py, PyAny>, Refused> {
        let list = PyList::empty(self.py);
        let mut next = self.first_item()?;
        while let Some(peek) = next {
            let value = self.value(peek, depth)?;
            list.append(value).map_err(|error| self.refuse(error.to_string()))?;
            next = self.next_item()?;
        }
        Ok(list.into_any())
    }

    /// Of members with the same name the last one counts.
    fn object(&mut self, depth: u8) -> Result<Bound<'py, PyAny>, Refused> {
        let dict = PyDict::new(self.py);
        let mut first = true;
        loop {
            let key = if first { self.jiter.known_object()? } else { self.jiter.next_key()? };
            first = false;
            let Some(key) = key else { return Ok(dict.into_any()) };
            let key = self.keys.get(self.py, key);
            let peek = self.peek()?;
            let value = self.value(peek, depth)?;
            dict.set_item(key, value).map_err(|error| self.refuse(error.to_string()))?;
        }
    }

    fn number(&mut self, peek: Peek) -> Result<Bound<'py, PyAny>, Refused> {
        match self.jiter.known_number(peek) {
            Ok(NumberAny::Int(NumberInt::Int(int))) => Ok(PyInt::new(self.py, int).into_any()),
            Ok(NumberAny::Float(float)) => self.float(float),
            Err(JiterError { error_type: JiterErrorType::JsonError(JsonErrorType::NumberOutOfRange), .. }) => {
                self.long_number(peek)
            }
            Err(error) => Err(error.into()),
        }
    }

    fn float(&self, float: f64) -> Result<Bound<'py, PyAny>, Refused> {
        if float.is_finite() {
            Ok(PyFloat::new(self.py, float).into_any())
        } else {
            Err(self.refuse("a number is too large for a float"))
        }
    }

    /// A number beyond 64 bits.
    fn long_number(&mut self, peek: Peek) -> Result<Bound<'py, PyAny>, Refused> {
        let text = std::str::from_utf8(self.jiter.known_number_bytes(peek)?).unwrap_or_default();
        if text.contains(['.', 'e', 'E']) {
            let float = text.parse().unwrap_or(f64::INFINITY);
            return self.float(float);
        }
        let text = CString::new(text).unwrap_or_default();
        // SAFETY: the text ends with NUL, and the result is a new reference or null with an exception set.
        let int = unsafe {
            let int = ffi::PyLong_FromString(text.as_ptr(), std::ptr::null_mut(), 10);
            Bound::from_owned_ptr_or_err(self.py, int)
        };
        int.map_err(|_| self.refuse("a number has more digits than sys.set_int_max_str_digits allows"))
    }

    fn enter(&self, depth: u8) -> Result<u8, Refused> {
        if depth < MAX_DEPTH { Ok(depth + 1) } else { Err(self.refuse("more than 128 levels inside each other")) }
    }

    fn refuse(&self, what: impl Into<String>) -> Refused {
        Refused::new(what, self.jiter.current_index())
    }
}
