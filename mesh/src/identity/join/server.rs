use std::time::{Duration, SystemTime};

use jsonrpsee_types::Id;
use quinn::{SendStream, VarInt};
use tokio::time::{Instant, timeout_at};

use super::{
    JoinRefused, PeerAddress,
    wire::{self, Ask, Bytes, FrameError, Grant, MAX_PEERS},
};
use crate::{
    NodeId,
    identity::{Identity, SignError, Tokens, authority::requester, tokens::Claim},
};

/// How long a joiner has for its request and for taking the answer.
const DEADLINE: Duration = Duration::from_secs(5);

/// The application error code for a joiner that was refused; 0 is for one that was not.
const REFUSED: VarInt = VarInt::from_u32(0x110);

/// Serves a connection that [`accept`](crate::identity::accept) said to be of a joiner: one request, one answer,
/// at most 5 s. Closes the connection, and logs what came of it.
///
/// `peers` are members for the joiner to start with; it is told the first 64. A use of the token is taken
/// after all has been checked, right before the certificate is handed out: who fails earlier takes none.
///
/// # Errors
/// If no certificate was handed out.
pub async fn serve(
    connection: &quinn::Connection,
    identity: &Identity,
    tokens: &Tokens,
    peers: &[PeerAddress],
    now: SystemTime,
) -> Result<NodeId, JoinRefused> {
    let remote = connection.remote_address();
    let deadline = Instant::now() + DEADLINE;
    let too_late = || format!("it took longer than {} s", DEADLINE.as_secs());
    let (stream, id, asked) = match timeout_at(deadline, receive(connection)).await {
        Ok(Ok((stream, id, asked))) => (Some(stream), id, asked),
        Ok(Err(lost)) => (None, Id::Null, Err(JoinRefused::Incomplete(lost.to_string()))),
        Err(_) => (None, Id::Null, Err(JoinRefused::Incomplete(too_late()))),
    };
    let decision = match asked {
        Ok(ask) => timeout_at(deadline, decide(connection, identity, tokens, peers, ask, now))
            .await
            .unwrap_or_else(|_| Err(JoinRefused::Failed(too_late()))),
        Err(refused) => Err(refused),
    };
    let (result, answer) = match decision {
        Ok((node, grant)) => (Ok(node), Ok(grant)),
        Err(refused) => {
            tracing::warn!(target: "fnmesh::mesh", %remote, reason = %refused, "join refused");
            let told = refused.told();
            (Err(refused), Err(told))
        }
    };
    let (code, reason) = match &answer {
        Ok(_) => (VarInt::from_u32(0), "joined".to_owned()),
        Err(told) => (REFUSED, told.message().to_owned()),
    };
    if let Some(stream) = stream {
        let answer = wire::encode_answer(id, answer);
        let _ = timeout_at(deadline, deliver(connection, stream, &answer)).await;
    }
    connection.close(code, reason.as_bytes());
    result
}

type Received = (SendStream, Id<'static>, Result<Ask, JoinRefused>);

/// The stream for the answer, the request's id, and the request or what is wrong with it.
async fn receive(connection: &quinn::Connection) -> Result<Received, quinn::ConnectionError> {
    let (send, mut recv) = connection.accept_bi().await?;
    let (id, asked) = match wire::read(&mut recv).await {
        Ok(bytes) => Ask::decode(&bytes),
        Err(error @ FrameError::TooLong(_)) => (Id::Null, Err(JoinRefused::Malformed(error.to_string()))),
        Err(error @ FrameError::Lost(_)) => (Id::Null, Err(JoinRefused::Incomplete(error.to_string()))),
    };
    Ok((send, id, asked))
}

/// Returns when the joiner has read all and closed the connection: had this side closed it, what
/// is not read yet could be lost.
async fn deliver(connection: &quinn::Connection, mut stream: SendStream, answer: &[u8]) {
    if wire::write_last(&mut stream, answer).await.is_ok() {
        connection.closed().await;
    }
}

async fn decide(
    connection: &quinn::Connection,
    identity: &Identity,
    tokens: &Tokens,
    peers: &[PeerAddress],
    ask: Ask,
    now: SystemTime,
) -> Result<(NodeId, Grant), JoinRefused> {
    let authority = identity.authority().ok_or(JoinRefused::CannotAdmit)?;
    let from = connection.remote_address().ip();
    tokens.check_address(from, now)?;
    let exported = exported(connection).map_err(JoinRefused::Failed)?;
    let Ask { token, csr: Bytes(csr), proof: Bytes(proof) } = ask;
    tokens.check(&Claim { token, exported: &exported, request: &csr, proof: &proof }, from, now)?;
    let bad = |error| match error {
        SignError::Failed(error) => JoinRefused::Failed(error.to_string()),
        bad => JoinRefused::BadRequest(bad.to_string()),
    };
    let node = requester(&csr).map_err(bad)?;
    let certificate = authority.sign(&csr, node, now).map_err(bad)?;
    // Last: from here on nothing fails but the connection.
    let tokens = tokens.clone();
    let taken = tokio::task::spawn_blocking(move || tokens.take(token, now)).await;
    let shares_authority = taken.map_err(|error| JoinRefused::Failed(error.to_string()))??;
    let remote = connection.remote_address();
    tracing::info!(target: "fnmesh::mesh", %remote, %node, %token, shares_authority, "node joined");
    let grant = Grant {
        certificate: Bytes(certificate.to_vec()),
        ca: Bytes(identity.ca().to_vec()),
        ca_key: shares_authority.then(|| Bytes(authority.key_der().to_vec())),
        peers: peers.iter().take(MAX_PEERS).copied().collect(),
    };
    Ok((node, grant))
}

/// What binds a proof to this connection: who relays it has another one.
pub(super) fn exported(connection: &quinn::Connection) -> Result<[u8; 32], String> {
    let mut exported = [0; 32];
    let result = connection.export_keying_material(&mut exported, wire::EXPORTER_LABEL, b"");
    result.map(|()| exported).map_err(|_| "TLS exports no keys".to_owned())
}
