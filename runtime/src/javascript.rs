//! Reads JavaScript and TypeScript without running it: types stripped for Node, and the signatures
//! that the running language cannot tell.

mod isolated;
mod literal;
mod signature;
mod strip;

pub use signature::{documentation, parameters, typescript_signatures};
pub use strip::strip_types;
