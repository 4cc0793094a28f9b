//! What reads bytes of peers, for fuzz targets and tests. Not for use: it may change at any time. Nothing here may
//! panic, whatever it is given.

use std::{fs, path::Path};

use bytesize::ByteSize;

use crate::bundle::{Limits, unpack};

const BLOCK: usize = 512;

/// Unpacks `input` in `scratch`, an empty directory, as it is and as if its checksums were right; says whether either
/// is a bundle.
///
/// # Panics
/// When something is written where it should not be.
pub fn bundle(input: &[u8], scratch: &Path) -> bool {
    let limits = Limits { entries: 50, size: ByteSize::kib(64) };
    let directory = scratch.join("app");
    [input, &signed(input)].into_iter().fold(false, |before, input| {
        let unpacked = unpack(input, &directory, limits);
        let left = fs::read_dir(scratch).expect("it is there").count();
        assert_eq!(left, usize::from(unpacked.is_ok()), "{unpacked:?} and {left} entries");
        if unpacked.is_ok() {
            fs::remove_dir_all(&directory).expect("it was unpacked just now");
        }
        before || unpacked.is_ok()
    })
}

/// The same with right checksums, as far as its records can be told apart.
fn signed(input: &[u8]) -> Vec<u8> {
    let mut bytes = input.to_vec();
    let mut at = 0;
    while let Some(block) = bytes.get_mut(at..at + BLOCK) {
        if block.iter().all(|byte| *byte == 0) {
            break;
        }
        let mut header = tar::Header::from_byte_slice(block).clone();
        header.set_cksum();
        block.copy_from_slice(header.as_bytes());
        let content = header.entry_size().ok().and_then(|size| usize::try_from(size).ok());
        let Some(next) = content.and_then(|size| size.checked_next_multiple_of(BLOCK)?.checked_add(at + BLOCK)) else {
            break;
        };
        at = next.min(bytes.len());
    }
    bytes
}
