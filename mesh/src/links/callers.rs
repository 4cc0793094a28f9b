use std::{collections::BTreeMap, sync::Arc};

use arc_swap::ArcSwap;

use crate::{NodeId, transport::Caller};

/// The links that calls may use, read by any thread without a lock.
#[derive(Clone, Default)]
pub(crate) struct Callers(Arc<ArcSwap<BTreeMap<NodeId, Caller>>>);

impl Callers {
    /// The peers to which there are links.
    pub(crate) fn nodes(&self) -> Vec<NodeId> {
        self.0.load().keys().copied().collect()
    }

    /// The link to `node`, if there is one.
    pub(crate) fn get(&self, node: NodeId) -> Option<Caller> {
        self.0.load().get(&node).cloned()
    }

    /// All of them.
    pub(super) fn all(&self) -> Vec<Caller> {
        self.0.load().values().cloned().collect()
    }

    pub(super) fn change(&self, change: impl FnOnce(&mut BTreeMap<NodeId, Caller>)) {
        // Only the thread of the mesh changes it.
        let mut callers = BTreeMap::clone(&self.0.load());
        change(&mut callers);
        self.0.store(Arc::new(callers));
    }
}
