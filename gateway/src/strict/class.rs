//! What bytes may stand where in a request head, and scans over them.
//!
//! Each request passes here byte by byte: one table for all questions, and eight bytes at a time
//! where values are long.

/// A method or a field name. RFC 9110, 5.6.2.
pub(super) const TOKEN: u8 = 1;
/// A host and port. RFC 3986, 3.2.2, without the comma, which joins repeated headers.
pub(super) const HOST: u8 = 2;
/// The path of a target, as the `http` crate takes it.
pub(super) const PATH: u8 = 4;
/// The query of a target, likewise.
pub(super) const QUERY: u8 = 8;
/// The value of a field.
pub(super) const VALUE: u8 = 16;

const CLASSES: [u8; 256] = classes();

const fn classes() -> [u8; 256] {
    let mut table = [0; 256];
    let mut index = 0;
    while index < 256 {
        let byte = index as u8;
        let mut class = 0;
        if byte.is_ascii_alphanumeric() || is_in(byte, b"!#$%&'*+-.^_`|~") {
            class |= TOKEN;
        }
        if byte.is_ascii_alphanumeric() || is_in(byte, b"!$%&'()*+-.:;=[]_~") {
            class |= HOST;
        }
        if (byte.is_ascii_graphic() || byte >= 0x80) && !is_in(byte, b"<>#") {
            if byte != b'`' && byte != b'?' {
                class |= PATH;
            }
            if byte != b'"' {
                class |= QUERY;
            }
        }
        if byte == b'\t' || (byte >= b' ' && byte != 0x7f) {
            class |= VALUE;
        }
        table[index] = class;
        index += 1;
    }
    table
}

const fn is_in(byte: u8, set: &[u8]) -> bool {
    let mut index = 0;
    while index < set.len() {
        if set[index] == byte {
            return true;
        }
        index += 1;
    }
    false
}

/// How many bytes `input` begins with that are of this class.
pub(super) fn run(input: &[u8], class: u8) -> usize {
    input.iter().position(|&byte| CLASSES[usize::from(byte)] & class == 0).unwrap_or(input.len())
}

/// [`run`] for [`VALUE`], which is the class of most bytes.
pub(super) fn value_run(input: &[u8]) -> usize {
    let mut done = 0;
    loop {
        while let Some(word) = input[done..].first_chunk::<8>()
            && is_plain(u64::from_le_bytes(*word))
        {
            done += 8;
        }
        match input.get(done) {
            Some(&byte) if CLASSES[usize::from(byte)] & VALUE != 0 => done += 1,
            _ => return done,
        }
    }
}

/// Whether no byte of the word is below a space or DEL.
/// Source: <https://graphics.stanford.edu/~seander/bithacks.html#HasLessInWord>.
fn is_plain(word: u64) -> bool {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGH: u64 = 0x8080_8080_8080_8080;
    let no_delete = word ^ (ONES * 0x7f);
    let low = word.wrapping_sub(ONES * 0x20) & !word;
    let delete = no_delete.wrapping_sub(ONES) & !no_delete;
    (low | delete) & HIGH == 0
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn words_and_bytes_agree(mut input in prop::collection::vec(32u8..=255, 0..40), at in 0usize..40, byte: u8) {
            if let Some(place) = input.get_mut(at) {
                *place = byte;
            }
            prop_assert_eq!(value_run(&input), run(&input, VALUE));
        }
    }
}
