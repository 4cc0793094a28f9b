use std::{fmt, sync::Arc};

use crate::{Deadline, Function, Payload, RequestHead};

/// The name of one execution, unique on the mesh: 128 random bits, shown as 32 hex digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct InvocationId(u128);

impl InvocationId {
    /// A new one, from the thread's random generator (not for secrets). Never zero.
    pub fn random() -> Self {
        Self(fastrand::u128(1..))
    }

    /// Reads 32 lower-case hex digits; `None` for anything else and for zero.
    pub fn parse(text: &str) -> Option<Self> {
        let well_formed = text.len() == 32 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        let number = well_formed.then(|| u128::from_str_radix(text, 16).ok()).flatten();
        number.filter(|&number| number != 0).map(Self)
    }

    /// The 16 bytes, most significant first.
    pub fn to_bytes(self) -> [u8; 16] {
        self.0.to_be_bytes()
    }

    /// The 32 lower-case hex digits, without allocation.
    pub fn to_hex(self) -> [u8; 32] {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let mut hex = [0; 32];
        for (pair, byte) in hex.chunks_exact_mut(2).zip(self.0.to_be_bytes()) {
            pair[0] = DIGITS[usize::from(byte >> 4)];
            pair[1] = DIGITS[usize::from(byte & 15)];
        }
        hex
    }
}

impl fmt::Display for InvocationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Debug for InvocationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A W3C `traceparent` value, version 00, checked when parsed.
/// Source: <https://www.w3.org/TR/trace-context/#traceparent-header>.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Traceparent(Box<str>);

impl Traceparent {
    /// Reads a header value; `None` when it is not valid, which the specification says to ignore.
    pub fn parse(value: &[u8]) -> Option<Self> {
        let lower_hex = |part: &[u8]| part.iter().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        let nonzero = |part: &[u8]| part.iter().any(|&b| b != b'0');
        let text = std::str::from_utf8(value).ok()?;
        let well_formed = match value {
            [b'0', b'0', b'-', rest @ ..] if rest.len() == 52 => {
                let (trace, rest) = rest.split_at(32);
                let (parent, flags) = rest[1..].split_at(16);
                rest[0] == b'-'
                    && flags[0] == b'-'
                    && lower_hex(trace)
                    && nonzero(trace)
                    && lower_hex(parent)
                    && nonzero(parent)
                    && lower_hex(&flags[1..])
            }
            _ => false,
        };
        well_formed.then(|| Self(text.into()))
    }

    /// The child of `self` that names this invocation's own span: same trace and flags, and the
    /// low 64 bits of `id` as parent.
    #[must_use]
    pub fn child(&self, id: InvocationId) -> Self {
        Self(format!("{}-{:016x}-{}", &self.0[..35], id.0 as u64 | 1, &self.0[53..]).into())
    }

    /// The header value.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// One execution of one function, on its way there.
#[derive(Debug)]
pub struct Invocation {
    /// Its name.
    pub id: InvocationId,
    /// The function, as [`crate::Invoke::resolve`] gave it.
    pub function: Arc<Function>,
    /// The arguments.
    pub payload: Payload,
    /// The HTTP request without its body, for functions that take it; the payload is its raw body.
    pub request: Option<Box<RequestHead>>,
    /// When it must have ended.
    pub deadline: Deadline,
    /// How often it was forwarded between nodes. Starts at 0.
    pub hops: u8,
    /// The trace it belongs to, as received.
    pub traceparent: Option<Traceparent>,
    /// The caller's promise that calls with the same key are one call.
    pub idempotency_key: Option<Box<str>>,
}

#[cfg(test)]
mod tests {
    use super::*;

    const VALID: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn valid_traceparent_is_kept_as_is() {
        assert_eq!(Traceparent::parse(VALID.as_bytes()).unwrap().as_str(), VALID);
    }

    #[test]
    fn malformed_traceparent_is_ignored() {
        for bad in [
            "",
            "00",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-0",
            "00x4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        ] {
            assert_eq!(Traceparent::parse(bad.as_bytes()), None, "{bad}");
        }
    }

    #[test]
    fn child_keeps_trace_and_flags() {
        let child = Traceparent::parse(VALID.as_bytes()).unwrap().child(InvocationId(0xabcd));
        assert_eq!(child.as_str(), "00-4bf92f3577b34da6a3ce929d0e0e4736-000000000000abcd-01");
        assert!(Traceparent::parse(child.as_str().as_bytes()).is_some());
    }

    #[test]
    fn hex_and_display_agree() {
        let id = InvocationId::random();
        assert_eq!(std::str::from_utf8(&id.to_hex()).unwrap(), id.to_string());
        assert_eq!(InvocationId::parse(&id.to_string()), Some(id));
    }

    #[test]
    fn other_texts_are_no_ids() {
        for bad in ["", "1", &"0".repeat(32), &"A".repeat(32), &format!("+{}", "1".repeat(31)), &"1".repeat(33)] {
            assert_eq!(InvocationId::parse(bad), None, "{bad}");
        }
    }
}
