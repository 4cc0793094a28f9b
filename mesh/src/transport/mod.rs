//! JSON-RPC 2.0 over one QUIC connection: [`Caller`] sends requests, [`serve`] answers them. Both run on either end.
//! `docs/protocol.md` describes the wire.
//!
//! Invariants:
//! - every call ends in an answer or a [`CallError`], at the latest when the link is lost;
//! - an answer or request larger than [`LARGE_BYTES`], and a streamed answer, has a QUIC stream of its own and
//!   holds up no other;
//! - [`CallError::NotSent`] is said only of requests no byte of which has left this node.

pub mod frame;
pub mod quic;

mod caller;
mod calls;
mod congestion;
mod envelope;
mod items;
mod outbox;
mod reader;
mod server;
mod turn;
mod work;

use quinn::{Connection, VarInt};
use serde::{Deserialize, Serialize};

pub use caller::Caller;
pub use calls::{CallError, Response};
pub(crate) use envelope::Message;
pub use envelope::{Failure, INTERNAL_ERROR, INVALID_PARAMS, INVALID_REQUEST, METHOD_NOT_FOUND};
pub use items::{Item, Items};
pub(crate) use server::serve_counted;
pub use server::{Answer, Handler, LocalFuture, Outgoing, Request, serve};
pub(crate) use work::Work;

/// Bodies up to this size share a stream with others.
pub const LARGE_BYTES: usize = 32 * 1024;

/// The close code of a connection that is not needed any more.
pub const GOODBYE: VarInt = VarInt::from_u32(0);

/// The close code of a connection whose peer broke the protocol; the reason says how.
pub const PROTOCOL_ERROR: VarInt = VarInt::from_u32(2);

/// The notification that takes a request back.
const CANCEL: &str = "cancel";
/// The notification that begins a streamed answer.
const OPEN: &str = "open";
/// The notification with one item of a streamed answer.
const ITEM: &str = "item";

/// Closes the connection of a peer that broke the protocol.
fn refuse(connection: &Connection, reason: &str) {
    if connection.close_reason().is_none() {
        let remote = connection.remote_address();
        tracing::warn!(target: "fnmesh::mesh", %remote, reason, "a peer breaks the protocol; its link is closed");
        connection.close(PROTOCOL_ERROR, reason.as_bytes());
    }
}

/// The parameters of `cancel`.
#[derive(Debug, Serialize, Deserialize)]
struct Cancel {
    id: u64,
}
