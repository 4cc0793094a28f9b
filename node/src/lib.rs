//! One fnmesh node.

#![forbid(unsafe_code)]

pub mod cli;
mod environment;
mod event;
mod logs;
mod port;
mod report;
mod shutdown;
mod table;
mod terminal;

pub use event::{Event, Observer};
