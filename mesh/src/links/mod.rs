//! The links of a node: dialled when they are wanted, accepted when peers dial, one used for each peer. Beside it a
//! thread may have a link of its own to a peer ([`OwnLinks`]), which the peer only serves.

mod callers;
mod leaving;
mod own;
mod served;
mod unanswered;

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    net::SocketAddr,
    pin::pin,
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use quinn::{ClientConfig, Connection, ConnectionError, Endpoint, Side};
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{sleep, timeout},
};

pub(crate) use callers::Callers;
pub(crate) use leaving::LEFT;
pub(crate) use own::{OwnLinks, Setup};
pub(crate) use unanswered::shows_life;

use self::{served::Served, unanswered::unanswered};
use crate::{
    NodeId,
    identity::{Admitted, DenyList, Identity, Refusal, admit, told},
    rpc::{BothWays, GOSSIP, OnlyCalls},
    transport::{Caller, GOODBYE, Handler, Work, frame::Limits, serve_counted},
};

/// How long a dialled peer has to answer: a closed port says nothing.
const DIAL_TIMEOUT: Duration = Duration::from_secs(2);
/// Messages kept for a peer that is being dialled; membership sends new ones soon.
const KEPT_MESSAGES: usize = 16;
/// How long a link that lost against its twin stays, so that requests sent before the other side knew are answered.
const TWIN_GRACE: Duration = Duration::from_secs(5);

/// What happens to links.
#[derive(Clone, Debug)]
pub(crate) enum Change {
    /// The first link to this peer is up.
    Up(NodeId),
    /// No link to this peer is left, or it could not be dialled.
    Lost(NodeId, Arc<str>),
    /// The same, and one of the two sides wanted it so.
    Closed(NodeId),
}

/// All links of a node, owned by the thread of the mesh.
pub(crate) struct Links<H> {
    identity: Identity,
    denied: DenyList,
    endpoint: Endpoint,
    dialler: ClientConfig,
    handler: Box<dyn Fn(NodeId) -> H>,
    callers: Callers,
    /// What threads of peers have dialled for their calls.
    served: Served,
    /// What peers have asked for on any link.
    work: Rc<Work>,
    /// Whether this node leaves: what threads of peers have dialled then outlives the links of their nodes.
    is_leaving: Rc<Cell<bool>>,
    dialling: RefCell<HashMap<NodeId, Dial>>,
    tell: Box<dyn Fn(Change)>,
    tasks: RefCell<JoinSet<()>>,
}

/// A peer that is being dialled.
struct Dial {
    kept: Vec<Bytes>,
    ended: watch::Receiver<()>,
}

impl<H: Handler> Links<H> {
    /// No links yet. `handler` makes what answers the requests of a peer; what happens is told to `tell`.
    pub(crate) fn new(
        identity: Identity,
        denied: DenyList,
        endpoint: Endpoint,
        dialler: ClientConfig,
        handler: impl Fn(NodeId) -> H + 'static,
        tell: impl Fn(Change) + 'static,
    ) -> Rc<Self> {
        Rc::new(Self {
            identity,
            denied,
            endpoint,
            dialler,
            handler: Box::new(handler),
            callers: Callers::default(),
            served: Served::default(),
            work: Rc::default(),
            is_leaving: Rc::default(),
            dialling: RefCell::default(),
            tell: Box::new(tell),
            tasks: RefCell::default(),
        })
    }

    pub(crate) fn callers(&self) -> &Callers {
        &self.callers
    }

    /// Sends a message of membership, at most once; dials the peer if there is no link.
    pub(crate) fn gossip(self: &Rc<Self>, to: NodeId, address: SocketAddr, bytes: Bytes) {
        if let Some(caller) = self.callers.get(to) {
            return caller.notify(GOSSIP, &(), &bytes);
        }
        self.dial(to, address);
        if let Some(dial) = self.dialling.borrow_mut().get_mut(&to)
            && dial.kept.len() < KEPT_MESSAGES
        {
            dial.kept.push(bytes);
        }
    }

    /// The link to a peer, dialled if there is none; `None` if it cannot be had.
    pub(crate) async fn link(self: &Rc<Self>, to: NodeId, address: SocketAddr) -> Option<Caller> {
        if let Some(caller) = self.callers.get(to) {
            return Some(caller);
        }
        self.dial(to, address);
        let ended = self.dialling.borrow().get(&to).map(|dial| dial.ended.clone());
        // The sender is only dropped: the error says that the attempt has ended.
        let _ = ended?.changed().await;
        self.callers.get(to)
    }

    /// Dials a peer, unless there is a link or an attempt already.
    pub(crate) fn dial(self: &Rc<Self>, to: NodeId, address: SocketAddr) {
        if self.callers.get(to).is_none() {
            self.dial_anew(to, address);
        }
    }

    /// Follows a peer to another address. A link that the peer has dialled comes along by itself.
    pub(crate) fn follow(self: &Rc<Self>, peer: NodeId, address: SocketAddr) {
        let used = self.callers.get(peer);
        let is_left_behind = |link: &Connection| link.side() == Side::Client && link.remote_address() != address;
        if used.is_some_and(|used| is_left_behind(used.connection())) {
            self.dial_anew(peer, address);
        }
    }

    /// Dials a peer whether or not there is a link, unless there is an attempt already.
    fn dial_anew(self: &Rc<Self>, to: NodeId, address: SocketAddr) {
        if self.dialling.borrow().contains_key(&to) {
            return;
        }
        let (end, ended) = watch::channel(());
        self.dialling.borrow_mut().insert(to, Dial { kept: Vec::new(), ended });
        let links = Rc::clone(self);
        self.spawn(async move {
            let connection = links.connect(to, address).await;
            let kept = links.dialling.borrow_mut().remove(&to).map(|dial| dial.kept).unwrap_or_default();
            match connection {
                Ok(connection) => {
                    links.add(to, connection);
                    if let Some(caller) = links.callers.get(to) {
                        kept.iter().for_each(|bytes| caller.notify(GOSSIP, &(), bytes));
                    }
                }
                // There is a link, and it will do: the peer has dialled meanwhile, or may still be reached by the old
                // one.
                Err(_) if links.callers.get(to).is_some() => {}
                Err(reason) => (links.tell)(Change::Lost(to, reason.into())),
            }
            drop(end);
        });
    }

    async fn connect(&self, to: NodeId, address: SocketAddr) -> Result<Connection, String> {
        let attempt = async {
            let connecting = self
                .endpoint
                .connect_with(self.dialler.clone(), address, &to.to_string())
                .map_err(|error| error.to_string())?;
            let connection = connecting.await.map_err(|error| told(&error).unwrap_or_else(|| error.to_string()))?;
            match admit(&connection, &self.identity, &self.denied) {
                Ok(Admitted::Peer(_)) => Ok(connection),
                Ok(Admitted::Calls(_) | Admitted::Joiner) => Err("another protocol was agreed on".to_owned()),
                Err(refusal) => {
                    refusal.close(&connection);
                    Err(refusal.to_string())
                }
            }
        };
        let silent = |_| Err(format!("no answer within {} s", DIAL_TIMEOUT.as_secs()));
        timeout(DIAL_TIMEOUT, attempt).await.unwrap_or_else(silent)
    }

    /// Takes an authenticated connection: serves the peer's requests, and uses it for calls unless its twin is better.
    pub(crate) fn add(self: &Rc<Self>, peer: NodeId, connection: Connection) {
        let (caller, run) = Caller::new(connection.clone(), Limits::default());
        let (handler, is_leaving) = ((self.handler)(peer), Rc::clone(&self.is_leaving));
        let handler = Rc::new(BothWays { handler, caller: caller.clone(), is_leaving });
        let serving = serve_counted(connection.clone(), handler, Limits::default(), Rc::clone(&self.work));
        let replaced = self.callers.get(peer);
        let is_better = replaced.as_ref().is_none_or(|old| self.prefers(peer, &connection, old.connection()));
        if is_better {
            self.callers.change(|callers| drop(callers.insert(peer, caller.clone())));
        }
        match replaced {
            None => (self.tell)(Change::Up(peer)),
            Some(old) => self.retire(if is_better { old } else { caller.clone() }),
        }
        let links = Rc::clone(self);
        self.spawn(async move {
            let mut run = pin!(run);
            let change = tokio::select! {
                // Both end with the connection; the caller must, so that no call is left behind.
                reason = &mut run => if is_goodbye(&connection) { Change::Closed(peer) } else { Change::Lost(peer, reason) },
                change = async { drop(serving.await); std::future::pending().await } => change,
                reason = unanswered(&caller) => {
                    connection.close(GOODBYE, reason.as_bytes());
                    run.await;
                    Change::Lost(peer, reason)
                }
            };
            let is_used = |used: Caller| used.connection().stable_id() == connection.stable_id();
            if links.callers.get(peer).is_some_and(is_used) {
                links.callers.change(|callers| drop(callers.remove(&peer)));
                if !links.is_leaving.get() {
                    links.served.close(peer, GOODBYE, "the link beside it has ended");
                }
                (links.tell)(change);
            }
        });
    }

    /// Takes an authenticated connection over which the peer calls, and this node does not.
    pub(crate) fn serve_calls(self: &Rc<Self>, peer: NodeId, connection: Connection) {
        if !self.served.add(peer, &connection) {
            return connection.close(GOODBYE, b"this node has too many connections for calls only");
        }
        let handler = Rc::new(OnlyCalls((self.handler)(peer)));
        let links = Rc::clone(self);
        self.spawn(async move {
            drop(serve_counted(connection.clone(), handler, Limits::default(), Rc::clone(&links.work)).await);
            links.served.remove(peer, &connection);
        });
    }

    /// Whether `new` is to be used and not `old`; both ends come to the same choice. Twins arise when both dial at
    /// once: the link that the smaller id dialled is kept. Of two that one side dialled, the second is alive.
    fn prefers(&self, peer: NodeId, new: &Connection, old: &Connection) -> bool {
        let dialled_by_smaller =
            |connection: &Connection| (connection.side() == Side::Client) == (self.identity.id() < peer);
        new.side() == old.side() || dialled_by_smaller(new) || old.close_reason().is_some()
    }

    /// Closes a link that is no longer used, once its calls have ended.
    fn retire(self: &Rc<Self>, caller: Caller) {
        self.spawn(async move {
            sleep(TWIN_GRACE).await;
            while caller.in_flight() > 0 && caller.connection().close_reason().is_none() {
                sleep(TWIN_GRACE).await;
            }
            if caller.connection().side() == Side::Client {
                caller.connection().close(GOODBYE, b"another link is used");
            }
        });
    }

    /// Closes the links to a node that is no longer of the mesh.
    pub(crate) fn exclude(&self, peer: NodeId) {
        let refusal = Refusal::Denied(peer);
        self.served.close(peer, refusal.code(), &refusal.to_string());
        if let Some(caller) = self.callers.get(peer) {
            refusal.close(caller.connection());
        }
    }

    /// Closes the links to a peer that is taken for dead.
    pub(crate) fn close(&self, peer: NodeId, reason: &str) {
        self.served.close(peer, GOODBYE, reason);
        if let Some(caller) = self.callers.get(peer) {
            caller.connection().close(GOODBYE, reason.as_bytes());
        }
    }

    fn spawn(&self, task: impl Future<Output = ()> + 'static) {
        let mut tasks = self.tasks.borrow_mut();
        while tasks.try_join_next().is_some() {}
        tasks.spawn_local(task);
    }
}

/// Whether a connection was closed for no fault of either side.
fn is_goodbye(connection: &Connection) -> bool {
    has_left(connection) || matches!(connection.close_reason(), Some(ConnectionError::LocallyClosed))
}

/// The same, by the peer.
fn has_left(connection: &Connection) -> bool {
    match connection.close_reason() {
        Some(ConnectionError::ApplicationClosed(close)) => close.error_code == GOODBYE,
        _ => false,
    }
}
