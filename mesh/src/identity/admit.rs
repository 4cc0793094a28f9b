use std::{net::SocketAddr, time::SystemTime};

use quinn::{ConnectionError, VarInt, crypto::rustls::HandshakeData};
use rustls_pki_types::CertificateDer;
use webpki::KeyUsage;

use super::{
    ALPN_CALL, ALPN_JOIN, ALPN_MESH, DenyList, Identity, Invalid,
    certificate::{unix_time, verify},
    error::printable,
};
use crate::NodeId;

/// Who is at the other end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admitted {
    /// A node of this mesh: calls may follow, in both directions.
    Peer(NodeId),
    /// A node of this mesh: calls of the side that dialled may follow.
    Calls(NodeId),
    /// Somebody who wants to join: [`join::serve`](super::join::serve) is next, and nothing else.
    Joiner,
}

/// Why a connection is of no use. The text goes to the other side, too.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// A client without a certificate wants to make calls.
    #[error("calls need a certificate of this mesh, and none was shown: join the mesh first")]
    NoCertificate,
    /// Its certificate is not acceptable.
    #[error(transparent)]
    Certificate(#[from] Invalid),
    /// The node was removed from the mesh.
    #[error("node {0} was removed from this mesh: remove its identity and join again with a new token")]
    Denied(NodeId),
    /// It shows this node's own identity.
    #[error(
        "node {0} is this node itself, or a copy of it: if its directory was copied to another machine, remove the \
         identity there and join with a token"
    )]
    OwnIdentity(NodeId),
    /// It speaks none of the protocols.
    #[error("the connection is for none of fnmesh/1, fnmesh-call/1 and fnmesh-join/1")]
    UnknownProtocol,
    /// The handshake was ended, by this side or the other, before there was a connection.
    #[error("the handshake failed: {0}")]
    Handshake(String),
}

impl Refusal {
    /// The application error code that the connection is closed with: 0x101 to 0x1ff are of this module.
    pub fn code(&self) -> VarInt {
        VarInt::from_u32(match self {
            Self::NoCertificate => 0x101,
            Self::Certificate(_) => 0x102,
            Self::Denied(_) => 0x103,
            Self::OwnIdentity(_) => 0x104,
            Self::UnknownProtocol => 0x105,
            Self::Handshake(_) => 0x106,
        })
    }

    /// Closes the connection with this reason, and logs it.
    pub fn close(&self, connection: &quinn::Connection) {
        connection.close(self.code(), self.to_string().as_bytes());
        self.log(connection.remote_address());
    }

    fn log(&self, remote: SocketAddr) {
        tracing::warn!(target: "fnmesh::mesh", %remote, reason = %self, "connection refused");
    }
}

/// Completes the handshake of an incoming connection and says who it is from. Who is refused is
/// told why, and logged. Bound it by a timeout: a client may take its time.
///
/// # Errors
/// If the connection is refused, or failed; it is closed.
pub async fn accept(
    incoming: quinn::Incoming,
    identity: &Identity,
    denied: &DenyList,
) -> Result<(quinn::Connection, Admitted), Refusal> {
    let remote = incoming.remote_address();
    let connection = match incoming.await {
        Ok(connection) => connection,
        Err(error) => {
            let refusal = Refusal::Handshake(told(&error).unwrap_or_else(|| error.to_string()));
            // Refused by one of the sides, or else just gone.
            if matches!(error, ConnectionError::TransportError(_) | ConnectionError::ConnectionClosed(_)) {
                refusal.log(remote);
            } else {
                tracing::debug!(target: "fnmesh::mesh", %remote, %error, "handshake not completed");
            }
            return Err(refusal);
        }
    };
    match admit(&connection, identity, denied) {
        Ok(admitted) => Ok((connection, admitted)),
        Err(refusal) => {
            refusal.close(&connection);
            Err(refusal)
        }
    }
}

/// Says who is at the other end of a connection, of an incoming or of an outgoing one. To be called right
/// after the handshake, before a stream is accepted or opened; after a refusal, call [`Refusal::close`].
///
/// # Errors
/// If calls must not be made over this connection.
pub fn admit(connection: &quinn::Connection, identity: &Identity, denied: &DenyList) -> Result<Admitted, Refusal> {
    let handshake = connection.handshake_data().and_then(|data| data.downcast::<HandshakeData>().ok());
    let protocol = handshake.and_then(|data| data.protocol);
    let admitted = match protocol.as_deref() {
        Some(ALPN_JOIN) => return Ok(Admitted::Joiner),
        Some(ALPN_MESH) => Admitted::Peer,
        Some(ALPN_CALL) => Admitted::Calls,
        _ => return Err(Refusal::UnknownProtocol),
    };
    let chain = connection.peer_identity().and_then(|any| any.downcast::<Vec<CertificateDer<'static>>>().ok());
    let certificate = chain.as_ref().and_then(|chain| chain.first()).ok_or(Refusal::NoCertificate)?;
    admit_peer(certificate, identity, denied, SystemTime::now()).map(admitted)
}

fn admit_peer(
    certificate: &CertificateDer<'_>,
    identity: &Identity,
    denied: &DenyList,
    now: SystemTime,
) -> Result<NodeId, Refusal> {
    // The handshake has checked it, if it was made with this identity's configuration. Certificates of
    // either side are good for both usages.
    let node = verify(certificate, identity.anchor(), unix_time(now), KeyUsage::client_auth())?;
    if node == identity.id() {
        return Err(Refusal::OwnIdentity(node));
    }
    if denied.contains(node) {
        return Err(Refusal::Denied(node));
    }
    Ok(node)
}

/// What a side said when it refused the other: the reason why a connection failed or was closed,
/// without the wording of the layers in between. `None` if nobody said anything.
pub fn told(error: &ConnectionError) -> Option<String> {
    let reason = match error {
        ConnectionError::ApplicationClosed(close) => String::from_utf8_lossy(&close.reason).into_owned(),
        ConnectionError::ConnectionClosed(close) => String::from_utf8_lossy(&close.reason).into_owned(),
        ConnectionError::TransportError(error) => error.reason.clone(),
        _ => return None,
    };
    // How rustls shows an error that is not its own.
    let reason = reason.strip_prefix("other error: ").unwrap_or(&reason);
    (!reason.is_empty()).then(|| printable(reason))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn told_reason_is_printable_and_short() {
        let close = |reason: String| {
            let reason = reason.into_bytes().into();
            told(&ConnectionError::ApplicationClosed(quinn::ApplicationClose { error_code: 1_u8.into(), reason }))
        };
        assert_eq!(close("no\nlines \u{1b}[31m".to_owned()), Some("no lines  [31m".to_owned()));
        assert_eq!(close("x".repeat(1000)).map(|text| text.len()), Some(300));
        assert_eq!(close(String::new()), None);
    }

    #[test]
    fn each_refusal_has_its_code_and_text() {
        let node = NodeId::from_bytes([1; 16]);
        let all = [
            Refusal::NoCertificate,
            Refusal::Certificate(Invalid::OtherMesh),
            Refusal::Denied(node),
            Refusal::OwnIdentity(node),
            Refusal::UnknownProtocol,
            Refusal::Handshake("lost".to_owned()),
        ];
        let distinct = |values: Vec<String>| values.into_iter().collect::<std::collections::HashSet<_>>().len();
        assert_eq!(distinct(all.iter().map(|refusal| refusal.code().to_string()).collect()), all.len());
        assert_eq!(distinct(all.iter().map(ToString::to_string).collect()), all.len());
    }
}
