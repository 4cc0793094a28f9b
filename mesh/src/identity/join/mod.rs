//! How a machine becomes a node of a mesh: it shows that it has a join token, and gets a
//! certificate for a key that it made. The secret in the token does not travel.
//!
//! `docs/protocol.md`, "Joining", has the protocol.

mod client;
mod server;
mod trust;
mod wire;

pub use client::{JoinError, Joined, join};
pub use server::serve;
pub use wire::{JoinRefused, PeerAddress};
