use std::time::{Duration, SystemTime};

use jsonrpsee_types::Id;
use quinn::{RecvStream, SendStream, VarInt};
use tokio::time::{Instant, timeout_at};

use super::{
    JoinRefused, PeerAddress,
    wire::{self, Ask, Bytes, FrameError, Grant, MAX_PEERS},
};
use crate::{
    NodeId,
    identity::{Identity, Tokens, authority::requester, tokens::Claim},
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
    let mut admitted = None;
    let exchange = exchange(connection, identity, tokens, peers, now, &mut admitted);
    let in_time = timeout_at(deadline, exchange).await;
    let result = admitted.unwrap_or_else(|| {
        let reason = match in_time {
            Ok(Err(lost)) => lost.to_string(),
            _ => format!("it took longer than {} s", DEADLINE.as_secs()),
        };
        Err(JoinRefused::Incomplete(reason))
    });
    match &result {
        Ok(node) => {
            tracing::info!(target: "fnmesh::mesh", %remote, %node, "node joined");
            connection.close(VarInt::from_u32(0), b"joined");
        }
        Err(refused) => {
            tracing::warn!(target: "fnmesh::mesh", %remote, reason = %refused, "join refused");
            connection.close(REFUSED, refused.told().message().as_bytes());
        }
    }
    result
}

/// Reads the request, decides, answers, and waits until the joiner has the answer. What was
/// decided is in `admitted`, also when the wait is given up.
async fn exchange(
    connection: &quinn::Connection,
    identity: &Identity,
    tokens: &Tokens,
    peers: &[PeerAddress],
    now: SystemTime,
    admitted: &mut Option<Result<NodeId, JoinRefused>>,
) -> Result<(), quinn::ConnectionError> {
    let (mut send, mut recv) = connection.accept_bi().await?;
    let (id, asked) = receive(&mut recv).await;
    let decision = match asked {
        Ok(ask) => decide(connection, identity, tokens, ask, now).await,
        Err(refused) => Err(refused),
    };
    let answer = match &decision {
        Ok((_, grant)) => Ok(Grant { peers: peers.iter().take(MAX_PEERS).copied().collect(), ..grant.clone() }),
        Err(refused) => Err(refused.told()),
    };
    *admitted = Some(decision.map(|(node, _)| node));
    deliver(&mut send, &wire::encode_answer(id, answer)).await;
    Ok(())
}

async fn receive(recv: &mut RecvStream) -> (Id<'static>, Result<Ask, JoinRefused>) {
    match wire::read(recv).await {
        Ok(bytes) => Ask::decode(&bytes),
        Err(error @ FrameError::TooLong(_)) => (Id::Null, Err(JoinRefused::Malformed(error.to_string()))),
        Err(error @ FrameError::Lost(_)) => (Id::Null, Err(JoinRefused::Incomplete(error.to_string()))),
    }
}

/// Returns when the joiner has all of it, or is gone.
async fn deliver(send: &mut SendStream, answer: &[u8]) {
    if wire::write_last(send, answer).await.is_ok() {
        let _ = send.stopped().await;
    }
}

async fn decide(
    connection: &quinn::Connection,
    identity: &Identity,
    tokens: &Tokens,
    ask: Ask,
    now: SystemTime,
) -> Result<(NodeId, Grant), JoinRefused> {
    let authority = identity.authority().ok_or(JoinRefused::CannotAdmit)?;
    let from = connection.remote_address().ip();
    tokens.check_address(from, now)?;
    let exported = exported(connection).map_err(JoinRefused::Failed)?;
    let Ask { token, csr: Bytes(csr), proof: Bytes(proof) } = ask;
    tokens.check(&Claim { token, exported: &exported, request: &csr, proof: &proof }, from, now)?;
    let bad = |error: crate::identity::SignError| JoinRefused::BadRequest(error.to_string());
    let node = requester(&csr).map_err(bad)?;
    let certificate = authority.sign(&csr, node, now).map_err(bad)?;
    // Last: from here on nothing fails but the connection.
    let tokens = tokens.clone();
    let taken = tokio::task::spawn_blocking(move || tokens.take(token, now)).await;
    let shares_authority = taken.map_err(|error| JoinRefused::Failed(error.to_string()))??;
    let grant = Grant {
        certificate: Bytes(certificate.to_vec()),
        ca: Bytes(identity.ca().to_vec()),
        ca_key: shares_authority.then(|| Bytes(authority.key_der().to_vec())),
        peers: Vec::new(),
    };
    Ok((node, grant))
}

/// What binds a proof to this connection: who relays it has another one.
pub(super) fn exported(connection: &quinn::Connection) -> Result<[u8; 32], String> {
    let mut exported = [0; 32];
    let result = connection.export_keying_material(&mut exported, wire::EXPORTER_LABEL, b"");
    result.map(|()| exported).map_err(|_| "TLS exports no keys".to_owned())
}
