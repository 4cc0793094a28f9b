use std::{fmt, net::SocketAddr, sync::Arc, time::SystemTime};

use arc_swap::ArcSwap;
use tokio::sync::{mpsc, oneshot};

use crate::{
    NodeId,
    driver::{Input, Member},
    identity::{self, DenyList, Identity, Tokens},
    links::Callers,
    membership::{Event, Profile},
    table::Reader,
};

/// Talks to a [`crate::Mesh`] from any thread.
#[derive(Clone)]
pub struct Handle {
    pub(crate) inputs: mpsc::UnboundedSender<Input>,
    pub(crate) started: Arc<Started>,
}

/// What is known once a node listens.
pub(crate) struct Started {
    pub(crate) address: SocketAddr,
    pub(crate) name: Arc<str>,
    pub(crate) zone: Arc<str>,
    pub(crate) identity: Identity,
    pub(crate) tokens: Tokens,
    pub(crate) denied: DenyList,
    pub(crate) callers: Callers,
    pub(crate) routes: Reader,
    pub(crate) members: Arc<ArcSwap<Vec<Member>>>,
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
