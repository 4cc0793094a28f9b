//! Does what membership decides: carries its messages, fetches records, keeps links to members and the routing table.

use std::{
    cell::RefCell,
    collections::HashMap,
    net::SocketAddr,
    path::PathBuf,
    rc::{Rc, Weak},
    sync::Arc,
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use fnmesh_invoke::Invoke;
use tokio::{
    sync::mpsc,
    task::JoinSet,
    time::{sleep, timeout},
};

use crate::{
    NodeId, known,
    links::{Change, Links},
    membership::{Action, Event, Membership, Record},
    rpc,
    table::RoutingTable,
    transport::{Answer, Handler, LocalFuture, Request},
};

/// How long a member may take to hand out a record or a snapshot.
const FETCH_TIMEOUT: Duration = Duration::from_secs(3);
/// A member to which the link was lost is dialled after this long, then after twice as long each time ...
const FIRST_REDIAL: Duration = Duration::from_millis(100);
/// ... up to this.
const LAST_REDIAL: Duration = Duration::from_secs(2);
/// New members are written down together with those that come within this time.
const KEEP_AFTER: Duration = Duration::from_secs(1);

/// What the driver is told.
pub(crate) enum Input {
    /// Something for membership.
    Event(Event),
    /// Something about a link.
    Link(Change),
    /// A member is to be dialled again.
    Redial(NodeId),
    /// The members are to be written down.
    Keep,
    /// The node ends, and says so to the others.
    Leave,
    /// The node ends without a word.
    Stop,
}

/// A node of the mesh as this node sees it.
#[derive(Clone, Debug)]
pub struct Member {
    /// Its id.
    pub node: NodeId,
    /// Where it listens for peers.
    pub address: SocketAddr,
    /// What it says of itself, if that is known yet.
    pub record: Option<Arc<Record>>,
    /// Whether it answers this node.
    pub is_reachable: bool,
    /// Whether it is this node.
    pub is_self: bool,
}

/// The owner of membership and routing table.
pub(crate) struct Driver<L: Invoke + Clone> {
    membership: Rc<RefCell<Membership>>,
    table: RoutingTable,
    links: Rc<Links<PeerHandler<L>>>,
    inputs: mpsc::UnboundedSender<Input>,
    redial: HashMap<NodeId, Duration>,
    tasks: JoinSet<()>,
    /// What others see of the members.
    view: Arc<ArcSwap<Vec<Member>>>,
    /// Where the members are kept.
    directory: PathBuf,
    is_keeping: bool,
}

/// Answers the requests of one peer.
pub(crate) struct PeerHandler<L> {
    peer: NodeId,
    local: L,
    membership: Weak<RefCell<Membership>>,
    inputs: mpsc::UnboundedSender<Input>,
}

impl<L: Invoke + Clone> PeerHandler<L> {
    pub(crate) fn new(
        peer: NodeId,
        local: L,
        membership: Weak<RefCell<Membership>>,
        inputs: mpsc::UnboundedSender<Input>,
    ) -> Self {
        Self { peer, local, membership, inputs }
    }
}

impl<L: Invoke + Clone> Handler for PeerHandler<L> {
    fn handle(&self, request: Request<'_>) -> LocalFuture<Answer> {
        match self.membership.upgrade() {
            Some(membership) => rpc::answer(&self.local, &membership, &request),
            None => rpc::draining(),
        }
    }

    fn notified(&self, notification: Request<'_>) {
        if notification.method == rpc::GOSSIP {
            // The driver has gone when the node ends.
            let _ = self.inputs.send(Input::Event(Event::Received { from: self.peer, bytes: notification.body }));
        }
    }
}

impl<L: Invoke + Clone> Driver<L> {
    pub(crate) fn new(
        membership: Rc<RefCell<Membership>>,
        table: RoutingTable,
        links: Rc<Links<PeerHandler<L>>>,
        inputs: mpsc::UnboundedSender<Input>,
        view: Arc<ArcSwap<Vec<Member>>>,
        directory: PathBuf,
    ) -> Self {
        let (redial, tasks) = (HashMap::new(), JoinSet::new());
        Self { membership, table, links, inputs, redial, tasks, view, directory, is_keeping: false }
    }

    /// Does `first`, then what the inputs ask for, until the node leaves.
    pub(crate) async fn run(mut self, first: Vec<Action>, mut inputs: mpsc::UnboundedReceiver<Input>) {
        self.act(first);
        while let Some(input) = inputs.recv().await {
            while self.tasks.try_join_next().is_some() {}
            match input {
                Input::Event(event) => self.handle(event),
                Input::Link(Change::Up(node)) => {
                    self.redial.remove(&node);
                    self.handle(Event::LinkBack(node));
                }
                Input::Link(Change::Lost(node, reason)) => {
                    if self.membership.borrow().member(node).is_some() {
                        tracing::warn!(target: "fnmesh::mesh", peer = %node, %reason, "no link to this member");
                    }
                    self.handle(Event::LinkLost(node));
                    self.redial_later(node);
                }
                Input::Redial(node) => {
                    let address = self.membership.borrow().member(node).map(|member| member.address);
                    match address {
                        Some(address) => self.links.dial(node, address),
                        None => drop(self.redial.remove(&node)),
                    }
                }
                Input::Keep => self.keep(),
                Input::Leave => return self.handle(Event::Leave),
                Input::Stop => return,
            }
        }
    }

    fn handle(&mut self, event: Event) {
        let mut actions = Vec::new();
        self.membership.borrow_mut().handle(event, Instant::now(), &mut actions);
        self.act(actions);
    }

    fn act(&mut self, actions: Vec<Action>) {
        let mut changed = Vec::new();
        for action in actions {
            match action {
                Action::Send { to, address, bytes } => self.links.gossip(to, address, bytes),
                Action::Schedule { timer, after } => {
                    self.later(after, Input::Event(Event::Timer(timer)));
                }
                Action::Fetch { of, from, address, .. } => self.fetch(of, from, address),
                Action::FetchSnapshot { from, address, with_records } => {
                    self.fetch_snapshot(from, address, with_records);
                }
                Action::Changed(node) => changed.push(node),
                Action::Up(node) => {
                    tracing::info!(target: "fnmesh::mesh", peer = %node, "node is up");
                    let address = self.membership.borrow().member(node).map(|member| member.address);
                    if let Some(address) = address {
                        self.links.dial(node, address);
                    }
                    if !std::mem::replace(&mut self.is_keeping, true) {
                        self.later(KEEP_AFTER, Input::Keep);
                    }
                }
                Action::Down(node) => {
                    tracing::warn!(target: "fnmesh::mesh", peer = %node, "node is down");
                    self.links.close(node, "this node is taken for dead");
                }
                Action::Left(node) => tracing::info!(target: "fnmesh::mesh", peer = %node, "node has left"),
            }
        }
        if !changed.is_empty() {
            self.table.follow(&self.membership.borrow(), changed);
            self.view.store(Arc::new(self.members()));
        }
    }

    fn fetch(&mut self, of: NodeId, from: NodeId, address: SocketAddr) {
        let (links, inputs) = (Rc::clone(&self.links), self.inputs.clone());
        self.tasks.spawn_local(async move {
            let fetched = timeout(FETCH_TIMEOUT, async {
                let caller = links.link(from, address).await?;
                rpc::record(&caller, of).await.ok()
            });
            let event = match fetched.await {
                Ok(Some(record)) => Event::Record { from, record: Arc::new(record) },
                _ => Event::FetchFailed { of, from },
            };
            let _ = inputs.send(Input::Event(event));
        });
    }

    fn fetch_snapshot(&mut self, from: NodeId, address: SocketAddr, with_records: bool) {
        let (links, inputs) = (Rc::clone(&self.links), self.inputs.clone());
        self.tasks.spawn_local(async move {
            let fetched = timeout(FETCH_TIMEOUT, async {
                let caller = links.link(from, address).await?;
                rpc::snapshot(&caller, with_records).await.ok()
            });
            if let Ok(Some(snapshot)) = fetched.await {
                let _ = inputs.send(Input::Event(Event::Snapshot { from, snapshot: Box::new(snapshot) }));
            }
        });
    }

    fn redial_later(&mut self, node: NodeId) {
        let after = self.redial.get(&node).map_or(FIRST_REDIAL, |last| (*last * 2).min(LAST_REDIAL));
        self.redial.insert(node, after);
        self.later(after, Input::Redial(node));
    }

    fn later(&mut self, after: Duration, input: Input) {
        let inputs = self.inputs.clone();
        self.tasks.spawn_local(async move {
            sleep(after).await;
            let _ = inputs.send(input);
        });
    }

    fn keep(&mut self) {
        self.is_keeping = false;
        let (directory, members) = (self.directory.clone(), known::of(&self.membership.borrow()));
        self.tasks.spawn_blocking(move || {
            if let Err(error) = known::write(&directory, &members) {
                tracing::error!(target: "fnmesh::mesh", %error, "cannot keep the list of members");
            }
        });
    }

    fn members(&self) -> Vec<Member> {
        let membership = self.membership.borrow();
        let own = membership.identity();
        let all = std::iter::once(own).chain(membership.members());
        all.map(|member| Member {
            node: member.node,
            address: member.address,
            record: membership.record(member.node).cloned(),
            is_reachable: membership.routable(member.node).is_some(),
            is_self: member.node == own.node,
        })
        .collect()
    }
}
