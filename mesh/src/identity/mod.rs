//! Who a node is, whom it talks to, and how a machine becomes a node of the mesh.
//!
//! A mesh is a certificate authority (CA) of its own, made by the first node. Each node has an Ed25519 key
//! that never leaves it and a certificate of the CA for it, valid for 30 days, whose only name
//! is the node's [`NodeId`](crate::NodeId): the hash of that key. Links between nodes are mutual
//! TLS 1.3; both sides check CA, time, and that the name is the hash of the key.
//!
//! - [`Identity`] is this node's: [`Identity::found`] makes a mesh, [`join::join`] joins one,
//!   [`Identity::load`] reads what either wrote. It makes the TLS configurations.
//! - [`Authority`] is what a node has that holds the CA's key: it signs certificates.
//! - [`accept`] (or [`admit`], right after the handshake) says who has connected, before a
//!   stream is accepted: not one byte of an unauthenticated peer is parsed as a call.
//! - [`Tokens`] are the join tokens of this node, [`join::serve`] admits nodes with them.
//! - [`DenyList`] are the nodes that are no longer of the mesh, whatever their certificate says.
//!
//! What follows from each of these files being stolen stands in `docs/adr/0028-identity-and-joining.md`,
//! the protocol of joining in `docs/protocol.md`.

mod admit;
mod authority;
mod certificate;
mod deny;
mod error;
mod files;
pub mod join;
mod limit;
mod own;
mod tls;
mod token;
mod tokens;

pub use admit::{Admitted, Refusal, accept, admit, told};
pub use authority::{Authority, SignError};
pub use certificate::{CLOCK_SKEW, Invalid, LEAF_LIFE};
pub use deny::{Denied, DenyList};
pub use error::Error;
pub(crate) use files::{read as read_file, replace as replace_file};
pub use own::Identity;
pub use tls::{ALPN_CALL, ALPN_JOIN, ALPN_MESH};
pub use token::{InvalidToken, Token, TokenId};
pub use tokens::{TokenOptions, TokenState, TokenStatus, Tokens};
