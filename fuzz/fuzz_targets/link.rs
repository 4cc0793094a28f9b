//! Reads any bytes as a stream of messages of a peer.

#![no_main]

use fnmesh_mesh::fuzz::link;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    link(bytes);
});
