//! What travels: one request and one answer of JSON-RPC 2.0, each with its length before it.

use std::{borrow::Cow, net::SocketAddr};

use base64::{Engine, engine::general_purpose::STANDARD};
use jsonrpsee_types::{ErrorObject, Id, Request, Response, ResponsePayload};
use quinn::{RecvStream, SendStream};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;

use crate::{
    NodeId,
    identity::{TokenId, error::printable, token},
};

/// What a request or an answer has at most.
pub(super) const MAX_BYTES: usize = 16 * 1024;

/// How many members an answer names at most: enough to find the others.
pub(super) const MAX_PEERS: usize = 64;

/// What both sides put into the proof: RFC 8446, 7.5, with an empty context.
pub(super) const EXPORTER_LABEL: &[u8] = b"EXPORTER-fnmesh-join";

const METHOD: &str = "join";

/// Where a node can be reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PeerAddress {
    /// Which node.
    pub node: NodeId,
    /// Its address for other nodes.
    pub address: SocketAddr,
}

/// Why a node was not admitted. The text is for the log; the joiner is told less where that would
/// help who guesses.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JoinRefused {
    /// This node does not have the CA's key.
    #[error("this node cannot admit: it does not have the authority's key")]
    CannotAdmit,
    /// There is no such token, or it ended long ago.
    #[error("token {0} is not known")]
    UnknownToken(TokenId),
    /// The joiner does not have the token that it names.
    #[error("the proof for token {0} is wrong")]
    BadProof(TokenId),
    /// The token's time is over.
    #[error("token {0} has expired")]
    Expired(TokenId),
    /// As many nodes have joined with the token as may.
    #[error("token {0} is used up")]
    UsedUp(TokenId),
    /// Somebody revoked the token.
    #[error("token {0} was revoked")]
    Revoked(TokenId),
    /// The address or the token failed too often in the last minute.
    #[error("10 proofs were wrong within a minute")]
    TooManyFailures,
    /// The certificate request is not acceptable.
    #[error("{0}")]
    BadRequest(String),
    /// It is no join request.
    #[error("not a join request: {0}")]
    Malformed(String),
    /// The joiner took too long, or is gone.
    #[error("the joiner did not complete its request: {0}")]
    Incomplete(String),
    /// This node could not do its part.
    #[error("cannot admit: {0}")]
    Failed(String),
}

impl JoinRefused {
    /// What the joiner is told: a JSON-RPC error.
    pub(super) fn told(&self) -> ErrorObject<'static> {
        let text: Cow<'static, str> = match self {
            Self::CannotAdmit => "this node cannot admit; use the address of one that can".into(),
            Self::UnknownToken(_) | Self::BadProof(_) => {
                "the token is not valid here; use the address of the node that made it, or make a new one".into()
            }
            Self::Expired(_) => "the token has expired; make a new one".into(),
            Self::UsedUp(_) => "the token is used up; make a new one".into(),
            Self::Revoked(_) => "the token was revoked; make a new one".into(),
            Self::TooManyFailures => "too many wrong tokens; try again later, in a minute".into(),
            Self::Failed(_) => "this node failed to admit; its log says why".into(),
            Self::BadRequest(_) | Self::Malformed(_) | Self::Incomplete(_) => self.to_string().into(),
        };
        ErrorObject::owned(self.code(), text, None::<()>)
    }

    fn code(&self) -> i32 {
        match self {
            Self::UnknownToken(_) | Self::BadProof(_) => 2001,
            Self::Expired(_) => 2002,
            Self::UsedUp(_) => 2003,
            Self::Revoked(_) => 2004,
            Self::CannotAdmit => 2005,
            Self::BadRequest(_) => 2006,
            Self::TooManyFailures => 2007,
            Self::Malformed(_) | Self::Incomplete(_) => -32600,
            Self::Failed(_) => -32603,
        }
    }
}

/// Bytes, in JSON as base64.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Bytes(pub(super) Vec<u8>);

impl Serialize for Bytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(&self.0))
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<'de, str>::deserialize(deserializer)?;
        STANDARD.decode(text.as_bytes()).map(Self).map_err(serde::de::Error::custom)
    }
}

/// The parameters of `join`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Ask {
    pub(super) token: TokenId,
    /// The certificate request.
    pub(super) csr: Bytes,
    pub(super) proof: Bytes,
}

impl Ask {
    /// A request with its proof.
    pub(super) fn new(token: &token::Token, exported: &[u8; 32], csr: Vec<u8>) -> Self {
        let proof = token::prove(&token.key(), exported, &csr);
        Self { token: token.id(), csr: Bytes(csr), proof: Bytes(proof.to_vec()) }
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let params = serde_json::value::to_raw_value(self).expect("texts are JSON");
        serde_json::to_vec(&Request::borrowed(METHOD, Some(&params), Id::Number(1))).expect("texts are JSON")
    }

    /// Reads a request; the id for the answer, and the request or what is wrong with it.
    pub(super) fn decode(bytes: &[u8]) -> (Id<'static>, Result<Self, JoinRefused>) {
        let malformed = |text: String| Err(JoinRefused::Malformed(printable(&text)));
        let request: Request<'_> = match serde_json::from_slice(bytes) {
            Ok(request) => request,
            Err(error) => return (Id::Null, malformed(error.to_string())),
        };
        let id = request.id.into_owned();
        if request.method != METHOD {
            return (id, malformed("there is no method but join".to_owned()));
        }
        let params = request.params.as_deref().map_or("null", RawValue::get);
        (id, serde_json::from_str(params).or_else(|error| malformed(error.to_string())))
    }
}

/// The result of `join`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Grant {
    /// The joiner's certificate.
    pub(super) certificate: Bytes,
    /// The CA's certificate.
    pub(super) ca: Bytes,
    /// The CA's key, PKCS #8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) ca_key: Option<Bytes>,
    /// Members, at most [`MAX_PEERS`].
    pub(super) peers: Vec<PeerAddress>,
}

/// The text of the answer.
pub(super) fn encode_answer(id: Id<'_>, result: Result<Grant, ErrorObject<'static>>) -> Vec<u8> {
    let payload = match result {
        Ok(grant) => ResponsePayload::success(grant),
        Err(error) => ResponsePayload::error(error),
    };
    serde_json::to_vec(&Response::new(payload, id)).expect("texts and numbers are JSON")
}

/// What the member says: a grant, or why not.
pub(super) fn decode_answer(bytes: &[u8]) -> Result<Result<Grant, String>, serde_json::Error> {
    let response: Response<'_, Grant> = serde_json::from_slice(bytes)?;
    Ok(match response.payload {
        ResponsePayload::Success(grant) => Ok(grant.into_owned()),
        ResponsePayload::Error(error) => Err(printable(error.message())),
    })
}

/// Why a frame could not be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum FrameError {
    #[error("{0} bytes, the limit is {MAX_BYTES}")]
    TooLong(u32),
    #[error(transparent)]
    Lost(#[from] quinn::ReadExactError),
}

/// Reads what follows its own length (u32, little endian).
pub(super) async fn read(stream: &mut RecvStream) -> Result<Vec<u8>, FrameError> {
    let mut length = [0; 4];
    stream.read_exact(&mut length).await?;
    let length = u32::from_le_bytes(length);
    if length as usize > MAX_BYTES {
        return Err(FrameError::TooLong(length));
    }
    let mut bytes = vec![0; length as usize];
    stream.read_exact(&mut bytes).await?;
    Ok(bytes)
}

/// Writes something after its length, as the last thing on this stream.
pub(super) async fn write_last(stream: &mut SendStream, bytes: &[u8]) -> Result<(), quinn::WriteError> {
    let length = u32::try_from(bytes.len()).expect("requests and answers are short");
    stream.write_all(&[&length.to_le_bytes(), bytes].concat()).await?;
    // Fails only if it was finished before.
    let _ = stream.finish();
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::identity::Token;

    #[test]
    fn request_survives_the_wire() {
        let ask = Ask::new(&Token::new([1; 32]).unwrap(), &[2; 32], b"request".to_vec());
        let (id, decoded) = Ask::decode(&ask.encode());
        assert_eq!((id, decoded), (Id::Number(1), Ok(ask)));
    }

    #[test]
    fn largest_answer_fits() {
        let address = "[2001:db8:1111:2222:3333:4444:5555:6666%4294967295]:65535".parse().unwrap();
        let peer = PeerAddress { node: NodeId::from_bytes([255; 16]), address };
        let bytes = Bytes(vec![0; 1000]);
        let grant =
            Grant { certificate: bytes.clone(), ca: bytes.clone(), ca_key: Some(bytes), peers: vec![peer; MAX_PEERS] };
        let text = encode_answer(Id::Number(1), Ok(grant.clone()));
        assert!(text.len() <= MAX_BYTES, "{}", text.len());
        assert_eq!(decode_answer(&text).unwrap(), Ok(grant));
    }

    #[test]
    fn refusal_survives_the_wire() {
        let refused = JoinRefused::CannotAdmit;
        let text = encode_answer(Id::Null, Err(refused.told()));
        assert_eq!(decode_answer(&text).unwrap(), Err(refused.told().message().to_owned()));
    }

    #[test]
    fn joiner_does_not_learn_which_ids_exist() {
        let id = Token::new([1; 32]).unwrap().id();
        assert_eq!(JoinRefused::UnknownToken(id).told(), JoinRefused::BadProof(id).told());
    }

    #[test]
    fn other_methods_and_parameters_are_named() {
        let text = |json: &str| Ask::decode(json.as_bytes()).1.unwrap_err().to_string();
        assert!(text(r#"{"jsonrpc":"2.0","id":1,"method":"invoke"}"#).contains("no method but join"));
        assert!(text(r#"{"jsonrpc":"2.0","id":1,"method":"join"}"#).contains("null"));
        assert!(text(r#"{"jsonrpc":"2.0","id":1,"method":"join","params":{}}"#).contains("token"));
        assert!(text(r#"{"jsonrpc":"1.0","id":1,"method":"join"}"#).contains("not a join request"));
        assert!(text("[]").contains("not a join request"));
    }

    proptest! {
        #[test]
        fn garbage_is_refused(bytes: Vec<u8>) {
            prop_assert!(matches!(Ask::decode(&bytes), (Id::Null, Err(JoinRefused::Malformed(_)))));
            prop_assert!(decode_answer(&bytes).is_err());
        }

        #[test]
        fn damaged_request_is_refused_or_another(at in 0_usize..1000, to: u8) {
            let ask = Ask::new(&Token::new([1; 32]).unwrap(), &[2; 32], vec![7; 100]);
            let mut bytes = ask.encode();
            let at = at % bytes.len();
            let changed = bytes[at] != to;
            bytes[at] = to;
            if let (Id::Number(1), Ok(decoded)) = Ask::decode(&bytes) {
                prop_assert!(!changed || decoded != ask || to.is_ascii_whitespace());
            }
        }
    }
}
