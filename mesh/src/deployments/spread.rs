//! Whom a node tells what of the records. The same for the node itself and in simulation.

use std::sync::Arc;

use super::{Deployment, Registry};
use crate::NodeId;

/// To how many peers news of deployments are passed on, so that in a large mesh they reach those, too, to which who made
/// them has no link; a link that comes up carries all records, in any case.
const TOLD: usize = 16;

/// Why a node tells others what is deployed.
#[derive(Clone, Debug)]
pub enum Cause {
    /// There is a link to this peer, or a new one.
    LinkUp(NodeId),
    /// The node has changed this.
    Changed(Arc<Deployment>),
    /// These records of a peer were new to it.
    Heard(Vec<Arc<Deployment>>),
}

impl Cause {
    /// Who is told, of the `peers` to which there are links, and which records of the node's `registry`.
    pub fn spread(
        self,
        registry: &Registry,
        mut peers: Vec<NodeId>,
        rng: &mut fastrand::Rng,
    ) -> (Vec<NodeId>, Arc<[Arc<Deployment>]>) {
        match self {
            Self::LinkUp(peer) => (vec![peer], registry.all().cloned().collect()),
            Self::Changed(record) => (peers, [record].into()),
            Self::Heard(records) => {
                rng.shuffle(&mut peers);
                peers.truncate(TOLD);
                (peers, records.into())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;
    use crate::deployments::{Change, Content, Replicas};

    #[test]
    fn all_hear_of_a_change_some_of_what_was_heard_and_a_new_peer_of_everything() {
        let node = |number| NodeId::from_bytes([number; 16]);
        let peers: Vec<_> = (1..=40).map(node).collect();
        let mut registry = Registry::default();
        let content = Some(Content { hash: [1; 32], bundle: [1; 32], bundle_bytes: 1 });
        let change = Change { content, replicas: Replicas::Auto };
        let records = ["a", "b"].map(|app| registry.next(app, change.clone(), node(0), SystemTime::now()).unwrap());
        registry.merge(records.clone(), SystemTime::now());
        let mut rng = fastrand::Rng::with_seed(1);
        let mut spread = |cause: Cause| cause.spread(&registry, peers.clone(), &mut rng);

        let (told, what) = spread(Cause::Changed(records[0].clone()));
        assert_eq!((&told, &*what), (&peers, &records[..1]));
        let (told, what) = spread(Cause::Heard(vec![records[1].clone()]));
        assert_eq!((told.len(), &*what), (TOLD, &records[1..]));
        let (told, what) = spread(Cause::LinkUp(node(7)));
        assert_eq!((&*told, &*what), (&[node(7)][..], &records[..]));
    }
}
