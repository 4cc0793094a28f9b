//! A node's certificate, signed anew before it ends.

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use tokio::{task::spawn_blocking, time::timeout};

use crate::{
    identity::Identity,
    links::Callers,
    rpc::{self, PeerError},
};

/// How long a peer may take to sign.
const SIGN_TIMEOUT: Duration = Duration::from_secs(3);

/// Has this node's certificate signed anew: here, or by the first peer that can.
pub(crate) async fn renew(identity: &Identity, callers: &Callers) -> Result<(), String> {
    let request = identity.request().map_err(|error| error.to_string())?;
    let certificate = match identity.authority() {
        Some(authority) => {
            let signed = authority.sign(&request, identity.id(), SystemTime::now());
            Bytes::copy_from_slice(&signed.map_err(|error| error.to_string())?)
        }
        None => ask_for_certificate(request.into(), callers).await?,
    };
    let identity = identity.clone();
    let taken = spawn_blocking(move || identity.renewed(&certificate, SystemTime::now())).await;
    taken.map_err(|error| error.to_string())?.map_err(|error| error.to_string())
}

async fn ask_for_certificate(request: Bytes, callers: &Callers) -> Result<Bytes, String> {
    let mut last = "there is no link to any node".to_owned();
    for peer in callers.nodes() {
        let Some(caller) = callers.get(peer) else { continue };
        match timeout(SIGN_TIMEOUT, rpc::renew(&caller, request.clone())).await {
            Ok(Ok(certificate)) => return Ok(certificate),
            Ok(Err(PeerError::Failed(error))) => last = format!("{peer}: {error}"),
            Ok(Err(PeerError::NotSent(reason) | PeerError::Lost(reason))) => last = format!("{peer}: {reason}"),
            Err(_) => last = format!("{peer} does not answer"),
        }
    }
    Err(format!("no node that has the authority's key signs it; the last one asked said: {last}"))
}
