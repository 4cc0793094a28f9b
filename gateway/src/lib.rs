//! HTTP in: turns requests into calls and replies into answers.
//!
//! [`Server::start`] runs one thread per core. Each has its own listener on the shared port, its
//! own current-thread runtime and its own [`fnmesh_invoke::Invoke`], so that a request is read,
//! called and answered on one thread.
//!
//! A request passes `io` (reads; `strict` checks its framing before hyper sees it), `service`,
//! `route`, then `call` (with `args` and `respond`), `rpc` or `control`.
//!
//! Invariants:
//! - bytes that are not plainly a request never reach hyper, and end the connection;
//! - every wait for a client has a limit;
//! - dropping a connection drops its calls.

#![forbid(unsafe_code)]

mod args;
mod body;
mod call;
mod config;
mod connection;
mod control;
mod cors;
mod executor;
#[doc(hidden)]
pub mod fuzz;
mod headers;
mod hub;
mod io;
mod metrics;
mod refusal;
mod rejection;
mod respond;
mod route;
mod rpc;
mod server;
mod service;
mod stream;
mod strict;
mod thread;

pub use config::Config;
pub use control::Control;
pub use server::Server;
