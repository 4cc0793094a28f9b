//! Recently seen member names as Python strings, so that records of the same shape share them.

use pyo3::{prelude::*, types::PyString};

/// Longer names are not kept.
const MAX_BYTES: usize = 24;
/// A power of two.
const SLOTS: usize = 256;

/// A cache with one place for each hash; a newer name takes the place of an older one.
#[derive(Default)]
pub(crate) struct Keys(Vec<Option<Slot>>);

struct Slot {
    bytes: [u8; MAX_BYTES],
    length: u8,
    key: Py<PyString>,
}

impl Keys {
    /// The Python string of this name.
    pub(crate) fn get<'py>(&mut self, py: Python<'py>, name: &str) -> Bound<'py, PyString> {
        if name.len() > MAX_BYTES {
            return PyString::new(py, name);
        }
        if self.0.is_empty() {
            self.0.resize_with(SLOTS, || None);
        }
        let slot = &mut self.0[hash(name.as_bytes()) % SLOTS];
        match slot {
            Some(slot) if &slot.bytes[..usize::from(slot.length)] == name.as_bytes() => slot.key.bind(py).clone(),
            _ => {
                let key = PyString::new(py, name);
                let mut bytes = [0; MAX_BYTES];
                bytes[..name.len()].copy_from_slice(name.as_bytes());
                *slot = Some(Slot { bytes, length: name.len() as u8, key: key.clone().unbind() });
                key
            }
        }
    }
}

/// FNV-1a; names are short.
fn hash(bytes: &[u8]) -> usize {
    let hash = bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, &byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3));
    // The upper bits are the well mixed ones.
    (hash >> 32) as usize
}
