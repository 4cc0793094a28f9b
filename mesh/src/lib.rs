//! Nodes that find each other, know who serves what, and carry calls to where they run.
//!
//! [`Mesh`] is a node's place in its mesh: one thread that owns the node's link to each peer and does what the state
//! machines decide. Other threads talk to it through a [`Handle`]; [`Dispatch`] stands between a gateway thread and the
//! runtime of this node, and sends the calls of functions that are not here to peers. It has links of its own to the
//! peers it calls, so that a call wakes no other thread of its node; each stands and falls with the node's link.
//!
//! - [`identity`] says who a node is and how it joins, [`transport`] carries JSON-RPC over QUIC, `rpc` knows the
//!   methods.
//! - [`membership`], [`table`], [`balance`] and [`placement`] are state machines: who is in the mesh, who serves what,
//!   which peer gets a call, and which nodes host an app. They do no I/O and read no clock.
//! - [`deployments`] is what the mesh serves, the same on all nodes in the end; [`Bundles`] come from peers by hash.
//!
//! Invariants:
//! - a peer without a valid certificate of this mesh gets not one byte parsed as a call;
//! - a call is sent to a second peer only where that cannot run it twice, or its caller said that twice is once;
//! - the calls of peers go straight to this node's runtime: they are not forwarded again.

#![forbid(unsafe_code)]

mod address;
pub mod balance;
mod bundles;
mod config;
pub mod deployments;
mod dispatch;
mod driver;
pub mod fuzz;
mod handle;
mod hex;
mod id;
pub mod identity;
mod known;
mod links;
pub mod membership;
mod mesh;
#[cfg(test)]
#[path = "../tests/support/nothing.rs"]
mod nothing;
pub mod placement;
mod remote;
mod renewal;
mod rpc;
mod start;
pub mod table;
pub mod transport;

pub use bundles::{Bundles, FetchError};
pub use config::{Config, Join};
pub use dispatch::{Dispatch, MAX_HOPS};
pub use driver::Member;
pub use handle::{Handle, Heard};
pub use id::{InvalidId, NodeId};
pub use mesh::{Ask, Mesh};
pub use start::StartError;
