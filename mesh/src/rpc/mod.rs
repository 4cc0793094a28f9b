//! The methods that nodes call on each other, on both sides; the only place that knows their names and error codes.
//! `docs/protocol.md` describes them.

mod describe;
mod fault;
mod invoke;
mod members;

use std::cell::RefCell;

use bytes::Bytes;
use fnmesh_invoke::{Error, Invoke};
use serde::{Deserialize, Serialize};
use serde_json::value::{RawValue, to_raw_value};

pub(crate) use describe::describe;
pub(crate) use invoke::invoke;
pub(crate) use members::{record, snapshot};

use crate::{
    membership::Membership,
    transport::{Answer, CallError, Caller, Failure, INVALID_PARAMS, LocalFuture, METHOD_NOT_FOUND, Request, Response},
};

/// Runs a function of the peer.
const INVOKE: &str = "invoke";
/// Describes a function of the peer.
const DESCRIBE: &str = "describe";
/// A notification: a message of membership, which is its body.
pub(crate) const GOSSIP: &str = "gossip";
/// What the peer knows that a member says of itself.
const RECORD: &str = "record";
/// All the peer knows of the mesh.
const SNAPSHOT: &str = "snapshot";
/// Answers with nothing.
const PING: &str = "ping";

const METHODS: [&str; 5] = [INVOKE, DESCRIBE, RECORD, SNAPSHOT, PING];

/// Answers a request of a peer, with the functions of `local` and what `membership` knows.
pub(crate) fn answer<L: Invoke + Clone>(
    local: &L,
    membership: &RefCell<Membership>,
    request: &Request<'_>,
) -> LocalFuture<Answer> {
    match request.method {
        INVOKE => invoke::answer(local, request),
        DESCRIBE => describe::answer(local, request),
        RECORD => members::answer_record(&membership.borrow(), request),
        SNAPSHOT => members::answer_snapshot(&membership.borrow(), request),
        PING => Box::pin(async { value(&()) }),
        method => {
            let message = format!("no method {method:?}; known are {}", METHODS.join(", "));
            fail(Failure::new(METHOD_NOT_FOUND, message))
        }
    }
}

/// The answer of a node that ends.
pub(crate) fn draining() -> LocalFuture<Answer> {
    fail(fault::failure(&Error::Draining))
}

/// Asks a peer for nothing: it has read what was sent before on the same stream when it answers.
pub(crate) async fn ping(caller: &Caller) -> Result<(), PeerError> {
    read(&caller.call(PING, &(), Bytes::new()).await?)
}

/// Why a peer's functions gave no answer.
#[derive(Clone, Debug)]
pub(crate) enum PeerError {
    /// The request never left this node.
    NotSent(String),
    /// The peer may have acted on the request.
    Lost(String),
    /// The peer answered so.
    Failed(Error),
}

impl From<CallError> for PeerError {
    fn from(error: CallError) -> Self {
        match error {
            CallError::NotSent(reason) => Self::NotSent(reason.to_string()),
            CallError::Lost(reason) => Self::Lost(reason.to_string()),
            CallError::Failed(failure) => Self::Failed(fault::error(failure)),
        }
    }
}

fn fail(failure: Failure) -> LocalFuture<Answer> {
    Box::pin(async { Answer::Failed(failure) })
}

fn params<'a, T: Deserialize<'a>>(request: &Request<'a>) -> Result<T, Failure> {
    let text = request.params.map_or("null", RawValue::get);
    serde_json::from_str(text)
        .map_err(|error| Failure::new(INVALID_PARAMS, format!("invalid parameters of {:?}: {error}", request.method)))
}

fn json(value: &impl Serialize) -> Box<RawValue> {
    to_raw_value(value).expect("values of the protocol are JSON")
}

fn value(result: &impl Serialize) -> Answer {
    Answer::Value { result: json(result), body: Bytes::new() }
}

/// What the answer to a request that is never streamed says.
fn read<T: for<'a> Deserialize<'a>>(response: &Response) -> Result<T, PeerError> {
    let Response::Value { result, .. } = response else { return Err(invalid("it is streamed")) };
    serde_json::from_str(result.get()).map_err(|error| invalid(&error.to_string()))
}

fn invalid(reason: &str) -> PeerError {
    PeerError::Failed(Error::internal(format!("the peer gave an answer that cannot be read: {reason}")))
}
