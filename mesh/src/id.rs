use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// The name of a node: the first 16 bytes of the SHA-256 of its public key (its
/// `SubjectPublicKeyInfo` in DER), shown as 32 lower-case hex digits.
///
/// It is also the only DNS name in the node's certificate, so that TLS itself checks whom a link
/// leads to.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct NodeId([u8; 16]);

/// A text that is no [`NodeId`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a node id: 32 lower-case hex digits are")]
pub struct InvalidId(String);

impl NodeId {
    /// The id of the node with this public key, as `SubjectPublicKeyInfo` in DER.
    pub fn of_key(spki_der: &[u8]) -> Self {
        let hash = ring::digest::digest(&ring::digest::SHA256, spki_der);
        Self(std::array::from_fn(|index| hash.as_ref()[index]))
    }

    /// An id made of these bytes, for simulations and tests.
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// The 16 bytes.
    pub const fn to_bytes(self) -> [u8; 16] {
        self.0
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
    }
}

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for NodeId {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        let well_formed = text.len() == 32 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        let number = well_formed.then(|| u128::from_str_radix(text, 16).ok()).flatten();
        number.map(|number| Self(number.to_be_bytes())).ok_or_else(|| InvalidId(text.to_owned()))
    }
}

impl TryFrom<String> for NodeId {
    type Error = InvalidId;

    fn try_from(text: String) -> Result<Self, InvalidId> {
        text.parse()
    }
}

impl From<NodeId> for String {
    fn from(id: NodeId) -> Self {
        id.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_id_are_inverse() {
        let id = NodeId::of_key(b"some key");
        assert_eq!(id.to_string().parse(), Ok(id));
        assert_eq!(serde_json::from_str::<NodeId>(&serde_json::to_string(&id).unwrap()).unwrap(), id);
    }

    #[test]
    fn other_texts_are_refused_by_name() {
        for bad in ["", "+123456789abcdef0123456789abcdef0", "0123456789ABCDEF0123456789ABCDEF", "12"] {
            assert_eq!(bad.parse::<NodeId>(), Err(InvalidId(bad.to_owned())));
        }
    }
}
