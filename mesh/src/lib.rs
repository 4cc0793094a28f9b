//! Finds where a call can run. So far one node: every call runs here.
//!
//! [`Dispatch`] stands between the gateway and the runtime of this node. [`membership`], [`table`] and [`balance`] are
//! state machines for more than one node: who is in the mesh, who serves what, and which peer gets a call. They do no
//! I/O and read no clock.

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
