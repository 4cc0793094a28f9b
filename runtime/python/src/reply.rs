//! What a function returned, sorted by how it is sent.

use pyo3::{
    intern,
    prelude::*,
    types::{PyBool, PyByteArray, PyBytes, PyDict, PyFloat, PyInt, PyIterator, PyList, PyMemoryView, PyString},
};

use crate::{
    core::Core,
    encode::{self, Writer},
    failure::Failure,
    ffi,
    frame::{BodyFormat, Header, Kind},
    package,
    runners::CallKey,
};

/// An answer, ready to be sent or to be continued.
pub(crate) struct Reply<'py> {
    /// The response head as JSON, or empty.
    pub(crate) head: Vec<u8>,
    pub(crate) content: Content<'py>,
}

/// The body of an answer.
pub(crate) enum Content<'py> {
    /// It is in the buffer, in this format.
    Encoded(BodyFormat),
    Bytes(Bound<'py, PyBytes>),
    /// A stream of what this iterator yields.
    Items(Bound<'py, PyIterator>),
    /// The event loop finishes the call: an awaitable, or an asynchronous iterator.
    Awaits(Bound<'py, PyAny>),
}

/// Most digits of an `i64`, and its sign.
const MAX_INT_BYTES: usize = 20;

/// What was made of what a function returned.
pub(crate) enum Answer<'py> {
    /// JSON, in the buffer, with no response head: what nearly every call answers.
    Json,
    /// JSON too, which is not in the buffer.
    Int(i64),
    Other(Box<Reply<'py>>),
}

impl<'py> Answer<'py> {
    /// As [`Reply::new`].
    #[inline(always)]
    pub(crate) fn new(value: Bound<'py, PyAny>, limit: usize, buffer: &mut Vec<u8>) -> Result<Self, Failure> {
        if let Ok(int) = value.cast_exact::<PyInt>()
            && limit >= MAX_INT_BYTES
            && let Some(small) = encode::small_int(int)
        {
            // SAFETY: the GIL is held, and the reference was owned.
            unsafe { ffi::decref(value.into_ptr()) };
            return Ok(Self::Int(small));
        }
        if !is_basic(&value) {
            return Reply::new(value, limit, buffer).map(|reply| Self::Other(Box::new(reply)));
        }
        buffer.clear();
        Writer { out: buffer, limit }.write(&value)?;
        Ok(Self::Json)
    }
}

impl<'py> Reply<'py> {
    /// Sorts `value`, and encodes it into `buffer` if it is to be encoded. `limit` is in bytes.
    pub(crate) fn new(value: Bound<'py, PyAny>, limit: usize, buffer: &mut Vec<u8>) -> Result<Self, Failure> {
        if !is_basic(&value) {
            let py = value.py();
            if value.is_instance(package::response(py).map_err(|error| Failure::raised(py, error))?).unwrap_or(false) {
                return Self::response(&value, limit, buffer);
            }
        }
        Ok(Self { head: Vec::new(), content: Content::new(value, limit, buffer)? })
    }

    fn response(response: &Bound<'py, PyAny>, limit: usize, buffer: &mut Vec<u8>) -> Result<Self, Failure> {
        let py = response.py();
        let attribute = |name| response.getattr(name).map_err(|error| Failure::raised(py, error));
        let mut head = Vec::new();
        Writer { out: &mut head, limit }.write(&attribute(intern!(py, "head"))?)?;
        let body = attribute(intern!(py, "body"))?;
        let content = if body.is_none() {
            Content::Bytes(PyBytes::new(py, b""))
        } else if let Ok(text) = body.cast::<PyString>() {
            Content::text(text, limit, buffer)?
        } else {
            Content::new(body, limit, buffer)?
        };
        Ok(Self { head, content })
    }

    /// Adds the `result` frame, unless the call goes on.
    pub(crate) fn push(&self, core: &Core, key: CallKey, buffer: &[u8]) {
        let header = Header::new(Kind::Result, key.id);
        match &self.content {
            Content::Encoded(format) => core.push(key.channel, header.format(*format), &self.head, buffer),
            Content::Bytes(bytes) => {
                core.push(key.channel, header.format(BodyFormat::Bytes), &self.head, bytes.as_bytes());
            }
            Content::Items(_) | Content::Awaits(_) => {}
        }
    }
}

impl<'py> Content<'py> {
    fn new(value: Bound<'py, PyAny>, limit: usize, buffer: &mut Vec<u8>) -> Result<Self, Failure> {
        if !is_basic(&value) {
            if let Some(bytes) = as_bytes(&value) {
                return within(limit, bytes.as_bytes().len()).map(|()| Self::Bytes(bytes));
            }
            if let Ok(items) = value.cast::<PyIterator>() {
                return Ok(Self::Items(items.clone()));
            }
            let (py, kind) = (value.py(), value.get_type());
            let has = |name| kind.hasattr(name).unwrap_or(false);
            if has(intern!(py, "__await__")) || has(intern!(py, "__aiter__")) {
                return Ok(Self::Awaits(value));
            }
        }
        buffer.clear();
        Writer { out: buffer, limit }.write(&value)?;
        Ok(Self::Encoded(BodyFormat::Json))
    }

    /// One item of a stream: a string goes as text.
    pub(crate) fn item(value: Bound<'py, PyAny>, limit: usize, buffer: &mut Vec<u8>) -> Result<Self, Failure> {
        if let Ok(text) = value.cast_exact::<PyString>() {
            return Self::text(text, limit, buffer);
        }
        if let Some(bytes) = as_bytes(&value) {
            return within(limit, bytes.as_bytes().len()).map(|()| Self::Bytes(bytes));
        }
        buffer.clear();
        Writer { out: buffer, limit }.write(&value)?;
        Ok(Self::Encoded(BodyFormat::Json))
    }

    /// Adds the `chunk` frame of an item.
    pub(crate) fn push_chunk(&self, core: &Core, key: CallKey, buffer: &[u8]) {
        let header = Header::new(Kind::Chunk, key.id);
        match self {
            Self::Encoded(format) => core.push(key.channel, header.format(*format), &[], buffer),
            Self::Bytes(bytes) => core.push(key.channel, header.format(BodyFormat::Bytes), &[], bytes.as_bytes()),
            Self::Items(_) | Self::Awaits(_) => {}
        }
    }

    fn text(text: &Bound<'py, PyString>, limit: usize, buffer: &mut Vec<u8>) -> Result<Self, Failure> {
        let text = crate::ffi::utf8(text)
            .ok_or_else(|| Failure::result("$: cannot send a string with a lone surrogate".to_owned()))?;
        within(limit, text.len())?;
        buffer.clear();
        buffer.extend_from_slice(text.as_bytes());
        Ok(Self::Encoded(BodyFormat::Text))
    }
}

/// Types that are neither bytes, nor a response, nor something to iterate or await.
#[inline]
fn is_basic(value: &Bound<'_, PyAny>) -> bool {
    value.is_exact_instance_of::<PyString>()
        || value.is_exact_instance_of::<PyDict>()
        || value.is_exact_instance_of::<PyList>()
        || value.is_exact_instance_of::<PyInt>()
        || value.is_exact_instance_of::<PyFloat>()
        || value.is_none()
        || value.is_exact_instance_of::<PyBool>()
}

fn as_bytes<'py>(value: &Bound<'py, PyAny>) -> Option<Bound<'py, PyBytes>> {
    if let Ok(bytes) = value.cast::<PyBytes>() {
        return Some(bytes.clone());
    }
    if value.is_instance_of::<PyByteArray>() || value.is_instance_of::<PyMemoryView>() {
        return value.py().get_type::<PyBytes>().call1((value,)).ok()?.cast_into().ok();
    }
    None
}

fn within(limit: usize, length: usize) -> Result<(), Failure> {
    if length <= limit { Ok(()) } else { Err(Failure::too_large(limit)) }
}
