//! `describe`: what is known of a function where it runs.

use bytes::Bytes;
use fnmesh_invoke::{Function, FunctionId, Invoke};
use serde::{Deserialize, Serialize};

use super::{DESCRIBE, PeerError, fail, fault, params, read, value};
use crate::transport::{Answer, Caller, LocalFuture, Request};

#[derive(Serialize, Deserialize)]
struct Params {
    function: FunctionId,
}

/// Asks a peer what a function of its looks like.
pub(crate) async fn describe(caller: &Caller, function: FunctionId) -> Result<Function, PeerError> {
    read(&caller.call(DESCRIBE, &Params { function }, Bytes::new()).await?)
}

pub(super) fn answer<L: Invoke + Clone>(local: &L, request: &Request<'_>) -> LocalFuture<Answer> {
    let function = match params::<Params>(request) {
        Ok(Params { function }) => function,
        Err(failure) => return fail(failure),
    };
    let local = local.clone();
    Box::pin(async move {
        match local.resolve(&function.app, &function.name).await {
            Ok(function) => value(&*function),
            Err(error) => Answer::Failed(fault::failure(&error)),
        }
    })
}
