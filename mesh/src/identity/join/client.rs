use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use quinn::{ConnectionError, VarInt};
use rcgen::KeyPair;
use rustls_pki_types::CertificateDer;
use tokio::{task::spawn_blocking, time::timeout};
use webpki::KeyUsage;

use super::{
    PeerAddress,
    server::exported,
    trust::{OfToken, SERVER_NAME, client_config},
    wire::{self, Ask, Grant},
};
use crate::{
    NodeId,
    identity::{
        Authority, Error, Identity, Invalid, Token,
        certificate::{anchor, fingerprint, new_key, node_of_key, unix_time, verify},
        files::Staging,
        own::{certificate_request, install},
        told,
    },
};

/// How long joining may take. The member has 5 s for its part; connecting to where nobody listens
/// ends by nothing but this.
const LIMIT: Duration = Duration::from_secs(10);

/// What a joiner has got.
#[derive(Clone, Debug)]
pub struct Joined {
    /// Who this node is now.
    pub identity: Identity,
    /// The node that admitted it, at the address that was dialled.
    pub member: NodeId,
    /// Members to begin with.
    pub peers: Vec<PeerAddress>,
}

/// Why a machine did not become a node.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// The identity cannot be made or written.
    #[error(transparent)]
    Identity(#[from] Error),
    /// Nobody answers, or the connection was lost.
    #[error("cannot join by {address}: {reason}. Is it the mesh address (UDP) of a running node?")]
    Unreachable {
        /// The member's address.
        address: SocketAddr,
        /// What happened.
        reason: String,
    },
    /// The node there is not of the mesh that the token is for.
    #[error("the node at {address} is not of the mesh that the token is for: check the address and the token")]
    OtherMesh {
        /// The member's address.
        address: SocketAddr,
    },
    /// The certificate of the node there, or the one it gave, is not valid.
    #[error("the node at {address} showed or gave a certificate that is not valid: {invalid}")]
    Certificate {
        /// The member's address.
        address: SocketAddr,
        /// What is wrong with it.
        invalid: Invalid,
    },
    /// The member does not admit this machine.
    #[error("refused by {address}: {reason}")]
    Refused {
        /// The member's address.
        address: SocketAddr,
        /// What it said.
        reason: String,
    },
    /// The member does not speak the protocol.
    #[error("the answer of {address} cannot be understood: {reason}. Is it of another version?")]
    BadAnswer {
        /// The member's address.
        address: SocketAddr,
        /// What is wrong with it.
        reason: String,
    },
}

/// Joins the mesh that `token` is for by the member at `address`: makes a key, gets a certificate
/// for it, and writes both to `directory`, which must not be there yet or be empty. The directory is there whole
/// or not at all, and is tried out before the token is used. Takes 10 s at most.
///
/// # Errors
/// If there is an identity already, nobody answers, the member is of another mesh, or it refuses.
pub async fn join(
    endpoint: &quinn::Endpoint,
    address: SocketAddr,
    token: &Token,
    directory: &Path,
) -> Result<Joined, JoinError> {
    let directory = directory.to_owned();
    let (staging, key) = {
        let directory = directory.clone();
        blocking(move || Ok((Staging::begin(&directory)?, new_key()?))).await?
    };
    let asking = Box::pin(ask(endpoint, address, token, &key));
    let (member, grant) = timeout(LIMIT, asking).await.unwrap_or_else(|_| {
        Err(JoinError::Unreachable { address, reason: format!("no answer within {} s", LIMIT.as_secs()) })
    })?;
    let granted = check(grant, token, &key).map_err(|problem| problem.at(address))?;
    let peers = granted.peers.clone();
    let identity = blocking(move || write(staging, directory, &key, &granted)).await?;
    Ok(Joined { identity, member, peers })
}

async fn ask(
    endpoint: &quinn::Endpoint,
    address: SocketAddr,
    token: &Token,
    key: &KeyPair,
) -> Result<(NodeId, Grant), JoinError> {
    let lost = |error: ConnectionError| match (&error, told(&error)) {
        (ConnectionError::TransportError(_), _) | (_, None) => {
            JoinError::Unreachable { address, reason: error.to_string() }
        }
        (_, Some(reason)) => JoinError::Refused { address, reason },
    };
    let seen = Arc::new(OfToken::new(token));
    let connecting = endpoint
        .connect_with(client_config(seen.clone()), address, SERVER_NAME)
        .map_err(|error| JoinError::Unreachable { address, reason: error.to_string() })?;
    let connection = connecting.await.map_err(|error| match seen.result() {
        Some(Err(Invalid::OtherMesh)) => JoinError::OtherMesh { address },
        Some(Err(invalid)) => JoinError::Certificate { address, invalid: invalid.clone() },
        _ => lost(error),
    })?;
    let Some(Ok(member)) = seen.result().cloned() else {
        return Err(JoinError::OtherMesh { address });
    };
    let exported = exported(&connection).map_err(Error::Crypto)?;
    let ask = Ask::new(token, &exported, certificate_request(key)?);
    let (mut send, mut recv) = connection.open_bi().await.map_err(lost)?;
    // A member may refuse before it has read all: then its answer counts.
    let _ = wire::write_last(&mut send, &ask.encode()).await;
    let answer = match wire::read(&mut recv).await {
        Ok(answer) => answer,
        Err(wire::FrameError::Lost(_)) if connection.close_reason().is_some() => {
            return Err(lost(connection.close_reason().unwrap_or(ConnectionError::LocallyClosed)));
        }
        Err(error) => return Err(JoinError::BadAnswer { address, reason: error.to_string() }),
    };
    connection.close(VarInt::from_u32(0), b"got it");
    match wire::decode_answer(&answer) {
        Ok(Ok(grant)) => Ok((member, grant)),
        Ok(Err(reason)) => Err(JoinError::Refused { address, reason }),
        Err(error) => Err(JoinError::BadAnswer { address, reason: error.to_string() }),
    }
}

/// A grant that was checked.
struct Granted {
    certificate: CertificateDer<'static>,
    ca: CertificateDer<'static>,
    ca_key: Option<Vec<u8>>,
    peers: Vec<PeerAddress>,
}

enum Problem {
    Certificate(Invalid),
    Key(&'static str),
}

impl Problem {
    fn at(self, address: SocketAddr) -> JoinError {
        match self {
            Self::Certificate(Invalid::OtherMesh) => JoinError::OtherMesh { address },
            Self::Certificate(invalid) => JoinError::Certificate { address, invalid },
            Self::Key(reason) => JoinError::BadAnswer { address, reason: reason.to_owned() },
        }
    }
}

impl From<Invalid> for Problem {
    fn from(invalid: Invalid) -> Self {
        Self::Certificate(invalid)
    }
}

/// Whether the member gave what belongs to this token and key: nothing else is written.
fn check(grant: Grant, token: &Token, key: &KeyPair) -> Result<Granted, Problem> {
    let Grant { certificate, ca, ca_key, peers } = grant;
    let (certificate, ca) = (CertificateDer::from(certificate.0), CertificateDer::from(ca.0));
    if fingerprint(&ca) != token.mesh() {
        return Err(Invalid::OtherMesh.into());
    }
    let now = unix_time(SystemTime::now());
    let found = verify(&certificate, &anchor(&ca)?, now, KeyUsage::client_auth())?;
    if found != node_of_key(key) {
        return Err(Invalid::WrongNode { expected: node_of_key(key).to_string(), found }.into());
    }
    let ca_key = ca_key.map(|bytes| bytes.0);
    if let Some(ca_key) = &ca_key {
        let ca_key = KeyPair::try_from(&ca_key[..]).map_err(|_| Problem::Key("the authority's key is damaged"))?;
        let authority = Authority::new(ca.clone(), ca_key);
        if !matches!(authority, Ok(Some(_))) {
            return Err(Problem::Key("the authority's key is of another mesh"));
        }
    }
    Ok(Granted { certificate, ca, ca_key, peers })
}

fn write(staging: Staging, directory: PathBuf, key: &KeyPair, granted: &Granted) -> Result<Identity, Error> {
    install(staging, &directory, key, &granted.certificate, &granted.ca, granted.ca_key.as_deref())
}

/// Off the runtime: it waits for the disk.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, Error> + Send + 'static) -> Result<T, Error> {
    spawn_blocking(work).await.unwrap_or_else(|error| Err(Error::Crypto(error.to_string())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::{TokenOptions, Tokens};

    struct Mesh {
        identity: Identity,
        token: Token,
    }

    fn mesh() -> Mesh {
        let root = tempfile::tempdir().unwrap();
        let directory = root.path().join("identity");
        let identity = Identity::found(&directory, SystemTime::now()).unwrap();
        let tokens = Tokens::load(&directory).unwrap();
        let token = tokens.create(identity.authority().unwrap(), TokenOptions::default(), SystemTime::now()).unwrap();
        Mesh { identity, token }
    }

    fn grant(mesh: &Mesh, key: &KeyPair) -> Grant {
        let authority = mesh.identity.authority().unwrap();
        let request = certificate_request(key).unwrap();
        let leaf = authority.sign(&request, node_of_key(key), SystemTime::now()).unwrap();
        let [certificate, ca, ca_key] =
            [&leaf[..], mesh.identity.ca(), authority.key_der()].map(|der| wire::Bytes(der.to_vec()));
        Grant { certificate, ca, ca_key: Some(ca_key), peers: Vec::new() }
    }

    #[test]
    fn grant_for_this_key_and_token_is_taken() {
        let (mesh, key) = (mesh(), new_key().unwrap());
        assert!(check(grant(&mesh, &key), &mesh.token, &key).is_ok());
    }

    #[test]
    fn grant_of_another_mesh_or_for_another_key_is_not() {
        let (mesh, other, key) = (mesh(), self::mesh(), new_key().unwrap());
        let (good, foreign) = (grant(&mesh, &key), grant(&other, &key));
        let bad = [
            foreign.clone(),
            Grant { certificate: foreign.certificate, ..good.clone() },
            Grant { ca: foreign.ca, ..good.clone() },
            Grant { ca_key: foreign.ca_key, ..good.clone() },
            Grant { ca_key: Some(wire::Bytes(vec![1, 2, 3])), ..good.clone() },
            grant(&mesh, &new_key().unwrap()),
        ];
        for grant in bad {
            assert!(check(grant, &mesh.token, &key).is_err());
        }
    }
}
