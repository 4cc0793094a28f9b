//! A function of the app: how it is called, and whether its calls are slow.

use std::sync::atomic::{AtomicU8, Ordering};

use pyo3::{prelude::*, types::PyString};

/// Fast calls in a row after which a slow function counts as fast again.
const SLOW: u8 = 8;
/// The next call tells.
const SUSPECT: u8 = 1;

/// A public function.
pub(crate) struct Function {
    pub(crate) shape: Shape,
    /// Fast calls still needed until the function counts as fast.
    slow: AtomicU8,
}

/// What the loader says of a function.
#[derive(FromPyObject)]
#[pyo3(from_item_all)]
pub(crate) struct Shape {
    pub(crate) callable: Py<PyAny>,
    /// As error messages show it: `merge(a: str, b: str = 'x')`.
    pub(crate) signature: String,
    /// Those with a name: the positional ones, then those by name only.
    pub(crate) parameters: Vec<Parameter>,
    /// How many of `parameters` are positional.
    pub(crate) positional: usize,
    /// It takes `*args`.
    pub(crate) any_position: bool,
    /// It takes `**kwargs`.
    pub(crate) any_name: bool,
    /// Which of `parameters` takes the HTTP request.
    pub(crate) request: Option<usize>,
    /// Its code runs while its answer streams.
    pub(crate) streams: bool,
}

/// A parameter with a name.
#[derive(FromPyObject)]
#[pyo3(from_item_all)]
pub(crate) struct Parameter {
    pub(crate) name: String,
    pub(crate) key: Py<PyString>,
    /// Present if there is a default.
    pub(crate) default: Option<(Py<PyAny>,)>,
}

impl Function {
    pub(crate) fn new(shape: Shape) -> Self {
        Self { shape, slow: AtomicU8::new(0) }
    }

    /// Whether leadership should be passed on before the call that is about to begin.
    pub(crate) fn is_slow(&self) -> bool {
        let slow = self.slow.load(Ordering::Relaxed);
        if slow == SUSPECT {
            // Only one call at a time tells: if they compute after all, each one more has to share the interpreter.
            self.slow.store(0, Ordering::Relaxed);
        }
        self.shape.streams || slow > 0
    }

    /// A call was seen twice, so that leadership was taken from its thread. Perhaps the machine was busy with something
    /// else: the next call tells.
    pub(crate) fn note_suspect(&self) {
        self.slow.fetch_max(SUSPECT, Ordering::Relaxed);
    }

    /// A call lasted so long that others would have had to wait for it.
    pub(crate) fn note_slow(&self) {
        self.slow.store(SLOW, Ordering::Relaxed);
    }

    /// A call of a slow function was fast.
    pub(crate) fn note_fast(&self) {
        // Two threads may both take from the same value; one step more or less does not matter.
        self.slow.store(self.slow.load(Ordering::Relaxed).saturating_sub(1), Ordering::Relaxed);
    }
}

impl Shape {
    /// Which parameter has this name. Looks at `expected` first: names mostly come in the order of the parameters.
    pub(crate) fn find(&self, name: &[u8], expected: usize) -> Option<usize> {
        match self.parameters.get(expected) {
            Some(parameter) if parameter.name.as_bytes() == name => Some(expected),
            _ => self.parameters.iter().position(|parameter| parameter.name.as_bytes() == name),
        }
    }
}
