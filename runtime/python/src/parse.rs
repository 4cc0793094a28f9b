//! JSON text straight into Python objects: RFC 8259 and nothing beyond it.

mod describe;
mod number;
mod text;

use pyo3::{
    exceptions::PyValueError,
    ffi as py_ffi,
    prelude::*,
    types::{PyBool, PyDict, PyString},
};

pub(crate) use self::text::{special, string};
use crate::keys::Keys;

/// Levels of arrays and objects inside each other.
const MAX_DEPTH: u8 = 128;

/// Why text was refused.
#[derive(Debug)]
pub(crate) struct Refused(Option<Box<Reason>>);

#[derive(Debug)]
struct Reason {
    what: String,
    index: usize,
}

impl Refused {
    /// It is no JSON. [`Self::describe`] finds out where.
    pub(crate) const SYNTAX: Self = Self(None);

    /// What is wrong, and where in `text`.
    pub(crate) fn describe(&self, text: &[u8]) -> String {
        let found;
        let reason = match &self.0 {
            Some(reason) => reason,
            None => {
                found = describe::find(text);
                &found
            }
        };
        format!("not valid JSON: {} at {}", reason.what, describe::position(text, reason.index))
    }
}

/// Strict JSON as a Python object.
#[pyfunction]
pub(crate) fn parse_json<'py>(py: Python<'py>, text: &[u8]) -> PyResult<Bound<'py, PyAny>> {
    let value = Reader::new(py, text, &mut Scratch::default()).document();
    value.map_err(|refused| PyValueError::new_err(refused.describe(text)))
}

/// What readers use one after the other.
#[derive(Default)]
pub(crate) struct Scratch<'py> {
    keys: Keys,
    /// Items of arrays that have not ended yet.
    items: Vec<Bound<'py, PyAny>>,
    /// A string with its escapes resolved.
    unescaped: Vec<u8>,
}

/// Reads one text.
pub(crate) struct Reader<'a, 'py> {
    py: Python<'py>,
    text: &'a [u8],
    index: usize,
    scratch: &'a mut Scratch<'py>,
}

impl<'a, 'py> Reader<'a, 'py> {
    #[inline]
    pub(crate) fn new(py: Python<'py>, text: &'a [u8], scratch: &'a mut Scratch<'py>) -> Self {
        if !scratch.items.is_empty() {
            // Of a text that was refused.
            scratch.items.clear();
        }
        Self { py, text, index: 0, scratch }
    }

    /// A reader of the same text from its start.
    pub(crate) fn again(self) -> Self {
        Self::new(self.py, self.text, self.scratch)
    }

    pub(crate) fn py(&self) -> Python<'py> {
        self.py
    }

    /// The whole text as one value.
    pub(crate) fn document(mut self) -> Result<Bound<'py, PyAny>, Refused> {
        let value = self.value(0)?;
        self.finish()?;
        Ok(value)
    }

    /// The byte that the next token begins with; `None` at the end.
    #[inline(always)]
    pub(crate) fn peek(&mut self) -> Option<u8> {
        match self.text.get(self.index) {
            Some(&next) if next > b' ' => Some(next),
            Some(_) => {
                self.index = text::skip_space(self.text, self.index);
                self.text.get(self.index).copied()
            }
            None => None,
        }
    }

    /// The next values of an array, `most` of them, as far as they are short integers with a comma or the end right behind
    /// them. False at the end of the array.
    #[inline(always)]
    pub(crate) fn ints<T>(&mut self, most: usize, values: &mut Vec<T>, make: impl Fn(Bound<'py, PyAny>) -> T) -> bool {
        let (index, more) = number::ints(self.py, self.text, self.index, most, values, make);
        self.index = index;
        more
    }

    /// Nothing more may follow.
    #[inline]
    pub(crate) fn finish(&mut self) -> Result<(), Refused> {
        if self.peek().is_none() { Ok(()) } else { Err(Refused::SYNTAX) }
    }

    /// Enters the array or object that was peeked at and that `close` ends. False if it is empty.
    #[inline]
    pub(crate) fn open(&mut self, close: u8) -> bool {
        self.index += 1;
        let empty = self.peek() == Some(close);
        self.index += usize::from(empty);
        !empty
    }

    /// Goes on after a value inside of what `close` ends. False at its end.
    #[inline(always)]
    pub(crate) fn step(&mut self, close: u8) -> Result<bool, Refused> {
        let next = self.peek();
        self.index += 1;
        match next {
            Some(b',') => Ok(true),
            Some(next) if next == close => Ok(false),
            _ => Err(Refused::SYNTAX),
        }
    }

    /// The next member's name, which may be no valid UTF-8.
    #[inline]
    pub(crate) fn key(&mut self) -> Result<&[u8], Refused> {
        if self.peek() != Some(b'"') {
            return Err(Refused::SYNTAX);
        }
        let key = text::read(self.text, &mut self.index, &mut self.scratch.unescaped)?;
        Ok(key.resolve(self.text, &self.scratch.unescaped))
    }

    /// What stands between a member's name and its value.
    #[inline]
    pub(crate) fn colon(&mut self) -> Result<(), Refused> {
        let next = self.peek();
        self.index += 1;
        if next == Some(b':') { Ok(()) } else { Err(Refused::SYNTAX) }
    }

    /// The next value, inside `depth` arrays and objects.
    #[inline(always)]
    pub(crate) fn value(&mut self, depth: u8) -> Result<Bound<'py, PyAny>, Refused> {
        match self.peek() {
            Some(b'"') => self.string(),
            Some(b'-' | b'0'..=b'9') => self.number(),
            Some(first) => self.other(first, depth),
            None => Err(Refused::SYNTAX),
        }
    }

    /// Not inlined, as these are inside each other.
    #[inline(never)]
    fn other(&mut self, first: u8, depth: u8) -> Result<Bound<'py, PyAny>, Refused> {
        match first {
            b'{' => self.object(depth),
            b'[' => self.array(depth),
            b't' => self.word(b"true").map(|()| PyBool::new(self.py, true).to_owned().into_any()),
            b'f' => self.word(b"false").map(|()| PyBool::new(self.py, false).to_owned().into_any()),
            b'n' => self.word(b"null").map(|()| self.py.None().into_bound(self.py)),
            _ => Err(Refused::SYNTAX),
        }
    }

    fn word(&mut self, word: &[u8]) -> Result<(), Refused> {
        if self.text[self.index..].starts_with(word) {
            self.index += word.len();
            Ok(())
        } else {
            Err(Refused::SYNTAX)
        }
    }

    #[inline(never)]
    fn string(&mut self) -> Result<Bound<'py, PyAny>, Refused> {
        let text = text::read(self.text, &mut self.index, &mut self.scratch.unescaped)?;
        let text = text.resolve(self.text, &self.scratch.unescaped);
        text::string(self.py, text).map(Bound::into_any).ok_or(Refused::SYNTAX)
    }

    fn array(&mut self, depth: u8) -> Result<Bound<'py, PyAny>, Refused> {
        let depth = self.enter(depth)?;
        let first = self.scratch.items.len();
        let mut more = self.open(b']');
        while more {
            let (index, after) =
                number::ints(self.py, self.text, self.index, usize::MAX, &mut self.scratch.items, |item| item);
            (self.index, more) = (index, after);
            if more {
                let item = self.value(depth)?;
                self.scratch.items.push(item);
                more = self.step(b']')?;
            }
        }
        self.list(first)
    }

    /// A list of the items from `first` on.
    fn list(&mut self, first: usize) -> Result<Bound<'py, PyAny>, Refused> {
        // SAFETY: the list is new and as long as the items; each place is set once, and takes over the reference.
        let list = unsafe {
            let list = py_ffi::PyList_New((self.scratch.items.len() - first) as py_ffi::Py_ssize_t);
            if !list.is_null() {
                for (index, item) in self.scratch.items.drain(first..).enumerate() {
                    py_ffi::PyList_SetItem(list, index as py_ffi::Py_ssize_t, item.into_ptr());
                }
            }
            Bound::from_owned_ptr_or_err(self.py, list)
        };
        list.map_err(|error| self.refuse(error.to_string()))
    }

    /// Of members with the same name the last one counts.
    fn object(&mut self, depth: u8) -> Result<Bound<'py, PyAny>, Refused> {
        let depth = self.enter(depth)?;
        let dict = PyDict::new(self.py);
        let mut more = self.open(b'}');
        while more {
            let key = self.name()?;
            self.colon()?;
            let value = self.value(depth)?;
            dict.set_item(key, value).map_err(|error| self.refuse(error.to_string()))?;
            more = self.step(b'}')?;
        }
        Ok(dict.into_any())
    }

    /// The next member's name as a Python string.
    fn name(&mut self) -> Result<Bound<'py, PyString>, Refused> {
        if self.peek() != Some(b'"') {
            return Err(Refused::SYNTAX);
        }
        let key = text::read(self.text, &mut self.index, &mut self.scratch.unescaped)?;
        self.scratch.keys.get(self.py, key.resolve(self.text, &self.scratch.unescaped)).ok_or(Refused::SYNTAX)
    }

    fn enter(&self, depth: u8) -> Result<u8, Refused> {
        if depth < MAX_DEPTH { Ok(depth + 1) } else { Err(self.refuse("more than 128 levels inside each other")) }
    }

    #[cold]
    fn refuse(&self, what: impl Into<String>) -> Refused {
        Refused(Some(Box::new(Reason { what: what.into(), index: self.index })))
    }
}
