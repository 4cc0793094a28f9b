//! Decodes any bytes as a stream of frames; what decodes must encode to the same bytes again.

#![no_main]

use fnmesh_runtime::worker::frame::{Decoded, decode, encode};
use libfuzzer_sys::fuzz_target;

const LIMIT: usize = 1 << 20;

fuzz_target!(|bytes: &[u8]| {
    let mut rest = bytes;
    loop {
        match decode(rest, LIMIT) {
            Ok(Decoded::Frame(frame)) => {
                let (taken, after) = rest.split_at(frame.len());
                let mut again = Vec::new();
                encode(frame.header, frame.meta, frame.body, &mut again);
                assert_eq!(again, taken);
                rest = after;
            }
            Ok(Decoded::Incomplete(wanted)) => {
                assert!(wanted > rest.len() && wanted <= LIMIT, "asks for {wanted} bytes, has {}", rest.len());
                return;
            }
            Err(_) => return,
        }
    }
});
