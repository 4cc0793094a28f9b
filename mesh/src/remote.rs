//! The functions of peers, as one gateway thread calls them.

use std::{
    cell::RefCell,
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use fnmesh_invoke::{Error, Function, FunctionId, Invocation, Invoke, Reply};
use tokio::time::{timeout, timeout_at};

use crate::{
    Handle, NodeId,
    balance::{self, Attempts, Balancer, Choice, Local, Outcome, RetryBudget, may_retry},
    links::OwnLinks,
    membership::Load,
    rpc::{self, Answered, PeerError},
    table::FunctionKey,
};

/// How long a call waits for a node to serve an app that is deployed.
const ROUTE_PATIENCE: Duration = Duration::from_secs(10);
/// Functions of peers that a thread remembers; with more it forgets them all and asks again.
const REMEMBERED: usize = 10_000;

type ContentHash = [u8; 32];

#[derive(Debug)]
pub(crate) struct Remote {
    mesh: Handle,
    links: OwnLinks,
    balancer: RefCell<Balancer>,
    budget: RefCell<RetryBudget>,
    /// What is known of the functions that were called, with the content hash of the version they are of.
    functions: RefCell<HashMap<FunctionId, (ContentHash, Arc<Function>)>>,
}

impl Remote {
    pub(crate) fn new(mesh: Handle) -> Self {
        let balancer = Balancer::new(balance::Config::default(), mesh.node(), mesh.zone(), fastrand::u64(..));
        let budget = RetryBudget::new(Instant::now());
        let links = OwnLinks::new(mesh.clone());
        Self { mesh, links, balancer: balancer.into(), budget: budget.into(), functions: RefCell::default() }
    }

    /// What a peer says of a function; `unknown` where no peer serves it, with names of the whole mesh. `is_here` tells
    /// whether this node serves the app.
    pub(crate) async fn resolve(
        &self,
        app: &str,
        name: &str,
        unknown: Error,
        is_here: impl FnOnce() -> bool,
    ) -> Result<Arc<Function>, Error> {
        let Some(hash) = self.version(app, name) else { return Err(self.nearer(app, name, unknown, is_here())) };
        let id = FunctionId { app: app.into(), name: name.into() };
        if let Some((known, function)) = self.functions.borrow().get(&id)
            && *known == hash
        {
            return Ok(Arc::clone(function));
        }
        let mut attempts = Attempts::default();
        loop {
            let Choice::Peer(peer) = self.choose(&id, Local::Absent, &mut attempts)? else { return Err(unknown) };
            match self.describe(peer, &id).await {
                Ok(function) => {
                    let function = Arc::new(function);
                    let mut functions = self.functions.borrow_mut();
                    if functions.len() >= REMEMBERED {
                        functions.clear();
                    }
                    functions.insert(id, (hash, Arc::clone(&function)));
                    return Ok(function);
                }
                Err(error) => attempts.failed(peer, error),
            }
        }
    }

    /// Runs an invocation at a peer, or at another if that cannot run it twice; on `local`, if that serves it, too, and
    /// no peer is better.
    pub(crate) async fn call<L: Invoke>(&self, local: &L, room: Local, invocation: Invocation) -> Result<Reply, Error> {
        self.budget.borrow_mut().call();
        let mut attempts = Attempts::default();
        loop {
            let peer = match self.choose(&invocation.function.id, room, &mut attempts)? {
                Choice::Peer(peer) => peer,
                Choice::Here => return local.call(invocation).await,
            };
            match self.forward(peer, &invocation).await {
                Err(error) if may_retry(&error, invocation.idempotency_key.is_some()) => attempts.failed(peer, error),
                ended => return ended,
            }
        }
    }

    /// What to try next, or why there is nothing left.
    fn choose(&self, id: &FunctionId, room: Local, attempts: &mut Attempts) -> Result<Choice, Error> {
        let (now, mut budget) = (Instant::now(), self.budget.borrow_mut());
        let choice = attempts.next(&mut budget, room, now, |tried| self.cheapest(id, room, tried, now));
        choice.ok_or_else(|| std::mem::take(attempts).end(id))
    }

    fn cheapest(&self, id: &FunctionId, room: Local, tried: &[NodeId], now: Instant) -> Option<Choice> {
        let table = self.mesh.routes().load();
        let route = table.lookup(&id.app, &id.name)?;
        self.balancer.borrow_mut().choose(route.key, route.version.peers(), room, tried, now)
    }

    /// Waits until somebody serves an app, if it is deployed and nobody does; whether it had to wait.
    pub(crate) async fn route_comes(&self, app: &str) -> Result<bool, Error> {
        // Each call of a peer's function comes here: the routes first, which nearly always have it.
        let is_deployed = || {
            let registry = self.mesh.deployments().snapshot();
            registry.get(app).is_some_and(|deployment| deployment.content.is_some())
        };
        let is_awaited = || self.mesh.routes().load().app(app).is_none() && is_deployed();
        if !is_awaited() {
            return Ok(false);
        }
        let mut news = self.mesh.member_changes();
        let served = async {
            while is_awaited() {
                // The thread of the mesh ends with the node.
                news.changed().await.map_err(|_| Error::Draining)?;
            }
            Ok(true)
        };
        timeout(ROUTE_PATIENCE, served).await.unwrap_or_else(|_| {
            let reason = format!("app {app:?} is deployed, and no node in reach serves it after {ROUTE_PATIENCE:?}");
            Err(Error::Throttled { reason, retry_after: Duration::from_secs(1), rate: false })
        })
    }

    async fn describe(&self, peer: NodeId, id: &FunctionId) -> Result<Function, Error> {
        let unreachable = |reason| Error::PeerUnreachable { peer: peer.to_string(), reason };
        let Some(caller) = self.mesh.callers().get(peer) else { return Err(unreachable(no_link())) };
        rpc::describe(&caller, id.clone()).await.map_err(|error| match error {
            PeerError::Failed(error) => error,
            PeerError::NotSent(reason) | PeerError::Lost(reason) => unreachable(reason),
        })
    }

    async fn forward(&self, peer: NodeId, invocation: &Invocation) -> Result<Reply, Error> {
        let function = &invocation.function;
        let unreachable = |reason| Error::PeerUnreachable { peer: peer.to_string(), reason };
        let mut watch = Watch::start(&self.balancer, &function.id, peer);
        let answer = match timeout_at(invocation.deadline.instant().into(), self.links.invoke(peer, invocation)).await {
            Ok(Ok(Answered { reply, load })) => {
                self.note(function, peer, load);
                Ok(reply)
            }
            // The routes are older than what the peer serves.
            Ok(Err(PeerError::Failed(Error::UnknownFunction { .. }))) => {
                Err(unreachable(format!("it does not serve {} any more", function.id)))
            }
            Ok(Err(PeerError::Failed(error))) => Err(error),
            Ok(Err(PeerError::NotSent(reason))) => Err(unreachable(reason)),
            Ok(Err(PeerError::Lost(reason))) => {
                Err(Error::OutcomeUnknown { function: function.id.clone(), peer: peer.to_string(), reason })
            }
            Err(_) => {
                let timeout = function.limits.timeout;
                Err(Error::DeadlineExceeded { function: function.id.clone(), timeout })
            }
        };
        watch.outcome = answer.as_ref().map_or_else(Outcome::of, |_| Outcome::Answered);
        answer
    }

    /// What a reply says of the peer's load.
    fn note(&self, function: &Function, peer: NodeId, load: Option<Load>) {
        let table = self.mesh.routes().load();
        match load {
            Some(load) => table.report(&function.id.app, peer, load),
            None => table.relieve(&function.id.app, peer),
        }
    }

    /// The content hash of the version that calls go to.
    fn version(&self, app: &str, name: &str) -> Option<ContentHash> {
        self.mesh.routes().load().lookup(app, name).map(|route| *route.version.hash())
    }

    /// The names of the whole mesh that look like the wanted one, in place of those of this node: where the app is
    /// known, those of other apps are of no use.
    fn nearer(&self, app: &str, name: &str, unknown: Error, is_here: bool) -> Error {
        let table = self.mesh.routes().load();
        // Routes to this node's own apps may be missing: it tells nobody of those that do not start.
        let may_differ = !is_here || table.app(app).is_some();
        let everywhere = if may_differ { table.nearest(app, name) } else { Vec::new() };
        match unknown {
            Error::UnknownFunction { function, .. } if !everywhere.is_empty() => {
                Error::UnknownFunction { function, nearest: everywhere }
            }
            other => other,
        }
    }
}

/// Tells the balancer of a call and of its end, however it ends.
struct Watch<'a> {
    balancer: &'a RefCell<Balancer>,
    key: FunctionKey,
    peer: NodeId,
    started: Instant,
    outcome: Outcome,
}

impl<'a> Watch<'a> {
    fn start(balancer: &'a RefCell<Balancer>, id: &FunctionId, peer: NodeId) -> Self {
        let (key, started) = (FunctionKey::new(&id.app, &id.name), Instant::now());
        balancer.borrow_mut().sent(key, peer, started);
        Self { balancer, key, peer, started, outcome: Outcome::Cancelled }
    }
}

impl Drop for Watch<'_> {
    fn drop(&mut self) {
        let now = Instant::now();
        self.balancer.borrow_mut().done(self.key, self.peer, self.outcome, now - self.started, now);
    }
}

fn no_link() -> String {
    "there is no link to it".to_owned()
}
