//! Does what membership decides: carries its messages, fetches records, keeps links to members and the routing table.

#[cfg(test)]
mod tests;

use std::{
    cell::RefCell,
    collections::{HashMap, HashSet},
    net::SocketAddr,
    path::{Path, PathBuf},
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use arc_swap::ArcSwap;
use fnmesh_invoke::Invoke;
use tokio::{
    sync::{mpsc, oneshot, watch},
    task::JoinSet,
    time::{sleep, timeout},
};

use crate::{
    NodeId, address,
    deployments::{Cause, Deployment, Deployments},
    identity::{DenyList, Identity, join::PeerAddress},
    known,
    links::{Change, Links},
    membership::{Action, Event, Membership, Record},
    renewal,
    rpc::{self, PeerError, PeerHandler},
    table::RoutingTable,
};

/// How long a member may take to hand out a record or a snapshot.
const FETCH_TIMEOUT: Duration = Duration::from_secs(3);
/// A member to which the link was lost is dialled after this long, then after twice as long each time ...
const FIRST_REDIAL: Duration = Duration::from_millis(100);
/// ... up to this.
const LAST_REDIAL: Duration = Duration::from_secs(2);
/// How often it is seen whether the certificate is to be renewed; it has ten days left then.
const RENEWAL_CHECK: Duration = Duration::from_secs(3600);
/// How often it is seen whether the machine still has the address that peers were told.
const ADDRESS_CHECK: Duration = Duration::from_secs(1);
/// How long a node that is said to be dead has to answer, beside some round trips ...
const SIGN_OF_LIFE: Duration = Duration::from_millis(200);
/// ... of which a loss takes a few ...
const SIGN_OF_LIFE_ROUND_TRIPS: u32 = 8;
/// ... and at most.
const LAST_SIGN_OF_LIFE: Duration = Duration::from_millis(500);
/// How long one that answers has to tell the mesh so.
const OBJECTION: Duration = Duration::from_secs(1);
/// Why the links to it are closed.
const DEAD: &str = "this node is taken for dead";
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
    /// This node, which was said to be dead, does not answer.
    Silent(NodeId),
    /// This node, which was said to be dead, answers, and has had its time to say so.
    Objected(NodeId),
    /// The members are to be written down.
    Keep,
    /// The machine may have another address; it is looked again and again from now on.
    CheckAddress,
    /// These nodes are no longer of the mesh, as of now.
    Denied(Vec<NodeId>),
    /// These records of what is deployed are new to this node.
    Deployed(Vec<Arc<Deployment>>),
    /// This node has made a record; the sender is dropped once all peers have heard of it.
    Changed(Arc<Deployment>, mpsc::Sender<()>),
    /// Whether this peer knows of deployments.
    Deploys(NodeId, bool),
    /// The certificate is to be renewed if it is time, or for whoever asks in any case.
    Renew(Option<oneshot::Sender<Result<(), String>>>),
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
    /// Whether it takes part in deployments: nodes of versions that know nothing of them do not.
    pub deploys: bool,
    /// Whether it answers this node.
    pub is_reachable: bool,
    /// Whether it is this node.
    pub is_self: bool,
}

/// The members, for other threads.
#[derive(Clone, Debug)]
pub(crate) struct View {
    pub(crate) members: Arc<ArcSwap<Vec<Member>>>,
    /// Marked with each change.
    pub(crate) changed: watch::Sender<()>,
}

/// The owner of membership and routing table.
pub(crate) struct Driver<L: Invoke + Clone> {
    membership: Rc<RefCell<Membership>>,
    table: RoutingTable,
    links: Rc<Links<PeerHandler<L>>>,
    inputs: mpsc::UnboundedSender<Input>,
    identity: Identity,
    denied: DenyList,
    deployments: Deployments,
    /// Peers of versions that know nothing of deployments, while they are members or there is a link to them.
    unknowing: HashSet<NodeId>,
    redial: HashMap<NodeId, Duration>,
    /// Why there was no link the last time.
    complaints: HashMap<NodeId, Arc<str>>,
    tasks: JoinSet<()>,
    /// What others see of the members.
    view: View,
    /// Where the members are kept.
    directory: PathBuf,
    is_keeping: bool,
}

impl<L: Invoke + Clone> Driver<L> {
    pub(crate) fn new(
        membership: Rc<RefCell<Membership>>,
        table: RoutingTable,
        links: Rc<Links<PeerHandler<L>>>,
        inputs: mpsc::UnboundedSender<Input>,
        (identity, denied, deployments): (Identity, DenyList, Deployments),
        view: View,
        directory: PathBuf,
    ) -> Self {
        let (redial, complaints, tasks) = (HashMap::new(), HashMap::new(), JoinSet::new());
        Self {
            membership,
            table,
            links,
            inputs,
            identity,
            denied,
            deployments,
            unknowing: HashSet::new(),
            redial,
            complaints,
            tasks,
            view,
            directory,
            is_keeping: false,
        }
    }

    /// Does `first`, then what the inputs ask for, until the node ends; whether it has told the others.
    pub(crate) async fn run(mut self, first: Vec<Action>, mut inputs: mpsc::UnboundedReceiver<Input>) -> bool {
        self.act(first);
        self.renew(None);
        let mut has_left = false;
        while let Some(input) = inputs.recv().await {
            while self.tasks.try_join_next().is_some() {}
            match input {
                Input::Event(event) => self.handle(event),
                Input::Link(Change::Up(node)) => {
                    self.redial.remove(&node);
                    self.handle(Event::LinkBack(node));
                    self.tell_denied(node);
                    self.spread(Cause::LinkUp(node), None);
                }
                Input::Link(Change::Lost(node, reason)) => {
                    // Dialling goes on and fails for the same reason again and again.
                    if self.complaints.insert(node, Arc::clone(&reason)).as_ref() != Some(&reason) {
                        tracing::warn!(target: "fnmesh::mesh", peer = %node, %reason, "no link to this node");
                    }
                    self.lose_link(node);
                }
                Input::Link(Change::Closed(node)) => self.lose_link(node),
                Input::Redial(node) => {
                    let address = self.membership.borrow().member(node).map(|member| member.address);
                    match address {
                        Some(address) => self.links.dial(node, address),
                        None => drop(self.redial.remove(&node)),
                    }
                }
                Input::Keep => self.keep(),
                Input::Silent(node) => self.bury(node),
                Input::Objected(node) => self.follow([node]),
                Input::CheckAddress => self.check_address(),
                Input::Denied(nodes) => self.exclude(&nodes),
                Input::Deployed(records) => self.spread(Cause::Heard(records), None),
                Input::Changed(record, heard) => self.spread(Cause::Changed(record), Some(heard)),
                Input::Deploys(node, deploys) => self.note_deploys(node, deploys),
                Input::Renew(asked) => self.renew(asked),
                Input::Leave => {
                    self.handle(Event::Leave);
                    has_left = true;
                    break;
                }
                Input::Stop => break,
            }
        }
        if self.is_keeping {
            keep(&self.directory, &known::of(&self.membership.borrow()));
        }
        has_left
    }

    fn handle(&mut self, event: Event) {
        let mut actions = Vec::new();
        self.membership.borrow_mut().handle(event, Instant::now(), &mut actions);
        self.act(actions);
    }

    fn act(&mut self, actions: Vec<Action>) {
        let (mut changed, mut doubted) = (Vec::new(), Vec::new());
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
                    self.complaints.remove(&node);
                    let address = self.membership.borrow().member(node).map(|member| member.address);
                    if let Some(address) = address {
                        self.links.dial(node, address);
                    }
                    self.keep_soon();
                }
                Action::Moved(node, address) => {
                    tracing::info!(target: "fnmesh::mesh", peer = %node, %address, "node has moved");
                    self.keep_soon();
                }
                Action::Down(node) => self.doubt(node, &mut doubted),
                Action::Left(node) => {
                    tracing::info!(target: "fnmesh::mesh", peer = %node, "node has left");
                    self.forget_gone(node);
                }
            }
        }
        // Of those that may not be dead there is more to say in a moment.
        changed.retain(|node| !doubted.contains(node));
        if !changed.is_empty() {
            self.follow(changed);
        }
    }

    /// Brings routes and view up to date.
    fn follow(&mut self, changed: impl IntoIterator<Item = NodeId>) {
        self.table.follow(&self.membership.borrow(), changed);
        self.view.members.store(Arc::new(self.members()));
        self.view.changed.send_replace(());
    }

    /// Notes whether a peer takes part in deployments, which may change with each link to it.
    fn note_deploys(&mut self, node: NodeId, deploys: bool) {
        if self.is_gone(node) {
            return;
        }
        let has_changed = if deploys { self.unknowing.remove(&node) } else { self.unknowing.insert(node) };
        if has_changed {
            if !deploys {
                tracing::info!(target: "fnmesh::mesh", peer = %node, "peer is of a version without deployments");
            }
            self.follow([node]);
        }
    }

    /// Sees whether a node that membership takes for dead answers this one: a part of the mesh that was cut off takes
    /// the others for dead, and says so when it is back. Such a node says at once that it lives; until then its routes
    /// and the calls on its link stay.
    fn doubt(&mut self, node: NodeId, doubted: &mut Vec<NodeId>) {
        let Some(caller) = self.links.callers().get(node) else { return self.bury(node) };
        doubted.push(node);
        let inputs = self.inputs.clone();
        let round_trips = caller.connection().rtt() * SIGN_OF_LIFE_ROUND_TRIPS;
        let patience = LAST_SIGN_OF_LIFE.min(SIGN_OF_LIFE + round_trips);
        self.tasks.spawn_local(async move {
            let verdict = if matches!(timeout(patience, rpc::ping(&caller)).await, Ok(Ok(()))) {
                tracing::info!(target: "fnmesh::mesh", peer = %node, "node is said to be down, and answers");
                sleep(OBJECTION).await;
                Input::Objected(node)
            } else {
                Input::Silent(node)
            };
            let _ = inputs.send(verdict);
        });
    }

    /// Ends the links to a node that is dead, unless it has come back while it was asked.
    fn bury(&mut self, node: NodeId) {
        if self.membership.borrow().member(node).is_none() {
            tracing::warn!(target: "fnmesh::mesh", peer = %node, "node is down");
            self.links.close(node, DEAD);
            self.forget_gone(node);
        }
        self.follow([node]);
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

    fn lose_link(&mut self, node: NodeId) {
        self.handle(Event::LinkLost(node));
        self.forget_gone(node);
        self.redial_later(node);
    }

    /// Keeps nothing of a node that is gone; if it comes back it is told what is deployed, and answers anew.
    fn forget_gone(&mut self, node: NodeId) {
        if self.is_gone(node) {
            self.unknowing.remove(&node);
        }
    }

    fn is_gone(&self, node: NodeId) -> bool {
        self.membership.borrow().member(node).is_none() && self.links.callers().get(node).is_none()
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

    /// Cuts nodes off, and tells the others.
    fn exclude(&mut self, nodes: &[NodeId]) {
        for node in nodes {
            tracing::warn!(target: "fnmesh::mesh", peer = %node, "node is removed from the mesh");
            self.links.exclude(*node);
        }
        for node in self.links.callers().nodes() {
            self.tell_denied(node);
        }
    }

    /// Tells a peer which nodes are removed.
    fn tell_denied(&mut self, node: NodeId) {
        let denied = self.denied.snapshot();
        if denied.iter().next().is_none() {
            return;
        }
        if let Some(caller) = self.links.callers().get(node) {
            self.tasks.spawn_local(async move {
                // It is told again with the next link.
                if let Ok(Err(PeerError::Failed(error))) = timeout(FETCH_TIMEOUT, rpc::deny(&caller, &denied)).await {
                    tracing::warn!(target: "fnmesh::mesh", peer = %node, %error, "peer does not take removals over");
                }
            });
        }
    }

    /// Tells peers what is deployed; `heard` is dropped once all have heard.
    fn spread(&mut self, cause: Cause, heard: Option<mpsc::Sender<()>>) {
        let peers = self.links.callers().nodes();
        let (told, records) = cause.spread(&self.deployments.snapshot(), peers, &mut fastrand::Rng::new());
        for peer in told {
            self.tell_deployed(peer, Arc::clone(&records), heard.clone());
        }
    }

    /// Tells a peer what is deployed, and goes on trying as long as there is a link; `heard` is dropped then. The answer
    /// tells whether it knows of deployments at all.
    fn tell_deployed(&mut self, node: NodeId, records: Arc<[Arc<Deployment>]>, heard: Option<mpsc::Sender<()>>) {
        let (callers, inputs) = (self.links.callers().clone(), self.inputs.clone());
        self.tasks.spawn_local(async move {
            let _heard = heard;
            while let Some(caller) = callers.get(node) {
                match timeout(FETCH_TIMEOUT, rpc::announce(&caller, &records)).await {
                    Ok(Ok(deploys)) => {
                        let _ = inputs.send(Input::Deploys(node, deploys));
                        return;
                    }
                    Ok(Err(PeerError::Failed(error))) => {
                        tracing::warn!(target: "fnmesh::mesh", peer = %node, %error, "peer does not take deployments over");
                        return;
                    }
                    // It is told everything with the next link, if this one is gone.
                    Ok(Err(PeerError::NotSent(_) | PeerError::Lost(_))) | Err(_) => sleep(LAST_REDIAL).await,
                }
            }
        });
    }

    /// Gets a new certificate if it is time, or if somebody asks, and looks again in an hour.
    fn renew(&mut self, asked: Option<oneshot::Sender<Result<(), String>>>) {
        if asked.is_none() {
            self.later(RENEWAL_CHECK, Input::Renew(None));
            if !self.identity.needs_renewal(SystemTime::now()) {
                return;
            }
        }
        let (identity, callers) = (self.identity.clone(), self.links.callers().clone());
        self.tasks.spawn_local(async move {
            let renewed = renewal::renew(&identity, &callers).await;
            if let Err(reason) = &renewed {
                let expires_in = identity.expires().duration_since(SystemTime::now()).unwrap_or_default();
                tracing::error!(target: "fnmesh::mesh", %reason, ?expires_in, "the certificate is not renewed");
            }
            if let Some(asked) = asked {
                let _ = asked.send(renewed);
            }
        });
    }

    /// Tells the members if this node is reached at another address than before.
    fn check_address(&mut self) {
        self.later(ADDRESS_CHECK, Input::CheckAddress);
        let moved = {
            let membership = self.membership.borrow();
            address::moved(membership.identity().address, membership.members().map(|member| member.address))
        };
        if let Some(address) = moved {
            tracing::warn!(target: "fnmesh::mesh", %address, "this node is reached at another address from now on");
            self.handle(Event::Moved(address));
        }
    }

    fn keep_soon(&mut self) {
        if !std::mem::replace(&mut self.is_keeping, true) {
            self.later(KEEP_AFTER, Input::Keep);
        }
    }

    fn keep(&mut self) {
        self.is_keeping = false;
        let (directory, members) = (self.directory.clone(), known::of(&self.membership.borrow()));
        self.tasks.spawn_blocking(move || keep(&directory, &members));
    }

    fn members(&self) -> Vec<Member> {
        let membership = self.membership.borrow();
        let own = membership.identity();
        let all = std::iter::once(own).chain(membership.members());
        all.map(|member| Member {
            node: member.node,
            address: member.address,
            record: membership.record(member.node).cloned(),
            deploys: !self.unknowing.contains(&member.node),
            is_reachable: membership.routable(member.node).is_some(),
            is_self: member.node == own.node,
        })
        .collect()
    }
}

fn keep(directory: &Path, members: &[PeerAddress]) {
    if let Err(error) = known::write(directory, members) {
        tracing::error!(target: "fnmesh::mesh", %error, "cannot keep the list of members");
    }
}
