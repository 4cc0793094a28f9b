//! How messages stand in a stream: two lengths, a JSON-RPC envelope, bytes beside it.
//!
//! ```text
//! u32 LE  length of the envelope
//! u32 LE  length of the body
//! envelope: one JSON-RPC 2.0 object, UTF-8
//! body: the payload of the message, as it is
//! ```
//! Payloads stay outside of the envelope, so that neither side scans, escapes or trusts them.

use bytes::{Buf, BufMut, Bytes, BytesMut};

/// Bytes in front of each envelope.
pub const HEADER_BYTES: usize = 8;

/// One message.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Frame {
    /// The JSON-RPC object.
    pub envelope: Bytes,
    /// The bytes beside it; empty if there are none.
    pub body: Bytes,
}

/// What a reader takes at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Of an envelope, in bytes. Default 1 MiB.
    pub envelope_bytes: usize,
    /// Of a body, in bytes. Default 256 MiB. Nothing is reserved before it arrives.
    pub body_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { envelope_bytes: 1024 * 1024, body_bytes: 256 * 1024 * 1024 }
    }
}

/// A length beyond a limit: the stream cannot be read any further.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what} of {length} bytes is over the limit of {limit}")]
pub struct FrameError {
    /// `an envelope` or `a body`.
    pub what: &'static str,
    /// What the frame says.
    pub length: usize,
    /// What is allowed.
    pub limit: usize,
}

/// Appends a frame to `out`; `envelope` writes its text there.
///
/// # Panics
/// When one of the two is 4 GiB or longer; senders have limits far below.
pub fn encode(out: &mut BytesMut, envelope: impl FnOnce(&mut BytesMut), body: &[u8]) {
    head(out, envelope, body.len());
    out.extend_from_slice(body);
}

/// Appends all of a frame but its body of `body_bytes`, which the caller sends after it.
///
/// # Panics
/// As [`encode`].
pub fn head(out: &mut BytesMut, envelope: impl FnOnce(&mut BytesMut), body_bytes: usize) {
    let start = out.len();
    out.put_bytes(0, HEADER_BYTES);
    envelope(out);
    let written = out.len() - start - HEADER_BYTES;
    let length = |bytes: usize| u32::try_from(bytes).expect("senders have limits far below 4 GiB").to_le_bytes();
    out[start..start + 4].copy_from_slice(&length(written));
    out[start + 4..start + HEADER_BYTES].copy_from_slice(&length(body_bytes));
}

/// Takes the first frame off `input`; `None` while it is not complete.
///
/// # Errors
/// [`FrameError`] as soon as the lengths are there.
pub fn decode(input: &mut BytesMut, limits: Limits) -> Result<Option<Frame>, FrameError> {
    let Some((header, rest)) = input.split_first_chunk::<HEADER_BYTES>() else { return Ok(None) };
    let length = |at: usize| u32::from_le_bytes(std::array::from_fn(|byte| header[at + byte])) as usize;
    let (envelope, body) = (length(0), length(4));
    check("an envelope", envelope, limits.envelope_bytes)?;
    check("a body", body, limits.body_bytes)?;
    if rest.len() < envelope + body {
        return Ok(None);
    }
    input.advance(HEADER_BYTES);
    Ok(Some(Frame { envelope: input.split_to(envelope).freeze(), body: input.split_to(body).freeze() }))
}

fn check(what: &'static str, length: usize, limit: usize) -> Result<(), FrameError> {
    if length > limit { Err(FrameError { what, length, limit }) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn encoded(frames: &[(Vec<u8>, Vec<u8>)]) -> BytesMut {
        let mut out = BytesMut::new();
        for (envelope, body) in frames {
            encode(&mut out, |out| out.extend_from_slice(envelope), body);
        }
        out
    }

    proptest! {
        #[test]
        fn frames_survive_any_cut(
            frames in prop::collection::vec((prop::collection::vec(any::<u8>(), 0..50), prop::collection::vec(any::<u8>(), 0..50)), 0..6),
            cut in 1_usize..40,
        ) {
            let bytes = encoded(&frames);
            let (mut input, mut read) = (BytesMut::new(), Vec::new());
            for part in bytes.chunks(cut) {
                input.extend_from_slice(part);
                while let Some(frame) = decode(&mut input, Limits::default()).unwrap() {
                    read.push((frame.envelope.to_vec(), frame.body.to_vec()));
                }
            }
            prop_assert_eq!(read, frames);
            prop_assert!(input.is_empty());
        }

        #[test]
        fn garbage_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut input = BytesMut::from(&bytes[..]);
            while let Ok(Some(_)) = decode(&mut input, Limits::default()) {}
        }
    }

    #[test]
    fn lengths_over_a_limit_are_refused_at_once() {
        let limits = Limits { envelope_bytes: 10, body_bytes: 20 };
        let mut long_envelope = BytesMut::from(&[11, 0, 0, 0, 0, 0, 0, 0][..]);
        let refused = FrameError { what: "an envelope", length: 11, limit: 10 };
        assert_eq!(decode(&mut long_envelope, limits), Err(refused));
        let mut long_body = BytesMut::from(&[1, 0, 0, 0, 255, 255, 255, 255][..]);
        let refused = FrameError { what: "a body", length: u32::MAX as usize, limit: 20 };
        assert_eq!(decode(&mut long_body, limits), Err(refused));
    }
}
