//! Finds where a call can run. So far one node: every call runs here.
//!
//! [`Dispatch`] stands between the gateway and the runtime of this node.

#![forbid(unsafe_code)]

mod dispatch;
mod id;
pub mod membership;
mod rpc;
pub mod transport;
pub mod identity;

pub use dispatch::{Dispatch, MAX_HOPS};
pub use id::{InvalidId, NodeId};
