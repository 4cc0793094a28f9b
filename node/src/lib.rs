//! One fnmesh node, and the command line that starts it and talks to it.
//!
//! [`Node::start`] reads the apps, listens, and loads the apps while calls of theirs wait. One control
//! thread owns the runtime, the apps' tasks and the watcher; gateway threads carry the calls.
//!
//! Invariants:
//! - the control thread lives as long as the node, because workers die with the thread that started them;
//! - an app that fails never stops another one, and keeps its last good version;
//! - the environment is read here, in one place, and handed to the other crates as configuration.

#![forbid(unsafe_code)]

mod admin;
mod app;
pub mod cli;
mod config;
mod discover;
mod environment;
mod error;
mod event;
mod hosting;
mod idempotency;
mod logs;
mod mesh;
mod node;
mod port;
mod report;
mod running;
mod shutdown;
mod socket;
mod table;
mod terminal;
mod watch;

pub use config::Config;
pub use error::StartError;
pub use event::{Event, Observer};
pub use node::Node;
