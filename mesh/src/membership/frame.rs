//! What members send each other besides SWIM's own messages, and which is which.
//!
//! ```text
//! 0 | SWIM message
//! 1 | digest (8) | 1 if it answers a digest (1)
//! 2 | identity of the sender, which leaves
//! ```

use bytes::{BufMut, Bytes, BytesMut};

use super::{
    codec::{self, Error},
    identity::Identity,
};

/// A message between members.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Frame<'a> {
    /// For foca.
    Swim(&'a [u8]),
    /// What the sender knows, in short.
    Digest { digest: u64, answer: bool },
    /// The sender is about to end.
    Leave(Identity),
}

impl<'a> Frame<'a> {
    pub(super) fn encode(&self) -> Bytes {
        let mut out = Vec::with_capacity(64);
        match self {
            Self::Swim(bytes) => return swim(bytes),
            Self::Digest { digest, answer } => {
                out.push(1);
                out.extend_from_slice(&digest.to_be_bytes());
                out.push((*answer).into());
            }
            Self::Leave(identity) => {
                out.push(2);
                codec::put_identity(&mut out, identity);
            }
        }
        out.into()
    }

    pub(super) fn decode(bytes: &'a [u8]) -> Result<Self, Error> {
        let (kind, mut rest) = bytes.split_first().ok_or(Error::Truncated)?;
        match kind {
            0 => Ok(Self::Swim(rest)),
            1 => {
                let digest = u64::from_be_bytes(codec::array(&mut rest)?);
                Ok(Self::Digest { digest, answer: codec::byte(&mut rest)? != 0 })
            }
            2 => codec::identity(&mut rest).map(Self::Leave),
            other => Err(Error::Unknown { what: "type", value: (*other).into() }),
        }
    }
}

/// A SWIM message begins with its sender.
pub(super) fn swim_sender(message: &[u8]) -> Option<crate::NodeId> {
    message.first_chunk().map(|bytes| crate::NodeId::from_bytes(*bytes))
}

fn swim(message: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(message.len() + 1);
    out.put_u8(0);
    out.put_slice(message);
    out.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::NodeId;

    #[test]
    fn frames_survive_the_wire() {
        let leaving = Identity::new(NodeId::from_bytes([9; 16]), "[::1]:7100".parse().unwrap(), 12);
        for frame in [Frame::Swim(b"abc"), Frame::Digest { digest: u64::MAX - 1, answer: true }, Frame::Leave(leaving)]
        {
            assert_eq!(Frame::decode(&frame.encode()), Ok(frame));
        }
    }

    #[test]
    fn what_is_no_frame_is_refused() {
        assert_eq!(Frame::decode(b""), Err(Error::Truncated));
        assert_eq!(Frame::decode(b"\x01abc"), Err(Error::Truncated));
        assert_eq!(Frame::decode(b"\x07"), Err(Error::Unknown { what: "type", value: 7 }));
    }
}
