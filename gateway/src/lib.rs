//! HTTP in: turns requests into calls and replies into answers.
//!
//! [`Server::start`] runs one thread per core. Each has its own listener on the shared port, its
//! own current-thread runtime and its own [`fnmesh_invoke::Invoke`], so that a request is read,
//! called and answered on one thread.
//!
//! A request passes `http1` (with `strict`, which knows the syntax) or `http2`, then `service`,
//! `route`, and `call` (with `args` and `respond`), `rpc` or `control`.
//!
//! Invariants:
//! - bytes that are not plainly a request end the connection;
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
#[doc(hidden)]
pub mod fuzz;
mod guard;
mod headers;
mod http1;
mod http2;
mod hub;
mod metrics;
mod refusal;
mod rejection;
mod request;
mod respond;
mod route;
mod rpc;
mod server;
mod service;
mod stream;
mod strict;
mod thread;
mod turns;

pub use config::Config;
pub use control::{Control, Load};
pub use server::Server;
