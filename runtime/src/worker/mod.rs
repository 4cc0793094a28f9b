//! Worker processes and the wire to them.

pub(crate) mod activity;
pub(crate) mod cgroup;
mod child;
pub mod frame;
pub(crate) mod known;
pub(crate) mod node;
pub(crate) mod orphans;
pub(crate) mod process;
pub(crate) mod python;
pub mod sandbox;
pub(crate) mod turns;

/// `aux` of an error frame.
pub(crate) mod code {
    pub(crate) const UNKNOWN_FUNCTION: u16 = 1001;
    pub(crate) const INVALID_INPUT: u16 = 1002;
    pub(crate) const FUNCTION_FAILED: u16 = 1003;
    pub(crate) const CANCELLED: u16 = 1005;
}
