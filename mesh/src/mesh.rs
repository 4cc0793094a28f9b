//! A node's place in its mesh: one thread that owns the links of the node, membership and routing table.

use std::{
    cell::RefCell,
    future, io,
    path::Path,
    rc::Rc,
    sync::{Arc, mpsc as std_mpsc},
    thread::{self, JoinHandle},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use fnmesh_invoke::Invoke;
use quinn::Endpoint;
use tokio::{
    sync::{Semaphore, mpsc, watch},
    task::{JoinSet, LocalSet},
    time::timeout,
};

use crate::{
    Config, Handle, NodeId, StartError, address,
    bundles::Bundles,
    deployments::Deployments,
    driver::{Driver, Input, View},
    handle::Started,
    identity::{self, Admitted, DenyList, Identity, Tokens, accept, join},
    known,
    links::{LEFT, Links, Setup},
    membership::{self, Event, Membership, Profile},
    rpc::{PeerHandler, Service, WAITING_ASKS},
    start::{LAST_ANSWERS, LAST_WORDS, Opened, open},
    table::RoutingTable,
    transport::{self, quic},
};

/// How long a client may take for its handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);

/// With so many clients that have not shown yet who they are, further ones show first that they receive at the address
/// they send from, which costs this node no memory ...
const CROWD: usize = 64;
/// ... and with so many they are refused. Peers dial again.
const MOST_CLIENTS: usize = 1024;

/// How many messages of membership may wait to be acted on.
const WAITING_GOSSIP: usize = 1_024;

/// What a peer asks of the node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ask {
    /// To host an app, because those who do are busy.
    Host {
        /// Which.
        app: Arc<str>,
        /// Who asks.
        peer: NodeId,
    },
    /// To give all its calls to others, or to take them again.
    Drain {
        /// Whether to drain.
        on: bool,
        /// Who asks.
        peer: NodeId,
    },
}

/// A running node of a mesh. Dropped, it ends without a word; [`Mesh::leave`] says goodbye.
#[derive(Debug)]
pub struct Mesh {
    handle: Handle,
    asks: Option<mpsc::Receiver<Ask>>,
    thread: Option<JoinHandle<()>>,
    /// Closed when the thread has ended.
    alive: watch::Receiver<()>,
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
        Self::start_unless(future::pending(), config, profile, local)
    }

    /// The same; joining, which waits for the network, is given up when `given_up` resolves.
    ///
    /// # Errors
    /// The same.
    pub fn start_unless<L: Invoke + Clone>(
        given_up: impl Future<Output = ()> + Send + 'static,
        config: Config,
        profile: Profile,
        local: impl FnOnce() -> L + Send + 'static,
    ) -> Result<Self, StartError> {
        let (started, start) = std_mpsc::channel();
        let (life, alive) = watch::channel(());
        let thread = thread::Builder::new().name("fnmesh-mesh".to_owned()).spawn(move || {
            // Dropped last, also by a panic.
            let _life = life;
            let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
                Ok(runtime) => runtime,
                Err(error) => return drop(started.send(Err(error.into()))),
            };
            LocalSet::new().block_on(&runtime, run(given_up, config, profile, local, started));
        })?;
        match start.recv() {
            Ok(Ok((handle, asks))) => Ok(Self { handle, asks: Some(asks), thread: Some(thread), alive }),
            Ok(Err(error)) => Err(error),
            Err(_) => Err(io::Error::other("it panicked; the log says why").into()),
        }
    }

    /// Talks to it.
    pub fn handle(&self) -> &Handle {
        &self.handle
    }

    /// What peers ask of the node from now on; `None` the second time.
    pub fn asks(&mut self) -> Option<mpsc::Receiver<Ask>> {
        self.asks.take()
    }

    /// Waits until its thread has ended, which it does by itself only where it is at fault. A panic was printed then, and
    /// the node knows no more who is in the mesh.
    pub fn ended(&self) -> impl Future<Output = ()> + use<> {
        let mut alive = self.alive.clone();
        // Nothing is ever sent.
        async move { drop(alive.changed().await) }
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

/// The life of the thread.
async fn run<L: Invoke + Clone>(
    given_up: impl Future<Output = ()>,
    config: Config,
    profile: Profile,
    local: impl FnOnce() -> L,
    started: std_mpsc::Sender<Result<(Handle, mpsc::Receiver<Ask>), StartError>>,
) {
    let Opened { endpoint, identity, peers, is_founder } = match open(&config, given_up).await {
        Ok(opened) => opened,
        Err(error) => return drop(started.send(Err(error))),
    };
    let Stores { tokens, denied, deployments, bundles } = match Stores::open(&config.directory) {
        Ok(stores) => stores,
        Err(error) => return drop(started.send(Err(error))),
    };
    let bound = endpoint.local_addr().unwrap_or(config.address);
    let towards = config.join.iter().map(|join| join.address).chain(peers.iter().map(|peer| peer.address));
    let address = address::first(&config, bound, towards);
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
    let (asks, asked) = mpsc::channel(WAITING_ASKS);
    let mut calls = identity.call_config();
    calls.transport_config(quic::transport(config.congestion));
    let own_links = Setup { local: bound.ip(), dialler: calls };
    let service = Rc::new(Service {
        local: local(),
        membership: Rc::downgrade(&membership),
        identity: identity.clone(),
        denied: denied.clone(),
        deployments: deployments.clone(),
        bundles: bundles.clone(),
        asks,
        inputs: inputs.clone(),
        gossip: Arc::new(Semaphore::new(WAITING_GOSSIP)),
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
    let view = View { members: Arc::default(), changed: watch::Sender::new(()) };
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
            own_links,
            routes,
            view: view.clone(),
            deployments: deployments.clone(),
            bundles,
            is_founder,
        }),
    };
    if started.send(Ok((handle, asked))).is_err() {
        return;
    }
    if address::is_found(&config) {
        let _ = inputs.send(Input::CheckAddress);
    }
    let driver = Driver::new(
        Rc::clone(&membership),
        table,
        Rc::clone(&links),
        inputs,
        (identity.clone(), denied.clone(), deployments),
        view,
        config.directory.clone(),
    );
    let accept = accept_all(&endpoint, &identity, &denied, &tokens, &links, &membership);
    let has_left = tokio::select! {
        has_left = driver.run(actions, inbox) => has_left,
        () = accept => false,
    };
    if has_left {
        links.settle(LAST_ANSWERS, LAST_WORDS).await;
    }
    endpoint.close(transport::GOODBYE, LEFT);
    let _ = timeout(LAST_WORDS, endpoint.wait_idle()).await;
}

/// What a node keeps on disk beside its identity.
struct Stores {
    tokens: Tokens,
    denied: DenyList,
    deployments: Deployments,
    bundles: Bundles,
}

impl Stores {
    fn open(directory: &Path) -> Result<Self, StartError> {
        let bundles = directory.join("bundles");
        Ok(Self {
            tokens: Tokens::load(directory)?,
            denied: DenyList::load(directory)?,
            deployments: Deployments::load(directory)?,
            bundles: Bundles::open(bundles.clone()).map_err(|source| identity::Error::Io {
                action: "create",
                path: bundles,
                source,
            })?,
        })
    }
}

async fn accept_all<L: Invoke + Clone>(
    endpoint: &Endpoint,
    identity: &Identity,
    denied: &DenyList,
    tokens: &Tokens,
    links: &Rc<Links<PeerHandler<L>>>,
    membership: &Rc<RefCell<Membership>>,
) {
    let mut tasks = JoinSet::new();
    while let Some(incoming) = endpoint.accept().await {
        while tasks.try_join_next().is_some() {}
        if tasks.len() >= MOST_CLIENTS {
            incoming.refuse();
            continue;
        }
        if tasks.len() >= CROWD && incoming.may_retry() {
            // It fails only where it may not be asked again.
            let _ = incoming.retry();
            continue;
        }
        let (identity, denied, tokens) = (identity.clone(), denied.clone(), tokens.clone());
        let (links, membership) = (Rc::clone(links), Rc::clone(membership));
        tasks.spawn_local(async move {
            match timeout(HANDSHAKE_TIMEOUT, accept(incoming, &identity, &denied)).await {
                Ok(Ok((connection, Admitted::Peer(peer)))) => links.add(peer, connection),
                Ok(Ok((connection, Admitted::Calls(peer)))) => links.serve_calls(peer, connection),
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
