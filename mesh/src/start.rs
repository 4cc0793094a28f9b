//! What a node does before it takes part: it finds, makes or joins for its identity, and binds its socket.

use std::{
    io,
    net::SocketAddr,
    time::{Duration, Instant, SystemTime},
};

use quinn::{Endpoint, EndpointConfig};
use tokio::time::{sleep, timeout};

use crate::{
    Config,
    identity::{self, Identity, join},
    known,
    transport::{self, quic},
};

/// How long requests that are still sent, read or answered may take when the node leaves: those it runs have ended by
/// then, so this is for bytes on their way.
pub(crate) const LAST_ANSWERS: Duration = Duration::from_secs(5);
/// How long the last words on a socket may take to leave the machine.
pub(crate) const LAST_WORDS: Duration = Duration::from_millis(500);

/// How long a port may be taken by an endpoint that is closed already ...
const REBIND: Duration = Duration::from_secs(1);
/// ... and how often it is tried meanwhile.
const REBIND_PAUSE: Duration = Duration::from_millis(2);

/// Why a node does not take part in a mesh.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Its identity cannot be read or made.
    #[error(transparent)]
    Identity(#[from] identity::Error),
    /// It is not admitted.
    #[error(transparent)]
    Join(#[from] join::JoinError),
    /// It was told to end before it was admitted.
    #[error("ended before this node had joined the mesh by {0}")]
    GivenUp(SocketAddr),
    /// It has no identity and no token to get one.
    #[error("joining {0} needs a token: make one with `fnmesh token create` on that node, and pass it with --token")]
    NoToken(SocketAddr),
    /// The address cannot be bound.
    #[error("cannot listen for peers on {address} (UDP): {source}")]
    Bind {
        /// Which.
        address: SocketAddr,
        /// Why not.
        source: io::Error,
    },
    /// The system refuses a thread or a runtime.
    #[error("cannot start the thread of the mesh: {0}")]
    Thread(#[from] io::Error),
}

/// What a node starts with.
pub(crate) struct Opened {
    pub(crate) endpoint: Endpoint,
    pub(crate) identity: Identity,
    /// Other members to begin with.
    pub(crate) peers: Vec<join::PeerAddress>,
    pub(crate) is_founder: bool,
}

/// Finds or makes the identity, and binds the socket; also gives the members to begin with. It waits for the network
/// until `given_up`.
pub(crate) async fn open(config: &Config, given_up: impl Future<Output = ()>) -> Result<Opened, StartError> {
    let bind = |endpoint: EndpointConfig, server| quic::bind(config.address, endpoint, server);
    let refused = |source| StartError::Bind { address: config.address, source };
    let existing = Identity::load(&config.directory)?;
    let is_founder = existing.is_none() && config.join.is_none();
    let (identity, mut peers) = match (existing, &config.join) {
        (Some(identity), _) => (identity, known::read(&config.directory)?),
        (None, None) => (Identity::found(&config.directory, SystemTime::now())?, Vec::new()),
        (None, Some(asked)) => {
            let token = asked.token.as_ref().ok_or(StartError::NoToken(asked.address))?;
            // The socket of the node itself, so that a port that is taken costs no token.
            let endpoint = bind(EndpointConfig::default(), None).map_err(refused)?;
            let joined = tokio::select! {
                joined = join::join(&endpoint, asked.address, token, &config.directory) => joined?,
                () = given_up => return Err(StartError::GivenUp(asked.address)),
            };
            let mut peers = joined.peers;
            peers.insert(0, join::PeerAddress { node: joined.member, address: asked.address });
            known::write(&config.directory, &peers)?;
            endpoint.close(transport::GOODBYE, b"joined");
            let _ = timeout(LAST_WORDS, endpoint.wait_idle()).await;
            (joined.identity, peers)
        }
    };
    peers.retain(|peer| peer.node != identity.id());
    let mut server = identity.server_config();
    server.transport_config(quic::transport(config.congestion));
    // The socket it joined with is closed by its task, soon after the endpoint is dropped.
    let deadline = Instant::now() + REBIND;
    let endpoint = loop {
        match bind(quic::endpoint_config(&identity), Some(server.clone())) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && Instant::now() < deadline => {
                sleep(REBIND_PAUSE).await;
            }
            bound => break bound.map_err(refused)?,
        }
    };
    Ok(Opened { endpoint, identity, peers, is_founder })
}
