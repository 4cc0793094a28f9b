//! Finds where a call can run. So far one node: every call runs here.
//!
//! [`Dispatch`] stands between the gateway and the runtime of this node.

#![forbid(unsafe_code)]

pub mod balance;
mod dispatch;
mod driver;
mod id;
pub mod identity;
mod known;
mod links;
pub mod membership;
pub mod table;

pub use config::{Config, Join};
pub use dispatch::{Dispatch, MAX_HOPS};
pub use driver::Member;
pub use id::{InvalidId, NodeId};
pub use mesh::{Handle, Mesh, StartError};
