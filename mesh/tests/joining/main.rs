//! Joining a mesh, and who is refused, over real QUIC on 127.0.0.1.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod join;
mod links;
mod support;
