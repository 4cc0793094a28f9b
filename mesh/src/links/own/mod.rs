//! Links of one thread of this node to the peers it calls: beside the link of the node, so that a call wakes no other
//! thread on its way out and back.
//!
//! Membership and the watch of a peer work on the link of the node. An own link is used only while that one is up, ends
//! with it, and is never waited for: where there is none, calls go over the link of the node.

mod failure;
mod lent;
mod rest;

use std::{
    cell::RefCell,
    collections::HashMap,
    fmt, io,
    net::{IpAddr, SocketAddr},
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use fnmesh_invoke::Invocation;
use quinn::{ClientConfig, ConnectError, Connection, Endpoint, EndpointConfig};
use tokio::{task::JoinSet, time::timeout};

use self::{
    failure::Failure,
    lent::{Lent, Usage},
    rest::Rest,
};
use super::{
    DIAL_TIMEOUT, TWIN_GRACE, has_left, is_goodbye,
    unanswered::{shows_life, unanswered},
};
use crate::{
    Handle, NodeId,
    identity::{Admitted, admit},
    rpc::{self, Answered, PeerError},
    transport::{Caller, GOODBYE, frame::Limits, quic},
};

/// An own link without a call is closed after this long.
const IDLE_AFTER: Duration = Duration::from_secs(60);
/// How long one to a peer that leaves stays without a call. The peer waits for it.
const LAST_CALLS: Duration = Duration::from_millis(10);
/// How many a thread has at most.
const MOST: usize = 64;

/// How threads dial.
#[derive(Clone)]
pub(crate) struct Setup {
    /// Where their sockets are bound, at any port.
    pub(crate) local: IpAddr,
    pub(crate) dialler: ClientConfig,
}

/// How many, how long.
#[derive(Clone, Copy)]
struct Bounds {
    idle_after: Duration,
    /// How long one that is no longer used stays without a call.
    grace: Duration,
    most: usize,
}

/// The own links of a thread. Its tasks run on that thread, within its `LocalSet` or local runtime.
pub(crate) struct OwnLinks {
    inner: Rc<Inner>,
    tasks: RefCell<JoinSet<()>>,
}

struct Inner {
    mesh: Handle,
    bounds: Bounds,
    /// Bound when the first peer is dialled.
    endpoint: RefCell<Option<Endpoint>>,
    peers: RefCell<HashMap<NodeId, State>>,
}

/// What the thread has towards a peer.
enum State {
    Dialling,
    Ready(Ready),
    Resting(Rest),
}

/// A link over which the peer has answered.
struct Ready {
    caller: Caller,
    /// The link of the node it stands beside, which its task holds.
    beside: usize,
    usage: Rc<Usage>,
}

/// A link, and what carries its calls.
struct Link {
    caller: Caller,
    carried: JoinSet<Arc<str>>,
    /// Where the peer was dialled.
    address: SocketAddr,
    usage: Rc<Usage>,
}

/// Why a link is over.
enum End {
    /// The link of the node is, or is that of another life of the peer.
    Beside,
    /// The peer has ended the link of the node, which it does when it leaves: it may still answer here.
    Left,
    /// Nobody used it.
    Idle,
    /// The peer is reached at another address.
    Moved,
    /// It was lost on its own.
    Lost(Failure),
}

impl OwnLinks {
    /// None yet.
    pub(crate) fn new(mesh: Handle) -> Self {
        Self::bounded(mesh, Bounds { idle_after: IDLE_AFTER, grace: TWIN_GRACE, most: MOST })
    }

    fn bounded(mesh: Handle, bounds: Bounds) -> Self {
        let inner = Inner { mesh, bounds, endpoint: RefCell::default(), peers: RefCell::default() };
        Self { inner: Rc::new(inner), tasks: RefCell::default() }
    }

    /// Runs an invocation at a peer, over the own link if there is one. Dropping the future cancels it there.
    ///
    /// # Errors
    /// As of [`rpc::invoke`], and when the node has no link to the peer.
    pub(crate) async fn invoke(&self, peer: NodeId, invocation: &Invocation) -> Result<Answered, PeerError> {
        let no_link = || PeerError::NotSent("there is no link to it".to_owned());
        let link = self.lend(peer).ok_or_else(no_link)?;
        match rpc::invoke(link.caller(), invocation).await {
            Ok(Answered { reply, load }) => Ok(Answered { reply: link.until_read(reply), load }),
            // The link of the node may be better.
            Err(PeerError::NotSent(_)) if link.is_own() => {
                let shared = self.inner.mesh.callers().get(peer).ok_or_else(no_link)?;
                rpc::invoke(&shared, invocation).await
            }
            Err(error) => Err(error),
        }
    }

    /// What a call of this peer uses: the own link, or that of the node while there is none. `None` when the node has
    /// no link to the peer.
    fn lend(&self, peer: NodeId) -> Option<Lent> {
        let shared = self.inner.mesh.callers().get(peer)?;
        let is_wanted = match self.inner.peers.borrow().get(&peer) {
            Some(State::Ready(ready)) if ready.is_beside(&shared) => {
                return Some(Lent::own(ready.caller.clone(), &ready.usage));
            }
            Some(State::Ready(_) | State::Dialling) => false,
            Some(State::Resting(rest)) => rest.is_over(id(&shared), Instant::now()),
            None => true,
        };
        if is_wanted {
            self.dial(peer, shared.clone());
        }
        Some(Lent::shared(shared))
    }

    fn dial(&self, peer: NodeId, shared: Caller) {
        let (beside, now) = (id(&shared), Instant::now());
        let mut peers = self.inner.peers.borrow_mut();
        let last = match peers.remove(&peer) {
            Some(State::Resting(rest)) => Some(rest),
            _ => None,
        };
        // Of peers that were not called again.
        peers.retain(|_, state| !matches!(state, State::Resting(rest) if rest.has_passed(now)));
        let count = peers.values().filter(|state| !matches!(state, State::Resting(_))).count();
        if count >= self.inner.bounds.most {
            peers.insert(peer, State::Resting(Rest::for_room(beside, now)));
            return;
        }
        peers.insert(peer, State::Dialling);
        drop(peers);
        let mut tasks = self.tasks.borrow_mut();
        while tasks.try_join_next().is_some() {}
        tasks.spawn_local(Rc::clone(&self.inner).keep(peer, shared, last));
    }
}

impl Drop for OwnLinks {
    fn drop(&mut self) {
        // The peer hears it only if this thread still runs; else its link to the node ends them.
        if let Some(endpoint) = self.inner.endpoint.take() {
            endpoint.close(GOODBYE, b"the thread that called ends");
        }
    }
}

impl fmt::Debug for OwnLinks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let peers = self.inner.peers.borrow();
        f.debug_struct("OwnLinks").field("peers", &peers.len()).finish_non_exhaustive()
    }
}

impl Inner {
    /// The life of an own link.
    async fn keep(self: Rc<Self>, peer: NodeId, mut shared: Caller, last: Option<Rest>) {
        let silent = |_| Err(Failure::from(format!("no answer within {} s", DIAL_TIMEOUT.as_secs())));
        let mut link = match timeout(DIAL_TIMEOUT, self.connect(peer)).await.unwrap_or_else(silent) {
            Ok(link) => link,
            Err(failure) => return self.rest(peer, &shared, last, &failure),
        };
        tracing::debug!(target: "fnmesh::mesh", %peer, "a thread has a link of its own to this node");
        let end = self.watch(peer, &mut link, &mut shared).await;
        // No call takes it from here on; the task of the next one may begin while this one ends.
        match &end {
            End::Beside | End::Left | End::Idle | End::Moved => drop(self.peers.borrow_mut().remove(&peer)),
            End::Lost(failure) => self.rest(peer, &shared, None, failure),
        }
        let reason = match end {
            End::Idle => "no calls",
            End::Moved => {
                link.finish(self.bounds.grace).await;
                "another link is used"
            }
            End::Left => {
                link.finish(LAST_CALLS).await;
                "the link beside it has ended"
            }
            End::Beside | End::Lost(_) => "the link beside it has ended",
        };
        link.caller.connection().close(GOODBYE, reason.as_bytes());
        // Ends the calls in flight.
        link.carried.join_next().await;
    }

    /// Waits until a link is over, which calls may use meanwhile.
    async fn watch(&self, peer: NodeId, link: &mut Link, shared: &mut Caller) -> End {
        loop {
            let ready = Ready { caller: link.caller.clone(), beside: id(shared), usage: Rc::clone(&link.usage) };
            self.peers.borrow_mut().insert(peer, State::Ready(ready));
            tokio::select! {
                biased;
                _ = shared.connection().closed() => match self.successor(peer, shared.connection()) {
                    Some(next) => *shared = next,
                    None if has_left(shared.connection()) => return End::Left,
                    None => return End::Beside,
                },
                ended = link.carried.join_next() => {
                    let reason = ended.and_then(Result::ok).map_or_else(String::new, |reason| reason.to_string());
                    return End::Lost(reason.into());
                }
                reason = unanswered(&link.caller) => {
                    // Where the peer is dead, a second call of the same client had better not be lost to it before the
                    // node sees that, too.
                    if !shows_life(shared).await {
                        shared.connection().close(GOODBYE, reason.as_bytes());
                        return End::Beside;
                    }
                    return End::Lost(reason.to_string().into());
                }
                () = self.moved(peer, link.address) => return End::Moved,
                () = link.usage.idle(self.bounds.idle_after) => return End::Idle,
            }
        }
    }

    /// Waits until the peer is reached at another address. What is sent to the old one may be lost, which the link
    /// itself would notice seconds later.
    async fn moved(&self, peer: NodeId, from: SocketAddr) {
        let mut news = self.mesh.member_changes();
        while self.address(peer).is_none_or(|now| now == from) {
            if news.changed().await.is_err() {
                // The mesh ends, and with it the link beside this one.
                return std::future::pending().await;
            }
        }
    }

    fn address(&self, peer: NodeId) -> Option<SocketAddr> {
        self.mesh.members().iter().find(|member| member.node == peer).map(|member| member.address)
    }

    /// The link that the node uses instead of one that has ended, if the peer is still alive behind it: one of twins
    /// is closed for no fault.
    fn successor(&self, peer: NodeId, ended: &Connection) -> Option<Caller> {
        let next = self.mesh.callers().get(peer)?;
        let is_other = id(&next) != ended.stable_id() && next.connection().close_reason().is_none();
        (is_other && is_goodbye(ended)).then_some(next)
    }

    async fn connect(&self, peer: NodeId) -> Result<Link, Failure> {
        let address = self.address(peer).ok_or_else(|| Failure::from("its address is not known".to_owned()))?;
        let dialler = self.mesh.own_links().dialler.clone();
        let connecting = self.endpoint()?.connect_with(dialler, address, &peer.to_string()).map_err(|error| {
            if error == ConnectError::EndpointStopping {
                *self.endpoint.borrow_mut() = None;
            }
            Failure::from(error.to_string())
        })?;
        let connection = connecting.await.map_err(|error| Failure::of(&error))?;
        match admit(&connection, self.mesh.identity(), &self.mesh.started.denied) {
            Ok(Admitted::Calls(_)) => {}
            Ok(_) => return Err("another protocol was agreed on".to_owned().into()),
            Err(refusal) => {
                refusal.close(&connection);
                return Err(refusal.to_string().into());
            }
        }
        let (caller, run) = Caller::new(connection.clone(), Limits::default());
        let mut carried = JoinSet::new();
        carried.spawn(run);
        // Who refuses this side does so after the handshake: no call must be lost by that.
        match rpc::ping(&caller).await {
            Ok(()) => Ok(Link { caller, carried, address, usage: Rc::default() }),
            Err(error) => {
                connection.close(GOODBYE, b"not needed");
                Err(format!("{error:?}").into())
            }
        }
    }

    fn endpoint(&self) -> Result<Endpoint, Failure> {
        if let Some(endpoint) = &*self.endpoint.borrow() {
            return Ok(endpoint.clone());
        }
        let address = SocketAddr::new(self.mesh.own_links().local, 0);
        let refused = |error: io::Error| Failure::from(format!("cannot bind {address} (UDP): {error}"));
        let endpoint = quic::bind(address, EndpointConfig::default(), None).map_err(refused)?;
        Ok(self.endpoint.borrow_mut().insert(endpoint).clone())
    }

    /// Leaves the peer alone for a while.
    fn rest(&self, peer: NodeId, shared: &Caller, last: Option<Rest>, failure: &Failure) {
        let rest = Rest::after(last, id(shared), failure.is_unknown, Instant::now());
        tracing::debug!(target: "fnmesh::mesh", %peer, reason = failure.reason, "no link of a thread's own to this node");
        self.peers.borrow_mut().insert(peer, State::Resting(rest));
    }
}

impl Link {
    /// Waits until its last calls have ended, or cannot be answered any more.
    async fn finish(&mut self, grace: Duration) {
        tokio::select! {
            _ = self.carried.join_next() => {}
            _ = unanswered(&self.caller) => {}
            () = self.usage.idle(grace) => {}
        }
    }
}

impl Ready {
    fn is_beside(&self, shared: &Caller) -> bool {
        self.beside == id(shared) && self.caller.connection().close_reason().is_none()
    }
}

fn id(caller: &Caller) -> usize {
    caller.connection().stable_id()
}

#[cfg(test)]
mod tests;
