//! A node's place in its mesh: one thread that owns links, membership and routing table.

use std::{
    cell::RefCell,
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket},
    rc::Rc,
    sync::{Arc, mpsc as std_mpsc},
    thread::{self, JoinHandle},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use arc_swap::ArcSwap;
use fnmesh_invoke::Invoke;
use quinn::{Endpoint, EndpointConfig};
use tokio::{
    sync::{mpsc, oneshot},
    task::LocalSet,
    time::timeout,
};

use crate::{
    Config, NodeId,
    driver::{Driver, Input, Member},
    identity::{self, Admitted, DenyList, Identity, Tokens, accept, join},
    known,
    links::{Callers, Links},
    membership::{self, Event, Membership, Profile},
    rpc::{PeerHandler, Service},
    table::{Reader, RoutingTable},
    transport::{self, quic},
};

/// How long a client may take for its handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// How long the last words may take to leave the machine.
const LAST_WORDS: Duration = Duration::from_millis(500);

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

/// A running node of a mesh. Dropped, it ends without a word; [`Mesh::leave`] says goodbye.
#[derive(Debug)]
pub struct Mesh {
    handle: Handle,
    thread: Option<JoinHandle<()>>,
}

/// Talks to a [`Mesh`] from any thread.
#[derive(Clone)]
pub struct Handle {
    inputs: mpsc::UnboundedSender<Input>,
    started: Arc<Started>,
}

/// What is known once a node listens.
struct Started {
    address: SocketAddr,
    name: Arc<str>,
    zone: Arc<str>,
    identity: Identity,
    tokens: Tokens,
    denied: DenyList,
    callers: Callers,
    routes: Reader,
    members: Arc<ArcSwap<Vec<Member>>>,
    is_founder: bool,
}

impl std::fmt::Debug for Handle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Handle").field("node", &self.node()).field("address", &self.address()).finish_non_exhaustive()
    }
}

impl Mesh {
    /// Makes or reads the identity, joins if asked to, and starts the thread; returns when it listens for peers.
    ///
    /// `local` is called on that thread, within its `LocalSet`, and answers the calls of peers. `profile` is what the
    /// node says of itself at first; name and zone are those of `config`.
    ///
    /// # Errors
    /// [`StartError`], with nothing left running.
    pub fn start<L: Invoke + Clone>(
        config: Config,
        profile: Profile,
        local: impl FnOnce() -> L + Send + 'static,
    ) -> Result<Self, StartError> {
        let (started, start) = std_mpsc::channel();
        let thread = thread::Builder::new().name("fnmesh-mesh".to_owned()).spawn(move || {
            let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
                Ok(runtime) => runtime,
                Err(error) => return drop(started.send(Err(error.into()))),
            };
            LocalSet::new().block_on(&runtime, run(config, profile, local, started));
        })?;
        match start.recv() {
            Ok(Ok(handle)) => Ok(Self { handle, thread: Some(thread) }),
            Ok(Err(error)) => Err(error),
            Err(_) => Err(io::Error::other("it panicked; the log says why").into()),
        }
    }

    /// Talks to it.
    pub fn handle(&self) -> &Handle {
        &self.handle
    }

    /// Tells the members that this node leaves, and ends. Calls of peers that still run are cut off: let them end
    /// first. Takes a second at most.
    pub fn leave(mut self) {
        let _ = self.handle.inputs.send(Input::Leave);
        self.join();
    }

    fn join(&mut self) {
        if let Some(thread) = self.thread.take() {
            // A panic has been printed, and whoever drops may be panicking itself.
            let _ = thread.join();
        }
    }
}

impl Drop for Mesh {
    fn drop(&mut self) {
        if self.thread.is_some() {
            let _ = self.handle.inputs.send(Input::Stop);
            self.join();
        }
    }
}

impl Handle {
    /// This node's id.
    pub fn node(&self) -> NodeId {
        self.started.identity.id()
    }

    /// Its zone; empty if it has none.
    pub fn zone(&self) -> &str {
        &self.started.zone
    }

    /// Where it listens for peers, with the real port, as peers are told.
    pub fn address(&self) -> SocketAddr {
        self.started.address
    }

    /// Who it is.
    pub fn identity(&self) -> &Identity {
        &self.started.identity
    }

    /// The join tokens it gives out.
    pub fn tokens(&self) -> &Tokens {
        &self.started.tokens
    }

    /// Removes a node from the mesh: this one talks to it no more, and tells the others. Whether that is new. Blocks
    /// on the disk.
    ///
    /// # Errors
    /// If the list of removed nodes cannot be written; the node is removed nevertheless, until a restart.
    pub fn remove(&self, node: NodeId) -> Result<bool, identity::Error> {
        let removed = self.started.denied.deny(node, SystemTime::now());
        let _ = self.inputs.send(Input::Denied(vec![node]));
        removed
    }

    /// Gets a new certificate now. Without being asked, a node does so when two thirds of the old one's life are over.
    ///
    /// # Errors
    /// The reason, as text: no node in reach has the authority's key, or it refuses.
    pub async fn renew(&self) -> Result<(), String> {
        let (asked, answered) = oneshot::channel();
        let _ = self.inputs.send(Input::Renew(Some(asked)));
        answered.await.unwrap_or_else(|_| Err("the node has ended".to_owned()))
    }

    /// Who serves what, as far as calls can get there from here.
    pub fn routes(&self) -> &Reader {
        &self.started.routes
    }

    /// Says something new of this node to the mesh; name and zone stay as they are. Saying the same again costs nothing.
    pub fn announce(&self, profile: Profile) {
        let Started { name, zone, .. } = &*self.started;
        let profile = Profile { name: Arc::clone(name), zone: Arc::clone(zone), ..profile };
        let _ = self.inputs.send(Input::Event(Event::Local(Box::new(profile))));
    }

    /// Who is in the mesh, this node first.
    pub fn members(&self) -> Arc<Vec<Member>> {
        self.started.members.load_full()
    }

    /// Whether the mesh was made by this start of the node.
    pub fn is_founder(&self) -> bool {
        self.started.is_founder
    }

    pub(crate) fn callers(&self) -> &Callers {
        &self.started.callers
    }
}

/// The life of the thread.
async fn run<L: Invoke + Clone>(
    config: Config,
    profile: Profile,
    local: impl FnOnce() -> L,
    started: std_mpsc::Sender<Result<Handle, StartError>>,
) {
    let Opened { endpoint, identity, peers, is_founder } = match open(&config).await {
        Ok(opened) => opened,
        Err(error) => return drop(started.send(Err(error))),
    };
    let stores = Tokens::load(&config.directory).and_then(|tokens| Ok((tokens, DenyList::load(&config.directory)?)));
    let (tokens, denied) = match stores {
        Ok(stores) => stores,
        Err(error) => return drop(started.send(Err(error.into()))),
    };
    let address = advertised(&config, &endpoint);
    let (name, zone): (Arc<str>, Arc<str>) = (config.name.as_str().into(), config.zone.as_str().into());
    let profile = Profile { name: Arc::clone(&name), zone: Arc::clone(&zone), ..profile };

    let (inputs, inbox) = mpsc::unbounded_channel();
    let mut actions = Vec::new();
    let own = membership::Identity::new(identity.id(), address, milliseconds(SystemTime::now()));
    let seed = fastrand::u64(..);
    let membership = Membership::new(config.membership.clone(), own, profile, seed, Instant::now(), &mut actions);
    let membership = Rc::new(RefCell::new(membership));
    if !peers.is_empty() {
        let peers = peers.iter().map(|peer| (peer.node, peer.address)).collect();
        membership.borrow_mut().handle(Event::Join(peers), Instant::now(), &mut actions);
    }

    let mut dialler = identity.client_config();
    dialler.transport_config(quic::transport(config.congestion));
    let service = Rc::new(Service {
        local: local(),
        membership: Rc::downgrade(&membership),
        identity: identity.clone(),
        denied: denied.clone(),
        inputs: inputs.clone(),
    });
    let handler = move |peer| PeerHandler { peer, service: Rc::clone(&service) };
    let tell = {
        let inputs = inputs.clone();
        move |change| drop(inputs.send(Input::Link(change)))
    };
    let links = Links::new(identity.clone(), denied.clone(), endpoint.clone(), dialler, handler, tell);
    let table = RoutingTable::default();
    let routes = table.reader();
    let callers = links.callers().clone();
    let members = Arc::default();
    let handle = Handle {
        inputs: inputs.clone(),
        started: Arc::new(Started {
            address,
            name,
            zone,
            identity: identity.clone(),
            tokens: tokens.clone(),
            denied: denied.clone(),
            callers,
            routes,
            members: Arc::clone(&members),
            is_founder,
        }),
    };
    if started.send(Ok(handle)).is_err() {
        return;
    }
    let driver = Driver::new(
        Rc::clone(&membership),
        table,
        Rc::clone(&links),
        inputs,
        (identity.clone(), denied.clone()),
        members,
        config.directory.clone(),
    );
    let accept = accept_all(&endpoint, &identity, &denied, &tokens, &links, &membership);
    tokio::select! {
        () = driver.run(actions, inbox) => {}
        () = accept => {}
    }
    links.settle(LAST_WORDS).await;
    endpoint.close(transport::GOODBYE, b"the node has left");
    let _ = timeout(LAST_WORDS, endpoint.wait_idle()).await;
}

/// What a node starts with.
struct Opened {
    endpoint: Endpoint,
    identity: Identity,
    /// Members to begin with.
    peers: Vec<join::PeerAddress>,
    is_founder: bool,
}

/// Finds or makes the identity, and binds the socket; also gives the members to begin with.
async fn open(config: &Config) -> Result<Opened, StartError> {
    let bind = |endpoint: EndpointConfig, server| {
        let source = |source| StartError::Bind { address: config.address, source };
        quic::bind(config.address, endpoint, server).map_err(source)
    };
    let existing = Identity::load(&config.directory)?;
    let is_founder = existing.is_none() && config.join.is_none();
    let (identity, peers) = match (existing, &config.join) {
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
    let mut server = identity.server_config();
    server.transport_config(quic::transport(config.congestion));
    let endpoint = bind(quic::endpoint_config(&identity), Some(server))?;
    Ok(Opened { endpoint, identity, peers, is_founder })
}

async fn accept_all<L: Invoke + Clone>(
    endpoint: &Endpoint,
    identity: &Identity,
    denied: &DenyList,
    tokens: &Tokens,
    links: &Rc<Links<PeerHandler<L>>>,
    membership: &Rc<RefCell<Membership>>,
) {
    let mut tasks = tokio::task::JoinSet::new();
    while let Some(incoming) = endpoint.accept().await {
        while tasks.try_join_next().is_some() {}
        let (identity, denied, tokens) = (identity.clone(), denied.clone(), tokens.clone());
        let (links, membership) = (Rc::clone(links), Rc::clone(membership));
        tasks.spawn_local(async move {
            match timeout(HANDSHAKE_TIMEOUT, accept(incoming, &identity, &denied)).await {
                Ok(Ok((connection, Admitted::Peer(peer)))) => links.add(peer, connection),
                Ok(Ok((connection, Admitted::Joiner))) => {
                    let peers = known::of(&membership.borrow());
                    // What came of it is logged there.
                    let _ = join::serve(&connection, &identity, &tokens, &peers, SystemTime::now()).await;
                }
                // Refusals are logged where they are made; who is too slow is of no interest.
                Ok(Err(_)) | Err(_) => {}
            }
        });
    }
}

fn milliseconds(now: SystemTime) -> u64 {
    let since = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// Where peers reach this node.
fn advertised(config: &Config, endpoint: &Endpoint) -> SocketAddr {
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
    let any: IpAddr =
        if destination.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { std::net::Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0)).ok()?;
    socket.connect(destination).ok()?;
    socket.local_addr().ok().map(|address| address.ip())
}
