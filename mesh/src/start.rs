//! What a node does before it takes part: it finds, makes or joins for its identity, and binds its socket.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    time::{Duration, SystemTime},
};

use quinn::{Endpoint, EndpointConfig};
use tokio::time::timeout;

use crate::{
    Config,
    identity::{self, Identity, join},
    known,
    transport::{self, quic},
};

/// How long the last words on a socket may take to leave the machine.
pub(crate) const LAST_WORDS: Duration = Duration::from_millis(500);

/// Why a node does not take part in a mesh.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Its identity cannot be read or made.
    #[error(transparent)]
    Identity(#[from] identity::Error),
    /// It is not admitted.
    #[error(transparent)]
    Join(#[from] join::JoinError),
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

/// Finds or makes the identity, and binds the socket; also gives the members to begin with.
pub(crate) async fn open(config: &Config) -> Result<Opened, StartError> {
    let bind = |endpoint: EndpointConfig, server| {
        let source = |source| StartError::Bind { address: config.address, source };
        quic::bind(config.address, endpoint, server).map_err(source)
    };
    let existing = Identity::load(&config.directory)?;
    let is_founder = existing.is_none() && config.join.is_none();
    let (identity, mut peers) = match (existing, &config.join) {
        (Some(identity), _) => (identity, known::read(&config.directory)?),
        (None, None) => (Identity::found(&config.directory, SystemTime::now())?, Vec::new()),
        (None, Some(asked)) => {
            let token = asked.token.as_ref().ok_or(StartError::NoToken(asked.address))?;
            // The socket of the node itself, so that a port that is taken costs no token.
            let endpoint = bind(EndpointConfig::default(), None)?;
            let joined = join::join(&endpoint, asked.address, token, &config.directory).await?;
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
    let endpoint = bind(quic::endpoint_config(&identity), Some(server))?;
    Ok(Opened { endpoint, identity, peers, is_founder })
}

/// Where peers reach this node.
pub(crate) fn advertised(config: &Config, endpoint: &Endpoint) -> SocketAddr {
    let bound = endpoint.local_addr().unwrap_or(config.address);
    let wanted = config.advertise.unwrap_or(bound);
    let port = if wanted.port() == 0 { bound.port() } else { wanted.port() };
    let ip = if wanted.ip().is_unspecified() {
        // An address for documentation (RFC 5737): the kernel looks up the way there and sends nothing.
        let default_route = SocketAddr::from(([192, 0, 2, 1], 9));
        let towards = config.join.as_ref().map_or(default_route, |join| join.address);
        source_address(towards).unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST))
    } else {
        wanted.ip()
    };
    SocketAddr::new(ip, port)
}

/// The address this machine sends from towards `destination`.
fn source_address(destination: SocketAddr) -> Option<IpAddr> {
    let any: IpAddr = if destination.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0)).ok()?;
    socket.connect(destination).ok()?;
    socket.local_addr().ok().map(|address| address.ip())
}
