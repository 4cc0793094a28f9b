//! Runs functions on this machine.
//!
//! [`Runtime`] deploys [`app::App`]s: for each language of an app it keeps a pool of worker processes.
//! Each calling thread has a [`Local`], which is the [`fnmesh_invoke::Invoke`] of that thread.
//!
//! Invariants:
//! - user code runs in worker processes only; whatever it does, it ends one worker;
//! - a call is counted on its instance from before its frame is written until the worker answered;
//! - a version that is replaced serves its calls to their end.

#![deny(unsafe_code)]

pub mod app;
pub mod bundle;
mod catalog;
mod channel;
mod config;
pub mod deps;
#[doc(hidden)]
pub mod fuzz;
mod inspect;
mod instance;
pub mod javascript;
mod local;
mod logs;
pub mod manifest;
mod pool;
mod runtime;
mod threads;
#[allow(unsafe_code, reason = "a worker is prepared between fork and exec")]
pub mod worker;

pub use app::{App, AppError, Module};
pub use config::Config;
pub use local::Local;
pub use runtime::{Demand, Runtime};
pub use worker::{
    sandbox,
    turns::{OwnTurns, take_turns},
};
