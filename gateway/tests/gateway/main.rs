//! The gateway over real sockets, with an invoker that runs in the same process.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod calls;
mod control;
mod drain;
mod fake;
mod framing;
mod http2;
mod limits;
mod rpc;
mod streams;
mod support;
