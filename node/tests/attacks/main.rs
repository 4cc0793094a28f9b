//! Functions that do their worst, and what everybody else notices of it: nothing (the canary rule).
//!
//! Every attack is bounded: by the limits under test, and by a deadline of its own should they fail.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "../support/mod.rs"]
mod support;

mod computation;
mod files;
mod harness;
mod memory;
mod output;
mod peeking;
mod processes;
mod signals;
