//! An Ethernet switch in user space: hosts are network namespaces, each with a TAP device that ends here, and every way
//! to and from a host delays, loses, reorders and cuts frames as it is told. It stands in for netem, which not every
//! kernel has, and treats UDP, TCP and all else alike.
//!
//! [`Switch`] is a running one. What becomes of a frame is decided by [`Way`], which has no clock and no device, and
//! throws the same dice for the same seed.

#![deny(unsafe_code)]

mod condition;
mod fabric;
mod switch;
mod table;
mod tap;
mod way;

pub use condition::{Condition, ParseError};
pub use fabric::{Counts, Direction};
pub use switch::Switch;
pub use tap::DEVICE;
pub use way::Way;
