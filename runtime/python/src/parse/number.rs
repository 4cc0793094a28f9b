//! Numbers of JSON: integers of any size, and floats that are rounded correctly.

use std::ffi::CString;

use pyo3::{ffi as py_ffi, prelude::*, types::PyFloat};

use super::{Reader, Refused};

/// Python's own default limit.
pub(super) const MAX_DIGITS: usize = 4300;
/// Whatever has so many digits fits into an `i64`.
const SMALL_DIGITS: usize = 18;

/// Digits that [`compact`] reads at most.
const COMPACT_DIGITS: usize = 9;

/// A short integer at `index`, the byte behind it, and the index behind that.
#[inline(always)]
fn compact(text: &[u8], index: usize) -> Option<(i64, u8, usize)> {
    let rest = text.get(index..)?;
    let mut value = 0;
    for (digits, &byte) in rest.iter().take(COMPACT_DIGITS + 1).enumerate() {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            let zeros = digits > 1 && rest[0] == b'0';
            return (digits > 0 && !zeros).then_some((value, byte, index + digits + 1));
        }
        value = value * 10 + i64::from(digit);
    }
    None
}

/// Adds the next values of an array, up to `most` in all, as far as [`compact`] reads them. Where it ended, and whether
/// the array goes on. Not inlined: what it needs fits into registers.
#[inline(never)]
pub(super) fn ints<'py, T>(
    py: Python<'py>,
    text: &[u8],
    mut index: usize,
    most: usize,
    values: &mut Vec<T>,
    make: impl Fn(Bound<'py, PyAny>) -> T,
) -> (usize, bool) {
    while values.len() < most {
        let Some((value, end @ (b',' | b']'), next)) = compact(text, index) else { break };
        let Some(int) = int(py, value) else { break };
        values.push(make(int));
        index = next;
        if end == b']' {
            return (index, false);
        }
    }
    (index, true)
}

/// `None` without memory.
#[inline(always)]
pub(super) fn int(py: Python<'_>, value: i64) -> Option<Bound<'_, PyAny>> {
    // SAFETY: the GIL is held; the result is a new reference, or null with an exception set.
    unsafe {
        let int = Bound::from_owned_ptr_or_opt(py, py_ffi::PyLong_FromLongLong(value));
        if int.is_none() {
            py_ffi::PyErr_Clear();
        }
        int
    }
}

impl<'py> Reader<'_, 'py> {
    #[inline(always)]
    pub(super) fn number(&mut self) -> Result<Bound<'py, PyAny>, Refused> {
        let (start, text) = (self.index, self.text);
        let (negative, unsigned) = match text.get(start..) {
            Some([b'-', rest @ ..]) => (true, rest),
            Some(rest) => (false, rest),
            None => return Err(Refused::SYNTAX),
        };
        let (mut value, mut digits, mut next) = (0_i64, 0, 0);
        for &byte in unsigned {
            next = byte;
            if !byte.is_ascii_digit() {
                break;
            }
            // What wraps is not used below.
            value = value.wrapping_mul(10).wrapping_add(i64::from(byte - b'0'));
            digits += 1;
        }
        if digits == 0 || (digits > 1 && unsigned[0] == b'0') {
            return Err(Refused::SYNTAX);
        }
        self.index = start + usize::from(negative) + digits;
        if let b'.' | b'e' | b'E' = next {
            return self.float(start);
        }
        if digits > SMALL_DIGITS {
            return self.long(start, digits);
        }
        let value = if negative { -value } else { value };
        int(self.py, value).ok_or_else(|| self.refuse("out of memory"))
    }

    /// From `start`, with the point or the exponent next.
    #[inline(never)]
    fn float(&mut self, start: usize) -> Result<Bound<'py, PyAny>, Refused> {
        if self.text[self.index] == b'.' {
            self.index += 1;
            self.digits()?;
        }
        if let Some(b'e' | b'E') = self.text.get(self.index) {
            self.index += 1;
            self.index += usize::from(matches!(self.text.get(self.index), Some(b'+' | b'-')));
            self.digits()?;
        }
        // SAFETY: digits, signs, a point and an exponent, all of them ASCII.
        let text = unsafe { std::str::from_utf8_unchecked(&self.text[start..self.index]) };
        match text.parse::<f64>() {
            Ok(float) if float.is_finite() => Ok(PyFloat::new(self.py, float).into_any()),
            _ => Err(self.refuse("a number is too large for a float")),
        }
    }

    /// At least one.
    fn digits(&mut self) -> Result<(), Refused> {
        let digits = self.text[self.index..].iter().take_while(|byte| byte.is_ascii_digit()).count();
        self.index += digits;
        if digits > 0 { Ok(()) } else { Err(Refused::SYNTAX) }
    }

    #[inline(never)]
    fn long(&mut self, start: usize, digits: usize) -> Result<Bound<'py, PyAny>, Refused> {
        if digits > MAX_DIGITS {
            return Err(self.refuse(format!("a number has more than {MAX_DIGITS} digits")));
        }
        let text = CString::new(&self.text[start..self.index]).unwrap_or_default();
        // SAFETY: the text ends with NUL, and the result is a new reference or null with an exception set.
        let int = unsafe {
            let int = py_ffi::PyLong_FromString(text.as_ptr(), std::ptr::null_mut(), 10);
            Bound::from_owned_ptr_or_err(self.py, int)
        };
        int.map_err(|_| self.refuse("a number has more digits than sys.set_int_max_str_digits allows"))
    }
}
