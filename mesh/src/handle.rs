use std::{
    fmt,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, SystemTime},
};

use tokio::{
    sync::{mpsc, oneshot, watch},
    time::{error::Elapsed, timeout},
};

use crate::{
    NodeId,
    bundles::Bundles,
    deployments::{Change, ChangeError, Deployment, Deployments},
    driver::{Input, Member, View},
    identity::{self, DenyList, Identity, Tokens},
    links::{Callers, Setup},
    membership::{Event, Profile},
    rpc::{self, PeerError},
    table::Reader,
};

/// How long a peer may take to say that it has heard.
const ASK_TIMEOUT: Duration = Duration::from_secs(3);

/// How long it is waited for nodes to hear of a change.
const SPREAD_PATIENCE: Duration = Duration::from_secs(1);

/// Talks to a [`crate::Mesh`] from any thread.
#[derive(Clone)]
pub struct Handle {
    pub(crate) inputs: mpsc::UnboundedSender<Input>,
    pub(crate) started: Arc<Started>,
}

/// What is known once a node listens.
#[derive(Clone)]
pub(crate) struct Started {
    pub(crate) address: SocketAddr,
    pub(crate) name: Arc<str>,
    pub(crate) zone: Arc<str>,
    pub(crate) identity: Identity,
    pub(crate) tokens: Tokens,
    pub(crate) denied: DenyList,
    pub(crate) callers: Callers,
    pub(crate) own_links: Setup,
    pub(crate) routes: Reader,
    pub(crate) view: View,
    pub(crate) deployments: Deployments,
    pub(crate) bundles: Bundles,
    pub(crate) is_founder: bool,
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handle").field("node", &self.node()).field("address", &self.address()).finish_non_exhaustive()
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

    /// Where it listens for peers, with the real port, as peers are told. It changes when the machine's does.
    pub fn address(&self) -> SocketAddr {
        self.members().first().map_or(self.started.address, |own| own.address)
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
        self.started.view.members.load_full()
    }

    /// Changes when something is new of a member.
    pub fn member_changes(&self) -> watch::Receiver<()> {
        self.started.view.changed.subscribe()
    }

    /// What is deployed on the mesh, as far as this node knows.
    pub fn deployments(&self) -> &Deployments {
        &self.started.deployments
    }

    /// The bundles that are here.
    pub fn bundles(&self) -> &Bundles {
        &self.started.bundles
    }

    /// Deploys or removes an app, and tells the mesh; its record then, and when the others have heard of it. Blocks on
    /// the disk.
    ///
    /// # Errors
    /// [`ChangeError`], with nothing changed.
    pub fn change(&self, app: &str, change: Change) -> Result<(Arc<Deployment>, Heard), ChangeError> {
        let (record, is_news) = self.deployments().change(app, change, self.node(), SystemTime::now())?;
        let (telling, heard) = mpsc::channel(1);
        if is_news {
            let _ = self.inputs.send(Input::Changed(Arc::clone(&record), telling));
        }
        Ok((record, Heard(heard)))
    }

    /// Asks a peer to host an app, too. It decides itself whether it does.
    ///
    /// # Errors
    /// The reason, as text, why it was not asked.
    pub async fn ask_to_host(&self, peer: NodeId, app: Arc<str>) -> Result<(), String> {
        match self.callers().get(peer) {
            Some(caller) => told(timeout(ASK_TIMEOUT, rpc::host(&caller, app)).await),
            None => Err(format!("there is no link to {peer}")),
        }
    }

    /// Asks a peer to drain (see [`crate::Ask::Drain`]), or to end it.
    ///
    /// # Errors
    /// The reason, as text, why it was not asked.
    pub async fn ask_to_drain(&self, peer: NodeId, on: bool) -> Result<(), String> {
        match self.callers().get(peer) {
            Some(caller) => told(timeout(ASK_TIMEOUT, rpc::drain(&caller, on)).await),
            None => Err(format!("there is no link to {peer}")),
        }
    }

    /// Whether the mesh was made by this start of the node.
    pub fn is_founder(&self) -> bool {
        self.started.is_founder
    }

    pub(crate) fn callers(&self) -> &Callers {
        &self.started.callers
    }

    /// How threads dial peers for their own calls.
    pub(crate) fn own_links(&self) -> &Setup {
        &self.started.own_links
    }
}

/// Whether the other nodes know what this one has changed.
#[derive(Debug)]
pub struct Heard(mpsc::Receiver<()>);

impl Heard {
    /// Waits until all nodes to which there are links do, for a second at most: they are told in any case.
    pub async fn by_all(mut self) {
        // Nothing is ever sent.
        let _ = timeout(SPREAD_PATIENCE, self.0.recv()).await;
    }
}

fn told(asked: Result<Result<(), PeerError>, Elapsed>) -> Result<(), String> {
    match asked {
        Ok(Ok(())) => Ok(()),
        Ok(Err(PeerError::Failed(error))) => Err(error.message()),
        Ok(Err(PeerError::NotSent(reason) | PeerError::Lost(reason))) => Err(reason),
        Err(_) => Err(format!("it does not answer within {ASK_TIMEOUT:?}")),
    }
}
