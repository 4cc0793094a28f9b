//! `renew` and `deny`: certificates that go on, and nodes that are no longer of the mesh.

use std::time::SystemTime;

use bytes::Bytes;
use tokio::{sync::mpsc, task};

use super::{DENY, PeerError, RENEW, fail, fault, invalid, params, read, value};
use crate::{
    NodeId,
    driver::Input,
    identity::{Denied, DenyList, Identity},
    transport::{Answer, Caller, Failure, INTERNAL_ERROR, INVALID_PARAMS, LocalFuture, Request, Response},
};

/// Asks a peer to sign this node's certificate anew; `request` and answer are DER, beside the messages.
pub(crate) async fn renew(caller: &Caller, request: Bytes) -> Result<Bytes, PeerError> {
    match caller.call(RENEW, &(), request).await? {
        Response::Value { body, .. } => Ok(body),
        Response::Stream(_) => Err(invalid("it is streamed")),
    }
}

/// Tells a peer which nodes are no longer of the mesh.
pub(crate) async fn deny(caller: &Caller, denied: &Denied) -> Result<(), PeerError> {
    read(&caller.call(DENY, denied, Bytes::new()).await?)
}

pub(super) fn answer_renew(identity: &Identity, peer: NodeId, request: &Request<'_>) -> LocalFuture<Answer> {
    let Some(authority) = identity.authority() else {
        let reason = "this node does not have the authority's key";
        return fail(fault::failure(&fnmesh_invoke::Error::invalid(reason)));
    };
    let answer = match authority.sign(&request.body, peer, SystemTime::now()) {
        Ok(certificate) => {
            tracing::info!(target: "fnmesh::mesh", %peer, "certificate renewed");
            Answer::Value { result: super::json(&()), body: Bytes::copy_from_slice(&certificate) }
        }
        Err(error) => Answer::Failed(Failure::new(INVALID_PARAMS, error)),
    };
    Box::pin(async { answer })
}

pub(super) fn answer_deny(
    denied: &DenyList,
    inputs: &mpsc::UnboundedSender<Input>,
    request: &Request<'_>,
) -> LocalFuture<Answer> {
    let news = match params::<Denied>(request) {
        Ok(news) => news,
        Err(failure) => return fail(failure),
    };
    let (denied, inputs) = (denied.clone(), inputs.clone());
    Box::pin(async move {
        let merged = task::spawn_blocking(move || denied.merge(&news, SystemTime::now())).await;
        let (new, written) = match merged {
            Ok(merged) => merged,
            Err(panic) => return Answer::Failed(Failure::new(INTERNAL_ERROR, panic)),
        };
        if !new.is_empty() {
            let _ = inputs.send(Input::Denied(new));
        }
        match written {
            Ok(()) => value(&()),
            Err(error) => {
                tracing::error!(target: "fnmesh::mesh", %error, "removed nodes are forgotten at the next start");
                Answer::Failed(Failure::new(INTERNAL_ERROR, error))
            }
        }
    })
}
