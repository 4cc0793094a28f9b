//! The methods that nodes call on each other, on both sides; the only place that knows their names and error codes.
//! `docs/protocol.md` describes them.

mod deploy;
mod describe;
mod fault;
mod go_away;
mod invoke;
mod members;
#[cfg(test)]
mod tests;
mod trust;

use std::{
    cell::RefCell,
    rc::{Rc, Weak},
    sync::Arc,
};

use bytes::Bytes;
use fnmesh_invoke::{Error, Invoke};
use serde::{Deserialize, Serialize};
use serde_json::value::{RawValue, to_raw_value};
use tokio::sync::{Semaphore, mpsc};

pub(crate) use deploy::{WAITING_ASKS, announce, drain, fetch_bundle, host};
pub(crate) use describe::describe;
pub(crate) use go_away::{BothWays, go_away};
pub(crate) use invoke::{Answered, invoke, read as read_invoke};
pub(crate) use members::{record, snapshot};
pub(crate) use trust::{deny, renew};

use crate::{
    Ask, NodeId,
    bundles::Bundles,
    deployments::Deployments,
    driver::Input,
    identity::{DenyList, Identity},
    membership::{Event, Membership},
    transport::{
        Answer, CallError, Caller, Failure, Handler, INVALID_PARAMS, LocalFuture, METHOD_NOT_FOUND, Request, Response,
    },
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
/// Signs the peer's certificate anew.
const RENEW: &str = "renew";
/// Takes over which nodes are no longer of the mesh.
const DENY: &str = "deny";
/// Takes over what is deployed.
const ANNOUNCE: &str = "announce";
/// Streams a bundle.
const FETCH_BUNDLE: &str = "fetch_bundle";
/// Asks the peer to host an app.
const HOST: &str = "host";
/// Asks the peer to take no more calls, or to take them again.
const DRAIN: &str = "drain";
/// Has the peer end its calls over this connection.
const GO_AWAY: &str = "go_away";
/// Answers with nothing.
const PING: &str = "ping";

const METHODS: [&str; 12] =
    [INVOKE, DESCRIBE, RECORD, SNAPSHOT, RENEW, DENY, ANNOUNCE, FETCH_BUNDLE, HOST, DRAIN, GO_AWAY, PING];
/// Those of connections that are for calls only.
const CALL_METHODS: [&str; 3] = [INVOKE, DESCRIBE, PING];

/// What this node can do for its peers.
pub(crate) struct Service<L> {
    /// Its functions.
    pub(crate) local: L,
    /// What it knows of the mesh.
    pub(crate) membership: Weak<RefCell<Membership>>,
    pub(crate) identity: Identity,
    pub(crate) denied: DenyList,
    pub(crate) deployments: Deployments,
    pub(crate) bundles: Bundles,
    /// Where it passes on what peers ask of the node.
    pub(crate) asks: mpsc::Sender<Ask>,
    /// Where it tells what it has heard.
    pub(crate) inputs: mpsc::UnboundedSender<Input>,
    /// As many messages of membership may wait there.
    pub(crate) gossip: Arc<Semaphore>,
}

/// One peer's view of a [`Service`].
pub(crate) struct PeerHandler<L> {
    pub(crate) peer: NodeId,
    pub(crate) service: Rc<Service<L>>,
}

impl<L: Invoke + Clone> Handler for PeerHandler<L> {
    fn handle(&self, request: Request<'_>) -> LocalFuture<Answer> {
        let Service { local, membership, identity, denied, inputs, .. } = &*self.service;
        // The node ends.
        let Some(membership) = membership.upgrade() else { return fail(fault::failure(&Error::Draining)) };
        match request.method {
            INVOKE => invoke::answer(local, &request),
            DESCRIBE => describe::answer(local, &request),
            RECORD => members::answer_record(&membership.borrow(), &request),
            SNAPSHOT => members::answer_snapshot(&membership.borrow(), &request),
            RENEW => trust::answer_renew(identity, self.peer, &request),
            DENY => trust::answer_deny(denied, inputs, &request),
            ANNOUNCE => deploy::answer_announce(&self.service.deployments, inputs, &request),
            FETCH_BUNDLE => deploy::answer_fetch(&self.service.bundles, &request),
            HOST => deploy::answer_host(&self.service.asks, self.peer, &request),
            DRAIN => deploy::answer_drain(&self.service.asks, self.peer, &request),
            PING => Box::pin(async { value(&()) }),
            method => {
                let message = format!("no method {method:?}; known are {}", METHODS.join(", "));
                fail(Failure::new(METHOD_NOT_FOUND, message))
            }
        }
    }

    fn notified(&self, notification: Request<'_>) {
        if notification.method == GOSSIP {
            // What is lost is said again.
            let Ok(place) = Arc::clone(&self.service.gossip).try_acquire_owned() else { return };
            let event = Event::Received { from: self.peer, bytes: notification.body };
            // The driver has gone when the node ends.
            let _ = self.service.inputs.send(Input::Heard(event, place));
        }
    }
}

/// Serves a connection that the peer makes for calls: calls, and nothing that changes or tells about the mesh.
pub(crate) struct OnlyCalls<H>(pub(crate) H);

impl<H: Handler> Handler for OnlyCalls<H> {
    fn handle(&self, request: Request<'_>) -> LocalFuture<Answer> {
        if CALL_METHODS.contains(&request.method) {
            return self.0.handle(request);
        }
        let (method, known) = (request.method, CALL_METHODS.join(", "));
        fail(Failure::new(METHOD_NOT_FOUND, format!("no method {method:?} on this connection; known are {known}")))
    }

    fn notified(&self, _: Request<'_>) {}
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
