//! Unpacks any bytes as a bundle; nothing may be written but the app, and nothing be left where it is refused.

#![no_main]

use fnmesh_runtime::fuzz::bundle;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let scratch = tempfile::tempdir().expect("there is room for a directory");
    bundle(bytes, scratch.path());
});
