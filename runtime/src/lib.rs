//! Runs functions on this machine.

pub mod worker;
