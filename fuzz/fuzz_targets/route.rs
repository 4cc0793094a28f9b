//! Reads any text as the path of a request.

#![no_main]

use fnmesh_gateway::fuzz::route;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|path: &str| {
    route(path);
});
