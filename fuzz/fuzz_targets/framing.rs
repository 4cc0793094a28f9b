//! Reads any bytes as HTTP/1 requests; where they were cut must not matter.

#![no_main]

use fnmesh_gateway::fuzz::framing;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (u16, &[u8])| {
    let (cut, bytes) = input;
    assert_eq!(framing(bytes, usize::from(cut)), framing(bytes, 0));
});
