//! Strings of JSON.

use pyo3::{ffi as py_ffi, prelude::*, types::PyString};

use super::Refused;

/// Where a string's bytes are.
pub(super) enum Text {
    /// In the text itself, from and to.
    Plain(usize, usize),
    /// In the buffer for strings with escapes.
    Unescaped,
}

impl Text {
    #[inline]
    pub(super) fn resolve<'a>(&self, text: &'a [u8], unescaped: &'a [u8]) -> &'a [u8] {
        match *self {
            Self::Plain(start, end) => &text[start..end],
            Self::Unescaped => unescaped,
        }
    }
}

/// The index of the first byte from `index` on that is no white space.
#[inline(never)]
pub(super) fn skip_space(text: &[u8], mut index: usize) -> usize {
    while let Some(b' ' | b'\n' | b'\r' | b'\t') = text.get(index) {
        index += 1;
    }
    index
}

/// Reads the string that begins at `index`. Its bytes are UTF-8 only if the text is.
#[inline]
pub(super) fn read(text: &[u8], index: &mut usize, unescaped: &mut Vec<u8>) -> Result<Text, Refused> {
    let start = *index + 1;
    let end = start + special(&text[start..]);
    if text.get(end) == Some(&b'"') {
        *index = end + 1;
        return Ok(Text::Plain(start, end));
    }
    *index = end;
    unescaped.clear();
    unescaped.extend_from_slice(&text[start..end]);
    unescape(text, index, unescaped)?;
    Ok(Text::Unescaped)
}

/// A Python string. `None` if the bytes are no UTF-8.
#[inline]
pub(crate) fn string<'py>(py: Python<'py>, text: &[u8]) -> Option<Bound<'py, PyString>> {
    // SAFETY: the bytes are borrowed for the call; the result is a new string, or null with an exception set.
    unsafe {
        let string = py_ffi::PyUnicode_FromStringAndSize(text.as_ptr().cast(), text.len() as py_ffi::Py_ssize_t);
        if string.is_null() {
            py_ffi::PyErr_Clear();
            return None;
        }
        Some(Bound::from_owned_ptr(py, string).cast_into_unchecked())
    }
}

/// Reads on from `index`, where an escape is, to the end of the string.
fn unescape(text: &[u8], index: &mut usize, out: &mut Vec<u8>) -> Result<(), Refused> {
    loop {
        match text.get(*index) {
            Some(b'"') => {
                *index += 1;
                return Ok(());
            }
            Some(b'\\') => escape(text, index, out)?,
            // A control character, or the end.
            _ => return Err(Refused::SYNTAX),
        }
        let plain = special(&text[*index..]);
        out.extend_from_slice(&text[*index..*index + plain]);
        *index += plain;
    }
}

fn escape(text: &[u8], index: &mut usize, out: &mut Vec<u8>) -> Result<(), Refused> {
    let short = match text.get(*index + 1) {
        Some(&byte @ (b'"' | b'\\' | b'/')) => byte,
        Some(b'b') => 0x08,
        Some(b'f') => 0x0c,
        Some(b'n') => b'\n',
        Some(b'r') => b'\r',
        Some(b't') => b'\t',
        Some(b'u') => return unicode_escape(text, index, out),
        _ => return Err(Refused::SYNTAX),
    };
    out.push(short);
    *index += 2;
    Ok(())
}

/// Surrogates have to come in pairs.
fn unicode_escape(text: &[u8], index: &mut usize, out: &mut Vec<u8>) -> Result<(), Refused> {
    let mut code = hex(text, *index + 2)?;
    *index += 6;
    if (0xd800..0xdc00).contains(&code) && text[*index..].starts_with(b"\\u") {
        let low = hex(text, *index + 2)?;
        *index += 6;
        if !(0xdc00..0xe000).contains(&low) {
            return Err(Refused::SYNTAX);
        }
        code = 0x1_0000 + ((code - 0xd800) << 10) + (low - 0xdc00);
    }
    // A surrogate that is left is no character.
    let character = char::from_u32(code).ok_or(Refused::SYNTAX)?;
    out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
    Ok(())
}

fn hex(text: &[u8], index: usize) -> Result<u32, Refused> {
    let digits = text.get(index..index + 4).ok_or(Refused::SYNTAX)?;
    digits.iter().try_fold(0, |code, &digit| {
        let digit = char::from(digit).to_digit(16).ok_or(Refused::SYNTAX)?;
        Ok(code << 4 | digit)
    })
}

/// Index of the first quote, backslash or control character; the length if there is none.
#[inline]
pub(crate) fn special(bytes: &[u8]) -> usize {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGHS: u64 = 0x8080_8080_8080_8080;
    // A byte's high bit in the result tells that it is less than `than`, which is exact for the lowest such byte.
    let below = |word: u64, than: u8| word.wrapping_sub(ONES * u64::from(than)) & !word;
    let mut index = 0;
    while let Some(chunk) = bytes[index..].first_chunk() {
        let word = u64::from_le_bytes(*chunk);
        let equal = |byte: u8| below(word ^ (ONES * u64::from(byte)), 1);
        let found = (below(word, 0x20) | equal(b'"') | equal(b'\\')) & HIGHS;
        if found != 0 {
            return index + (found.trailing_zeros() / 8) as usize;
        }
        index += 8;
    }
    let rest = bytes[index..].iter().position(|&byte| byte < 0x20 || byte == b'"' || byte == b'\\');
    rest.map_or(bytes.len(), |rest| index + rest)
}
