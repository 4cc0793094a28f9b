//! The syntax of HTTP/1 requests, without I/O, and without forgiveness.
//!
//! What other servers on the way may read in another way is refused (RFC 9112, 11.2): bare line
//! feeds, a `Content-Length` beside a `Transfer-Encoding`, a missing `Host`. The verdict does not
//! depend on how the input was cut.

mod chunk;
mod class;
mod field;
mod head;
#[cfg(test)]
mod tests;

pub(crate) use chunk::Chunked;
pub(crate) use head::{Field, Head};

/// How a request's body ends.
#[derive(Debug)]
pub(crate) enum Framing {
    /// After so many bytes to come.
    Length(u64),
    /// After a last chunk.
    Chunked(Chunked),
}
