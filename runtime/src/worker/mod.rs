//! Worker processes and the wire to them.

pub mod frame;
