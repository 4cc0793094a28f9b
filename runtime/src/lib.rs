//! Runs functions on this machine.

pub mod app;
pub mod deps;
pub mod manifest;
pub mod worker;

pub use app::{App, AppError, Module};
