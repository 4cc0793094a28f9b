//! JSON-RPC 2.0 objects, <https://www.jsonrpc.org/specification>, read in one pass.
//!
//! Ids are whole numbers; each side numbers the requests it sends.

use std::fmt;

use bytes::{BufMut, BytesMut};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;

/// The code of a message that is no JSON-RPC object of a kind expected here.
pub const INVALID_REQUEST: i32 = -32600;
/// The code of a method nobody knows.
pub const METHOD_NOT_FOUND: i32 = -32601;
/// The code of parameters a method cannot use.
pub const INVALID_PARAMS: i32 = -32602;
/// The code of a fault of the node that answers.
pub const INTERNAL_ERROR: i32 = -32603;

/// Any JSON-RPC object, not looked into.
#[derive(Debug, Deserialize)]
struct Members<'a> {
    #[serde(borrow)]
    jsonrpc: Option<&'a str>,
    id: Option<u64>,
    #[serde(borrow)]
    method: Option<&'a str>,
    #[serde(borrow)]
    params: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    result: Option<&'a RawValue>,
    error: Option<Failure>,
}

/// Reads `null` as a value: a result may be null.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<&'de RawValue>, D::Error> {
    <&RawValue>::deserialize(deserializer).map(Some)
}

/// What a JSON-RPC object is.
#[derive(Debug)]
pub(crate) enum Message<'a> {
    /// Wants an answer.
    Request { id: u64, method: &'a str, params: Option<&'a RawValue> },
    /// Wants none.
    Notification { method: &'a str, params: Option<&'a RawValue> },
    /// Answers a request.
    Response { id: u64, outcome: Result<&'a RawValue, Failure> },
}

/// A JSON-RPC error object.
#[derive(Clone, Debug, Serialize, Deserialize, thiserror::Error)]
#[error("{message} (code {code})")]
pub struct Failure {
    /// What kind of error, see `docs/protocol.md`.
    pub code: i32,
    /// For people.
    pub message: String,
    /// For programs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<Box<RawValue>>,
}

impl Failure {
    /// An error without data.
    pub fn new(code: i32, message: impl fmt::Display) -> Self {
        Self { code, message: message.to_string(), data: None }
    }
}

impl<'a> Message<'a> {
    /// Reads one object.
    ///
    /// # Errors
    /// [`INVALID_REQUEST`] with what is wrong with it.
    pub(crate) fn parse(envelope: &'a [u8]) -> Result<Self, Failure> {
        let invalid =
            |reason: &dyn fmt::Display| Failure::new(INVALID_REQUEST, format_args!("invalid message: {reason}"));
        let members: Members<'a> = serde_json::from_slice(envelope).map_err(|error| invalid(&error))?;
        if members.jsonrpc != Some("2.0") {
            return Err(invalid(&"\"jsonrpc\" must be \"2.0\""));
        }
        match (members.method, members.id, members.result, members.error) {
            (Some(method), Some(id), None, None) => Ok(Self::Request { id, method, params: members.params }),
            (Some(method), None, None, None) => Ok(Self::Notification { method, params: members.params }),
            (None, Some(id), Some(result), None) => Ok(Self::Response { id, outcome: Ok(result) }),
            (None, Some(id), None, Some(failure)) => Ok(Self::Response { id, outcome: Err(failure) }),
            _ => Err(invalid(&"it is neither a request nor a notification nor a response")),
        }
    }
}

pub(crate) fn request(out: &mut BytesMut, id: u64, method: &str, params: &impl Serialize) {
    out.put_slice(b"{\"jsonrpc\":\"2.0\",\"id\":");
    json(out, &id);
    out.put_slice(b",\"method\":\"");
    out.put_slice(method.as_bytes());
    out.put_slice(b"\",\"params\":");
    json(out, params);
    out.put_slice(b"}");
}

pub(crate) fn notification(out: &mut BytesMut, method: &str, params: &impl Serialize) {
    out.put_slice(b"{\"jsonrpc\":\"2.0\",\"method\":\"");
    out.put_slice(method.as_bytes());
    out.put_slice(b"\",\"params\":");
    json(out, params);
    out.put_slice(b"}");
}

pub(crate) fn response(out: &mut BytesMut, id: u64, outcome: Result<&RawValue, &Failure>) {
    out.put_slice(b"{\"jsonrpc\":\"2.0\",\"id\":");
    json(out, &id);
    match outcome {
        Ok(result) => {
            out.put_slice(b",\"result\":");
            out.put_slice(result.get().as_bytes());
        }
        Err(failure) => {
            out.put_slice(b",\"error\":");
            json(out, failure);
        }
    }
    out.put_slice(b"}");
}

fn json(out: &mut BytesMut, value: &impl Serialize) {
    serde_json::to_writer(out.writer(), value).expect("values of the protocol are JSON, and memory takes them");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(write: impl FnOnce(&mut BytesMut)) -> BytesMut {
        let mut out = BytesMut::new();
        write(&mut out);
        out
    }

    #[test]
    fn request_is_read_as_written() {
        let text = written(|out| request(out, 7, "ping", &[1, 2]));
        let Ok(Message::Request { id: 7, method: "ping", params: Some(params) }) = Message::parse(&text) else {
            panic!("{text:?}")
        };
        assert_eq!(params.get(), "[1,2]");
    }

    #[test]
    fn failure_keeps_code_and_data() {
        let data = serde_json::value::to_raw_value(&[1]).unwrap();
        let failure = Failure { code: 1004, message: "no \"room\"".to_owned(), data: Some(data) };
        let text = written(|out| response(out, 9, Err(&failure)));
        let Ok(Message::Response { id: 9, outcome: Err(read) }) = Message::parse(&text) else { panic!("{text:?}") };
        assert_eq!((read.code, read.message.as_str()), (1004, "no \"room\""));
        assert_eq!(read.data.unwrap().get(), "[1]");
    }

    #[test]
    fn other_objects_are_refused() {
        for text in [
            "",
            "[]",
            "{}",
            r#"{"jsonrpc":"1.0","id":1,"method":"ping"}"#,
            r#"{"jsonrpc":"2.0","id":"1","method":"ping"}"#,
            r#"{"jsonrpc":"2.0","id":-1,"method":"ping"}"#,
            r#"{"jsonrpc":"2.0","id":1}"#,
            r#"{"jsonrpc":"2.0","result":1}"#,
            r#"{"jsonrpc":"2.0","id":1,"result":1,"error":{"code":1,"message":""}}"#,
            r#"{"jsonrpc":"2.0","id":1,"method":"ping","result":1}"#,
        ] {
            assert_eq!(Message::parse(text.as_bytes()).unwrap_err().code, INVALID_REQUEST, "{text}");
        }
    }

    #[test]
    fn null_result_is_a_result() {
        let text = br#"{"jsonrpc":"2.0","id":1,"result":null}"#;
        assert!(matches!(Message::parse(text), Ok(Message::Response { outcome: Ok(_), .. })));
    }
}
