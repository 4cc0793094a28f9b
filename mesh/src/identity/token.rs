use std::{fmt, str::FromStr};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use ring::{
    digest::{SHA256, digest},
    hmac,
};
use serde::{Deserialize, Serialize};

use super::{Error, files};

const PREFIX: &str = "fnmesh join tokens look like fnm1.<43 characters>.<32 characters>";

/// What lets a machine join: `fnm1.<SHA-256 of the CA's certificate>.<id and secret>`, both in
/// base64url. It is shown once, by [`fmt::Display`]; the node that made it keeps a hash.
#[derive(Clone, PartialEq, Eq)]
pub struct Token {
    mesh: [u8; 32],
    id: TokenId,
    secret: [u8; 16],
}

/// Which token: its public part, shown as 16 lower-case hex digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TokenId([u8; 8]);

/// A text that is no token, or no token id. It does not repeat the text, which may be a secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidToken {
    /// It does not begin with `fnm1.`.
    #[error("this is no join token: {PREFIX}")]
    OtherKind,
    /// Its parts have other lengths or characters.
    #[error("the join token is incomplete or has a typing error: {PREFIX}")]
    Damaged,
    /// It is no token id.
    #[error("this is no token id: 16 lower-case hex digits are")]
    NoId,
}

impl Token {
    /// A new token of the mesh whose CA certificate has this SHA-256.
    pub(super) fn new(mesh: [u8; 32]) -> Result<Self, Error> {
        Ok(Self { mesh, id: TokenId(files::random()?), secret: files::random()? })
    }

    /// Which token of its mesh this is.
    pub fn id(&self) -> TokenId {
        self.id
    }

    /// SHA-256 of the certificate of the mesh's CA.
    pub fn mesh(&self) -> [u8; 32] {
        self.mesh
    }

    /// What both sides know: the hash of the secret, key of the proof.
    pub(super) fn key(&self) -> [u8; 32] {
        let hash = digest(&SHA256, &self.secret);
        std::array::from_fn(|index| hash.as_ref()[index])
    }
}

/// Shows that one has the key, on this connection and for this request: HMAC-SHA256 over what TLS
/// exports for the connection (RFC 8446, 7.5), followed by the certificate request.
pub(super) fn prove(key: &[u8; 32], exported: &[u8; 32], request: &[u8]) -> [u8; 32] {
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), &[exported, request].concat());
    std::array::from_fn(|index| tag.as_ref()[index])
}

/// Whether [`prove`] made this proof; takes the same time for each wrong one.
pub(super) fn is_proof(key: &[u8; 32], exported: &[u8; 32], request: &[u8], proof: &[u8]) -> bool {
    hmac::verify(&hmac::Key::new(hmac::HMAC_SHA256, key), &[exported, request].concat(), proof).is_ok()
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut secret = [0; 24];
        secret[..8].copy_from_slice(&self.id.0);
        secret[8..].copy_from_slice(&self.secret);
        write!(f, "fnm1.{}.{}", URL_SAFE_NO_PAD.encode(self.mesh), URL_SAFE_NO_PAD.encode(secret))
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Token").field("id", &self.id).finish_non_exhaustive()
    }
}

impl FromStr for Token {
    type Err = InvalidToken;

    fn from_str(text: &str) -> Result<Self, InvalidToken> {
        let rest = text.strip_prefix("fnm1.").ok_or(InvalidToken::OtherKind)?;
        let (mesh, secret) = rest.split_once('.').ok_or(InvalidToken::Damaged)?;
        let mesh = decode::<32>(mesh)?;
        let secret = decode::<24>(secret)?;
        Ok(Self {
            mesh,
            id: TokenId(std::array::from_fn(|index| secret[index])),
            secret: std::array::from_fn(|index| secret[8 + index]),
        })
    }
}

fn decode<const N: usize>(text: &str) -> Result<[u8; N], InvalidToken> {
    let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| InvalidToken::Damaged)?;
    bytes.try_into().map_err(|_| InvalidToken::Damaged)
}

impl fmt::Display for TokenId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", u64::from_be_bytes(self.0))
    }
}

impl fmt::Debug for TokenId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for TokenId {
    type Err = InvalidToken;

    fn from_str(text: &str) -> Result<Self, InvalidToken> {
        let well_formed = text.len() == 16 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        let number = well_formed.then(|| u64::from_str_radix(text, 16).ok()).flatten();
        number.map(|number| Self(number.to_be_bytes())).ok_or(InvalidToken::NoId)
    }
}

impl TryFrom<String> for TokenId {
    type Error = InvalidToken;

    fn try_from(text: String) -> Result<Self, InvalidToken> {
        text.parse()
    }
}

impl From<TokenId> for String {
    fn from(id: TokenId) -> Self {
        id.to_string()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn token() -> impl Strategy<Value = Token> {
        any::<([u8; 32], [u8; 8], [u8; 16])>().prop_map(|(mesh, id, secret)| Token { mesh, id: TokenId(id), secret })
    }

    #[test]
    fn shows_no_secret_when_debugged() {
        let token = Token::new([1; 32]).unwrap();
        assert_eq!(format!("{token:?}"), format!("Token {{ id: {}, .. }}", token.id()));
    }

    #[test]
    fn other_texts_are_refused() {
        let good = Token::new([1; 32]).unwrap().to_string();
        for bad in ["", "fnm_abc", "fnm2.a.b", " fnm1.a.b", "0123456789abcdef"] {
            assert_eq!(bad.parse::<Token>(), Err(InvalidToken::OtherKind), "{bad}");
        }
        let (start, _) = good.rsplit_once('.').unwrap();
        let damaged =
            [start.to_owned(), format!("{start}."), format!("{good}="), format!("{good}.a"), format!("{good} ")];
        for bad in damaged.iter().map(String::as_str).chain([&good[..good.len() - 1], "fnm1.."]) {
            assert_eq!(bad.parse::<Token>(), Err(InvalidToken::Damaged), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn text_and_token_are_inverse(token in token()) {
            prop_assert_eq!(token.to_string().parse(), Ok(token.clone()));
            prop_assert_eq!(token.id().to_string().parse(), Ok(token.id()));
        }

        #[test]
        fn any_text_is_refused_or_itself(text in "(fnm1\\.)?[A-Za-z0-9_.=-]{0,90}") {
            if let Ok(token) = text.parse::<Token>() {
                prop_assert_eq!(token.to_string(), text);
            }
        }

        #[test]
        fn changed_character_is_another_token_or_none(token in token(), index in 0_usize..81, to in "[A-Za-z0-9_.-]") {
            let mut text = token.to_string();
            text.replace_range(index..=index, &to);
            match text.parse::<Token>() {
                Ok(other) => prop_assert_eq!(other == token, text == token.to_string()),
                Err(_) => prop_assert_ne!(text, token.to_string()),
            }
        }

        #[test]
        fn proof_is_for_one_key_connection_and_request(key: [u8; 32], exported: [u8; 32], request: Vec<u8>, at in 0_usize..32) {
            let proof = prove(&key, &exported, &request);
            prop_assert!(is_proof(&key, &exported, &request, &proof));
            let flip = |mut bytes: [u8; 32]| { bytes[at] ^= 1; bytes };
            prop_assert!(!is_proof(&flip(key), &exported, &request, &proof));
            prop_assert!(!is_proof(&key, &flip(exported), &request, &proof));
            prop_assert!(!is_proof(&key, &exported, &request, &flip(proof)));
            prop_assert!(!is_proof(&key, &exported, &[&request[..], &[0]].concat(), &proof));
            prop_assert!(!is_proof(&key, &exported, &request, &proof[..at]));
        }
    }
}
