//! Reads any bytes as a JSON-RPC request or batch.

#![no_main]

use fnmesh_gateway::fuzz::rpc;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|body: &[u8]| {
    rpc(body);
});
