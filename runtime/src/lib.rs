//! Runs functions on this machine.

pub mod javascript;
pub mod worker;
