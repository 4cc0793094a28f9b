//! Nodes that find each other, know who serves what, and carry calls to where they run.
//!
//! [`Dispatch`] stands between the gateway and the runtime of this node. [`membership`], [`table`], [`balance`]
//! and [`placement`] are state machines for more than one node: who is in the mesh, who serves what, which peer gets a
//! call, and which nodes host an app. They do no I/O and read no clock.

#![forbid(unsafe_code)]

pub mod balance;
mod config;
mod dispatch;
mod driver;
mod id;
pub mod identity;
mod known;
mod links;
pub mod membership;
pub mod placement;
pub mod table;
pub mod transport;

pub use config::{Config, Join};
pub use dispatch::{Dispatch, MAX_HOPS};
pub use driver::Member;
pub use id::{InvalidId, NodeId};
pub use mesh::{Handle, Mesh, StartError};
