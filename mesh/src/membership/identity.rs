use std::net::SocketAddr;

use crate::NodeId;

/// One life of a node at one address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Identity {
    /// Which node.
    pub node: NodeId,
    /// Where it listens.
    pub address: SocketAddr,
    /// When it started, in ms since 1970; it must grow with each start. The larger one wins.
    pub generation: u64,
    /// How often it came back since, after others had thought it dead or when its address changed.
    pub renewals: u16,
}

impl Identity {
    /// A node that starts now.
    pub fn new(node: NodeId, address: SocketAddr, generation: u64) -> Self {
        Self { node, address, generation, renewals: 0 }
    }

    /// The same, one life later.
    pub(super) fn renewed(&self) -> Self {
        match self.renewals.checked_add(1) {
            Some(renewals) => Self { renewals, ..*self },
            None => Self { generation: self.generation.saturating_add(1), renewals: 0, ..*self },
        }
    }

    pub(super) fn age(&self) -> (u64, u16) {
        (self.generation, self.renewals)
    }
}

impl foca::Identity for Identity {
    type Addr = NodeId;

    fn renew(&self) -> Option<Self> {
        Some(self.renewed())
    }

    fn addr(&self) -> NodeId {
        self.node
    }

    fn win_addr_conflict(&self, adversary: &Self) -> bool {
        // The address only breaks ties, so that all members decide alike.
        (self.age(), self.address) > (adversary.age(), adversary.address)
    }
}
