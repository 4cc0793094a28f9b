//! Recently seen member names as Python strings, so that records of the same shape share them.

use pyo3::{prelude::*, types::PyString};

use crate::parse;

/// Longer names are not kept.
const MAX_BYTES: usize = 32;
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
    /// The Python string of this name. `None` if it is no UTF-8.
    pub(crate) fn get<'py>(&mut self, py: Python<'py>, name: &[u8]) -> Option<Bound<'py, PyString>> {
        if name.len() > MAX_BYTES {
            return parse::string(py, name);
        }
        if self.0.is_empty() {
            self.0.resize_with(SLOTS, || None);
        }
        let slot = &mut self.0[hash(name) % SLOTS];
        match slot {
            Some(slot) if &slot.bytes[..usize::from(slot.length)] == name => Some(slot.key.bind(py).clone()),
            _ => {
                let key = parse::string(py, name)?;
                let mut bytes = [0; MAX_BYTES];
                bytes[..name.len()].copy_from_slice(name);
                *slot = Some(Slot { bytes, length: name.len() as u8, key: key.clone().unbind() });
                Some(key)
            }
        }
    }
}

/// Multiply and rotate, eight bytes at a time; the upper bits are the well mixed ones.
fn hash(name: &[u8]) -> usize {
    const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;
    let add = |hash: u64, word: u64| (hash.rotate_left(5) ^ word).wrapping_mul(FACTOR);
    let (words, rest) = name.as_chunks::<8>();
    let hash = words.iter().fold(name.len() as u64, |hash, word| add(hash, u64::from_le_bytes(*word)));
    let rest = rest.iter().fold(0, |word, &byte| word << 8 | u64::from(byte));
    (add(hash, rest) >> 32) as usize
}
