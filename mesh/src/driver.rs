//! Does what membership decides: carries its messages, fetches records, keeps links to members and the routing table.

mod doubt;
mod tell;
#[cfg(test)]
mod tests;
mod upkeep;

use std::{
    cell::RefCell,
    collections::{HashMap, HashSet},
    net::SocketAddr,
    path::PathBuf,
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use fnmesh_invoke::Invoke;
use tokio::{
    sync::{OwnedSemaphorePermit, mpsc, oneshot, watch},
    task::JoinSet,
    time::{sleep, timeout},
};

use crate::{
    NodeId,
    deployments::{Cause, Deployment, Deployments},
    identity::{DenyList, Identity},
    known,
    links::{Change, Links},
    membership::{Action, Event, Membership, Record},
    rpc::{self, PeerHandler},
    table::RoutingTable,
};

/// How long a member may take to hand out a record or a snapshot.
const FETCH_TIMEOUT: Duration = Duration::from_secs(3);
/// A member to which the link was lost is dialled after this long, then after twice as long each time ...
const FIRST_REDIAL: Duration = Duration::from_millis(100);
/// ... up to this.
const LAST_REDIAL: Duration = Duration::from_secs(2);

/// What the driver is told.
pub(crate) enum Input {
    /// Something for membership.
    Event(Event),
    /// A message of membership, and its place among those that may wait.
    Heard(Event, OwnedSemaphorePermit),
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
                Input::Heard(event, place) => {
                    drop(place);
                    self.handle(event);
                }
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
            upkeep::write(&self.directory, &known::of(&self.membership.borrow()));
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
                    self.links.follow(node, address);
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
