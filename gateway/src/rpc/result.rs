use std::future::poll_fn;

use bytes::Bytes;
use fnmesh_invoke::{Error, Failure, Format, Function, InvocationId, Payload, Reply, ReplyBody};
use serde::Serialize;
use serde_json::value::RawValue;

use super::request::Fault;

/// Most bytes of a streamed answer, which has to be one array here.
const MAX_COLLECTED_BYTES: usize = 6 * 1024 * 1024;

/// A reply as one JSON value; the items of a stream as an array.
///
/// # Errors
/// The error that ended the stream, or what JSON cannot carry.
pub(super) async fn collect(reply: Reply, function: &Function) -> Result<Bytes, Error> {
    let mut items = match reply.body {
        ReplyBody::Full(payload) => return json(payload, function),
        ReplyBody::Stream(items) => items,
    };
    let mut array = vec![b'['];
    while let Some(item) = poll_fn(|cx| items.as_mut().poll_next(cx)).await {
        if array.len() > 1 {
            array.push(b',');
        }
        array.extend_from_slice(&json(item?, function)?);
        if array.len() > MAX_COLLECTED_BYTES {
            return Err(Error::TooLarge {
                what: "the collected stream".into(),
                limit_bytes: MAX_COLLECTED_BYTES as u64,
            });
        }
    }
    array.push(b']');
    Ok(array.into())
}

fn json(payload: Payload, function: &Function) -> Result<Bytes, Error> {
    match payload.format {
        Format::Json if payload.body.is_empty() => Ok(Bytes::from_static(b"null")),
        Format::Json => Ok(payload.body),
        Format::Text => {
            let text = String::from_utf8_lossy(&payload.body);
            serde_json::to_vec(&text).map(Into::into).map_err(|error| Error::internal(error.to_string()))
        }
        Format::Bytes => {
            let id = &function.id;
            let message = format!("{id} answered with bytes, which JSON-RPC cannot carry; call it at /{id}");
            Err(Error::FunctionFailed(Box::new(Failure { kind: "ResultError".into(), message, stack: String::new() })))
        }
    }
}

/// `{"jsonrpc":"2.0","result":...,"id":...}`
pub(super) fn value(id: &RawValue, json: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(json.len() + id.get().len() + 40);
    out.extend_from_slice(b"{\"jsonrpc\":\"2.0\",\"result\":");
    out.extend_from_slice(json);
    out.extend_from_slice(b",\"id\":");
    out.extend_from_slice(id.get().as_bytes());
    out.push(b'}');
    out
}

#[derive(Serialize)]
struct Envelope<'a, D> {
    jsonrpc: &'static str,
    error: Object<'a, D>,
    id: Option<&'a RawValue>,
}

#[derive(Serialize)]
struct Object<'a, D> {
    code: i32,
    message: &'a str,
    data: D,
}

#[derive(Serialize)]
struct Data<'a> {
    #[serde(rename = "type")]
    kind: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    nearest: &'a [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    stack: Option<&'a str>,
    invocation_id: String,
}

/// The answer to a call that failed.
pub(super) fn error(answer_to: &RawValue, error: &Error, id: InvocationId) -> Vec<u8> {
    let own = error.message();
    let (code, message, reason, nearest) = match error {
        Error::UnknownFunction { nearest, .. } => (-32601, "Method not found", Some(own.as_str()), nearest.as_slice()),
        _ => (error.rpc_code(), own.as_str(), None, [].as_slice()),
    };
    let data = Data { kind: error.kind(), reason, nearest, stack: error.stack(), invocation_id: id.to_string() };
    write(Some(answer_to), Object { code, message, data })
}

/// The answer to what is no call.
pub(super) fn fault(id: Option<&RawValue>, fault: &Fault) -> Vec<u8> {
    #[derive(Serialize)]
    struct Data<'a> {
        reason: &'a str,
    }
    write(id, Object { code: fault.code, message: fault.message, data: Data { reason: &fault.reason } })
}

fn write<D: Serialize>(id: Option<&RawValue>, error: Object<'_, D>) -> Vec<u8> {
    // Strings and numbers into memory: it cannot fail.
    serde_json::to_vec(&Envelope { jsonrpc: "2.0", error, id }).unwrap_or_default()
}
