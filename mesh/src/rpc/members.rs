//! `record` and `snapshot`: what membership fetches.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{PeerError, RECORD, SNAPSHOT, fail, params, read, value};
use crate::{
    NodeId,
    membership::{Membership, Record, Snapshot},
    transport::{Answer, Caller, Failure, INVALID_PARAMS, LocalFuture, Request},
};

#[derive(Serialize, Deserialize)]
struct RecordParams {
    node: NodeId,
}

#[derive(Serialize, Deserialize)]
struct SnapshotParams {
    #[serde(default)]
    records: bool,
}

/// Asks a peer for the newest record of `node` it has.
pub(crate) async fn record(caller: &Caller, node: NodeId) -> Result<Record, PeerError> {
    read(&caller.call(RECORD, &RecordParams { node }, Bytes::new()).await?)
}

/// Asks a peer for all it knows of the mesh.
pub(crate) async fn snapshot(caller: &Caller, records: bool) -> Result<Snapshot, PeerError> {
    read(&caller.call(SNAPSHOT, &SnapshotParams { records }, Bytes::new()).await?)
}

pub(super) fn answer_record(membership: &Membership, request: &Request<'_>) -> LocalFuture<Answer> {
    let node = match params::<RecordParams>(request) {
        Ok(RecordParams { node }) => node,
        Err(failure) => return fail(failure),
    };
    let answer = match membership.record(node) {
        Some(record) => value(&**record),
        None => Answer::Failed(Failure::new(INVALID_PARAMS, format_args!("no record of node {node} is known here"))),
    };
    Box::pin(async { answer })
}

pub(super) fn answer_snapshot(membership: &Membership, request: &Request<'_>) -> LocalFuture<Answer> {
    match params::<SnapshotParams>(request) {
        Ok(SnapshotParams { records }) => {
            let answer = value(&membership.snapshot(records));
            Box::pin(async { answer })
        }
        Err(failure) => fail(failure),
    }
}
