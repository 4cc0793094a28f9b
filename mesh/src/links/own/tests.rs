use std::{cell::Cell, net::Ipv4Addr, path::Path, pin::Pin, sync::Mutex, time::SystemTime};

use bytes::Bytes;
use fnmesh_invoke::{
    AppStatus, Deadline, Error, Format, Function, FunctionId, Invocation, InvocationId, Invoke, Payload, Reply,
    ReplyBody,
};
use tokio::{
    task::{LocalSet, spawn_local},
    time::sleep,
};

use super::*;
use crate::{
    Config, Join, Mesh,
    driver::Input,
    handle::Started,
    identity::TokenOptions,
    membership::{self, Event, Profile},
    transport::quic::Congestion,
};

/// Never says what `shop/slow` is, and does nothing at all while `shop/stopped` is asked for and [`STOP`] is held.
struct Local;

static STOP: Mutex<()> = Mutex::new(());

impl Invoke for Local {
    async fn resolve(&self, app: &str, name: &str) -> Result<Arc<Function>, Error> {
        if name == "slow" {
            std::future::pending::<()>().await;
        }
        if name == "stopped" {
            drop(STOP.lock());
        }
        Err(Error::UnknownFunction { function: format!("{app}/{name}"), nearest: Vec::new() })
    }

    async fn call(&self, _: Invocation) -> Result<Reply, Error> {
        Err(Error::internal("nothing is served here"))
    }

    fn apps(&self) -> Vec<AppStatus> {
        Vec::new()
    }
}

fn start(directory: &Path, name: &str, join: Option<Join>) -> Mesh {
    let config = Config {
        // All of 127.0.0.0/8 leads there.
        address: (Ipv4Addr::UNSPECIFIED, 0).into(),
        advertise: Some((Ipv4Addr::LOCALHOST, 0).into()),
        name: name.to_owned(),
        zone: String::new(),
        directory: directory.join(name),
        join,
        congestion: Congestion::Cubic,
        // What is seen of a peer is seen on its links.
        membership: membership::Config { suspicion: Duration::from_secs(60), ..membership::Config::default() },
    };
    Mesh::start(config, Profile::default(), || Rc::new(Local)).unwrap()
}

fn joined(directory: &Path, name: &str, member: &Mesh) -> Mesh {
    let handle = member.handle();
    let authority = handle.identity().authority().unwrap();
    let token = handle.tokens().create(authority, TokenOptions::default(), SystemTime::now()).unwrap();
    start(directory, name, Some(Join { address: handle.address(), token: Some(token) }))
}

/// Two nodes, and the own links of a thread of the first one.
struct Pair {
    first: Mesh,
    second: Mesh,
    links: OwnLinks,
    directory: tempfile::TempDir,
}

impl Pair {
    /// With the link of the nodes up.
    async fn new(bounds: Bounds) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let first = start(directory.path(), "first", None);
        let second = joined(directory.path(), "second", &first);
        let links = OwnLinks::bounded(first.handle().clone(), bounds);
        let pair = Self { first, second, links, directory };
        for (node, other) in [(&pair.first, &pair.second), (&pair.second, &pair.first)] {
            let handle = node.handle();
            let is_known = || handle.members().iter().any(|member| member.node == id_of(other) && member.is_reachable);
            until(|| handle.callers().get(id_of(other)).is_some() && is_known(), "a link").await;
        }
        pair
    }

    /// The own link to the second node, once it is there.
    async fn own(&self) -> Lent {
        let peer = id_of(&self.second);
        until(|| self.links.lend(peer).is_some_and(|lent| lent.is_own()), "an own link").await;
        self.links.lend(peer).unwrap()
    }

    fn shared(&self) -> Caller {
        self.first.handle().callers().get(id_of(&self.second)).unwrap()
    }
}

const BOUNDS: Bounds = Bounds { idle_after: IDLE_AFTER, grace: TWIN_GRACE, most: MOST };

/// Has a node tell that it is reached at another address from now on.
fn move_to(node: &Mesh, ip: Ipv4Addr) -> SocketAddr {
    let handle = node.handle();
    let address = SocketAddr::new(ip.into(), handle.address().port());
    handle.inputs.send(Input::Event(Event::Moved(address))).unwrap();
    address
}

fn id_of(node: &Mesh) -> NodeId {
    node.handle().node()
}

async fn until(is_so: impl Fn() -> bool, what: &str) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !is_so() {
        assert!(Instant::now() < deadline, "waited in vain: {what}");
        sleep(Duration::from_millis(5)).await;
    }
}

fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    LocalSet::new().block_on(&runtime, test);
}

fn describe(lent: &Lent, name: &str) -> tokio::task::JoinHandle<Result<Function, PeerError>> {
    let (caller, id) = (lent.caller().clone(), FunctionId { app: "shop".into(), name: name.into() });
    spawn_local(async move { rpc::describe(&caller, id).await })
}

/// A request that the second node does not answer, under way.
async fn unanswered_call(lent: &Lent) -> tokio::task::JoinHandle<Result<Function, PeerError>> {
    let call = describe(lent, "slow");
    // The answer to what came after it on the same stream: it has arrived.
    tokio::task::yield_now().await;
    rpc::ping(lent.caller()).await.unwrap();
    assert!(!call.is_finished());
    call
}

#[test]
fn own_link_is_dialled_at_the_first_call_and_then_used() {
    run(async {
        let pair = Pair::new(BOUNDS).await;
        let before = id(&pair.second.handle().callers().get(id_of(&pair.first)).unwrap());
        let first = pair.links.lend(id_of(&pair.second)).unwrap();
        assert!(!first.is_own() && id(first.caller()) == id(&pair.shared()));
        let own = pair.own().await;
        assert_ne!(id(own.caller()), id(&pair.shared()));
        let function = FunctionId { app: "shop".into(), name: "add".into() };
        let answer = rpc::describe(own.caller(), function).await;
        assert!(matches!(answer, Err(PeerError::Failed(Error::UnknownFunction { .. }))), "{answer:?}");
        // It is no twin of the link of the nodes, and serves nothing of the mesh.
        assert_eq!(id(&pair.second.handle().callers().get(id_of(&pair.first)).unwrap()), before);
        let refused = format!("{:?}", rpc::snapshot(own.caller(), false).await.map(|_| ()));
        assert!(refused.contains("no method \\\"snapshot\\\" on this connection"), "{refused}");
    });
}

#[test]
fn peer_that_knows_no_own_links_is_called_over_the_link_of_the_node() {
    run(async {
        let mut pair = Pair::new(BOUNDS).await;
        let Handle { inputs, started } = pair.first.handle().clone();
        let own_links =
            Setup { local: Ipv4Addr::LOCALHOST.into(), dialler: started.identity.client_config_for(b"fnmesh-call/0") };
        let started = Started { own_links, ..Started::clone(&started) };
        pair.links = OwnLinks::new(Handle { inputs, started: Arc::new(started) });
        let peer = id_of(&pair.second);
        pair.links.lend(peer).unwrap();
        let resting = |links: &OwnLinks| match links.inner.peers.borrow().get(&peer) {
            Some(State::Resting(rest)) => Some(*rest),
            _ => None,
        };
        until(|| resting(&pair.links).is_some(), "a refusal").await;
        let rest = resting(&pair.links).unwrap();
        let (beside, soon) = (id(&pair.shared()), Instant::now() + Duration::from_secs(300));
        assert!(!rest.is_over(beside, soon), "{rest:?}");
        let lent = pair.links.lend(peer).unwrap();
        assert!(!lent.is_own() && rpc::ping(lent.caller()).await.is_ok());
    });
}

#[test]
fn own_link_ends_with_the_link_of_the_node() {
    run(async {
        let pair = Pair::new(BOUNDS).await;
        let own = pair.own().await;
        let call = unanswered_call(&own).await;
        pair.shared().connection().close(GOODBYE, b"test");
        let ended = call.await.unwrap();
        assert!(matches!(ended, Err(PeerError::Lost(_))), "{ended:?}");
        assert!(own.caller().connection().close_reason().is_some());
        // Both come back.
        let again = pair.own().await;
        assert!(rpc::ping(again.caller()).await.is_ok());
        assert_ne!(id(again.caller()), id(own.caller()));
    });
}

/// Else who calls again would lose a second call to it, until that is seen on the link of the node as well.
#[test]
fn own_link_to_a_peer_that_is_dead_ends_with_the_link_of_the_node() {
    run(async {
        let pair = Pair::new(BOUNDS).await;
        // Then the own link is the first that is seen to be dead.
        sleep(Duration::from_millis(500)).await;
        let own = pair.own().await;
        sleep(Duration::from_millis(700)).await;
        let (shared, stopped) = (pair.shared(), STOP.lock());
        let ended = describe(&own, "stopped").await.unwrap();
        drop(stopped);
        assert!(matches!(ended, Err(PeerError::Lost(_))), "{ended:?}");
        assert!(shared.connection().close_reason().is_some());
    });
}

/// A call may be on its way there, or its answer back, when the link of the node has ended already.
#[test]
fn own_link_to_a_node_that_leaves_ends_after_its_last_call() {
    run(async {
        let Pair { first, second, links, directory: _directory } = Pair::new(BOUNDS).await;
        let peer = id_of(&second);
        until(|| links.lend(peer).is_some_and(|lent| lent.is_own()), "an own link").await;
        let own = links.lend(peer).unwrap();
        let leaving = tokio::task::spawn_blocking(move || second.leave());
        until(|| first.handle().callers().get(peer).is_none(), "the end of the link of the nodes").await;
        assert!(links.lend(peer).is_none(), "no other call begins");
        let function = FunctionId { app: "shop".into(), name: "add".into() };
        let answer = rpc::describe(own.caller(), function).await;
        assert!(matches!(answer, Err(PeerError::Failed(Error::UnknownFunction { .. }))), "{answer:?}");
        drop(own);
        leaving.await.unwrap();
    });
}

/// Whenever a call comes, it is answered, or was never sent: then it may be made elsewhere.
#[test]
fn no_call_is_lost_on_the_link_of_a_node_that_leaves() {
    run(async {
        let Pair { first, second, .. } = Pair::new(BOUNDS).await;
        let shared = first.handle().callers().get(id_of(&second)).unwrap();
        let answered = Rc::new(Cell::new(0));
        let mut callers = JoinSet::new();
        for _ in 0..8 {
            let (shared, answered) = (shared.clone(), Rc::clone(&answered));
            callers.spawn_local(async move {
                loop {
                    let function = FunctionId { app: "shop".into(), name: "add".into() };
                    match rpc::describe(&shared, function).await {
                        Err(PeerError::Failed(Error::UnknownFunction { .. })) => answered.set(answered.get() + 1),
                        ended => break ended.unwrap_err(),
                    }
                }
            });
        }
        until(|| answered.get() > 100, "calls").await;
        let leaving = tokio::task::spawn_blocking(move || second.leave());
        for ended in callers.join_all().await {
            assert!(matches!(ended, PeerError::NotSent(_)), "{ended:?}");
        }
        leaving.await.unwrap();
    });
}

#[test]
fn own_link_ends_when_either_node_removes_the_other() {
    for removed_by_callee in [true, false] {
        run(async {
            let pair = Pair::new(BOUNDS).await;
            let own = pair.own().await;
            let call = unanswered_call(&own).await;
            let (by, removed) =
                if removed_by_callee { (&pair.second, &pair.first) } else { (&pair.first, &pair.second) };
            assert!(by.handle().remove(id_of(removed)).unwrap());
            let ended = call.await.unwrap();
            assert!(matches!(ended, Err(PeerError::Lost(_))), "{ended:?}");
            until(|| pair.links.lend(id_of(&pair.second)).is_none(), "no link").await;
            assert!(own.caller().connection().close_reason().is_some());
            let dialled = pair.links.inner.connect(id_of(&pair.second)).await.err().unwrap().reason;
            assert!(dialled.contains("was removed from this mesh"), "{dialled}");
        });
    }
}

#[test]
fn own_link_to_where_a_peer_was_takes_no_more_calls_and_ends_those_it_has() {
    run(async {
        let pair = Pair::new(Bounds { grace: Duration::from_millis(50), ..BOUNDS }).await;
        let own = pair.own().await;
        let call = unanswered_call(&own).await;
        let (old, connection) = (id(own.caller()), own.caller().connection().clone());
        let there = move_to(&pair.second, Ipv4Addr::new(127, 0, 0, 2));
        let lent = || pair.links.lend(id_of(&pair.second)).unwrap();
        until(|| id(lent().caller()) != old, "another link").await;
        until(|| lent().is_own() && lent().caller().connection().remote_address() == there, "an own link there").await;
        sleep(Duration::from_millis(200)).await;
        assert!(connection.close_reason().is_none() && !call.is_finished(), "the peer may still answer");
        drop(own);
        connection.closed().await;
        assert!(matches!(call.await.unwrap(), Err(PeerError::Lost(_))));
        assert!(rpc::ping(lent().caller()).await.is_ok());
    });
}

#[test]
fn link_of_the_node_follows_a_peer_it_has_dialled() {
    run(async {
        let pair = Pair::new(BOUNDS).await;
        let (dialled, dialler) = (&pair.first, &pair.second);
        let used = || dialler.handle().callers().get(id_of(dialled)).unwrap();
        let old = used();
        assert_eq!(old.connection().side(), quinn::Side::Client, "who joins dials");
        let call = unanswered_call(&Lent::shared(old.clone())).await;
        let there = move_to(dialled, Ipv4Addr::new(127, 0, 0, 2));
        until(|| used().connection().remote_address() == there, "a link there").await;
        assert!(rpc::ping(&used()).await.is_ok());
        assert!(old.connection().close_reason().is_none() && !call.is_finished(), "the peer may still answer");
    });
}

#[test]
fn own_link_stays_when_a_twin_takes_over() {
    run(async {
        let pair = Pair::new(BOUNDS).await;
        let own = id(pair.own().await.caller());
        let old = pair.shared();
        // Once more by the side that has dialled: the node takes the new one.
        let (dialler, dialled) = match old.connection().side() {
            quinn::Side::Client => (&pair.first, &pair.second),
            quinn::Side::Server => (&pair.second, &pair.first),
        };
        assert_eq!(id_of(dialler), id_of(&pair.second), "who joins dials");
        let endpoint = Endpoint::client((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
        let config = dialler.handle().identity().client_config();
        let name = id_of(dialled).to_string();
        let twin = endpoint.connect_with(config, dialled.handle().address(), &name).unwrap().await.unwrap();
        until(|| id(&pair.shared()) != id(&old), "another link").await;
        let peer = id_of(&pair.second);
        assert!(!pair.links.lend(peer).unwrap().is_own());
        assert!(pair.links.inner.successor(peer, old.connection()).is_none(), "it is not over yet");
        old.connection().close(GOODBYE, b"another link is used");
        // The other node knows nothing of the new link, and closes the own one soon: here it is seen before that.
        let beside = || match pair.links.inner.peers.borrow().get(&peer) {
            Some(State::Ready(ready)) => Some((id(&ready.caller), ready.beside)),
            _ => None,
        };
        for _ in 0..100 {
            tokio::task::yield_now().await;
            if beside().is_none_or(|(_, beside)| beside != id(&old)) {
                break;
            }
        }
        assert_eq!(beside(), Some((own, id(&pair.shared()))));
        assert!(twin.close_reason().is_none());
    });
}

#[test]
fn call_that_an_own_link_did_not_send_goes_over_the_link_of_the_node() {
    run(async {
        let pair = Pair::new(BOUNDS).await;
        let (peer, own) = (id_of(&pair.second), pair.own().await);
        // Nobody carries its calls.
        let (dead, _) = Caller::new(own.caller().connection().clone(), Limits::default());
        match pair.links.inner.peers.borrow_mut().get_mut(&peer) {
            Some(State::Ready(ready)) => ready.caller = dead.clone(),
            _ => panic!("no own link"),
        }
        let lent = pair.links.lend(peer).unwrap();
        assert!(lent.is_own() && matches!(rpc::ping(&dead).await, Err(PeerError::NotSent(_))));
        let answer = pair.links.invoke(peer, &invocation()).await;
        assert!(matches!(answer, Err(PeerError::Failed(Error::UnknownFunction { .. }))), "{answer:?}");
    });
}

/// Of a function that nobody serves.
fn invocation() -> Invocation {
    let function = serde_json::json!({
        "id": "shop/add", "module": "shop", "file": "shop.py", "language": "python", "parameters": [], "returns": null,
        "doc": null, "async": false, "generator": false, "http": false, "timeout": 30.0, "concurrency": 1,
        "public": true,
    });
    Invocation {
        id: InvocationId::random(),
        function: Arc::new(serde_json::from_value(function).unwrap()),
        payload: Payload { format: Format::Json, body: Bytes::from_static(b"[1]") },
        request: None,
        deadline: Deadline::after(Instant::now(), Duration::from_secs(30)),
        hops: 0,
        traceparent: None,
        idempotency_key: None,
    }
}

#[test]
fn idle_own_link_is_closed() {
    run(async {
        let pair = Pair::new(Bounds { idle_after: Duration::from_millis(50), ..BOUNDS }).await;
        let own = pair.own().await;
        let connection = own.caller().connection().clone();
        let chunks = Box::pin(Endless);
        let reply = own.until_read(Reply::new(None, ReplyBody::Stream(chunks)));
        sleep(Duration::from_millis(200)).await;
        assert!(connection.close_reason().is_none(), "an answer is still read");
        drop(reply);
        connection.closed().await;
        assert!(pair.links.inner.peers.borrow().is_empty());
        pair.own().await;
    });
}

/// A streamed answer that is never over.
struct Endless;

impl futures_core::Stream for Endless {
    type Item = Result<Payload, Error>;

    fn poll_next(self: Pin<&mut Self>, _: &mut std::task::Context<'_>) -> std::task::Poll<Option<Self::Item>> {
        std::task::Poll::Ready(Some(Ok(Payload { format: Format::Json, body: Bytes::new() })))
    }
}

#[test]
fn thread_has_no_more_own_links_than_it_may() {
    run(async {
        let pair = Pair::new(Bounds { most: 1, ..BOUNDS }).await;
        pair.own().await;
        let third = joined(pair.directory.path(), "third", &pair.first);
        until(|| pair.links.lend(id_of(&third)).is_some(), "a link").await;
        assert!(!pair.links.lend(id_of(&third)).unwrap().is_own());
        let peers = pair.links.inner.peers.borrow();
        assert!(matches!(peers.get(&id_of(&third)), Some(State::Resting(_))));
        assert!(matches!(peers.get(&id_of(&pair.second)), Some(State::Ready(_))));
    });
}
