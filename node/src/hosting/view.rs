//! The nodes of the mesh, as placement looks at them.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use fnmesh_mesh::{
    Member, NodeId,
    membership::{Load, Profile, Status},
    placement::Site,
};

/// From this load on, over all its apps, a node takes no more of them: as much waits and runs as one app's instances
/// can run at a time.
const FULL: Load = Load::FULL;

/// What is known of the other nodes.
#[derive(Debug, Default)]
pub(super) struct View {
    /// Those that take calls, and how busy they are.
    nodes: Vec<(NodeId, Load)>,
    hosts: HashMap<Arc<str>, HashSet<NodeId>>,
    unable: HashMap<Arc<str>, HashSet<NodeId>>,
    /// The numbers of the versions that are served, and by whom.
    served: HashMap<Arc<str>, Vec<(NodeId, u64)>>,
}

impl View {
    pub(super) fn of(members: &[Member]) -> Self {
        let mut view = Self::default();
        for member in members.iter().filter(|member| !member.is_self && member.is_reachable) {
            let Some(profile) = member.record.as_ref().map(|record| &record.profile) else { continue };
            if profile.status == Status::Serving {
                view.add(member.node, profile);
            }
        }
        view
    }

    fn add(&mut self, node: NodeId, profile: &Profile) {
        self.nodes.push((node, sum(profile.apps.iter().map(|app| app.load))));
        for app in &profile.apps {
            self.hosts.entry(Arc::clone(&app.name)).or_default().insert(node);
            self.served.entry(Arc::clone(&app.name)).or_default().push((node, app.version));
        }
        for app in &profile.starting {
            self.hosts.entry(Arc::clone(app)).or_default().insert(node);
        }
        for app in &profile.unable {
            self.unable.entry(Arc::clone(app)).or_default().insert(node);
        }
    }

    /// The nodes with regard to `app`, this one, `own`, among them.
    pub(super) fn sites(&self, app: &str, own: Site) -> Vec<Site> {
        let is_in =
            |set: &HashMap<Arc<str>, HashSet<NodeId>>, node| set.get(app).is_some_and(|set| set.contains(&node));
        let others = self.nodes.iter().map(|&(node, load)| Site {
            node,
            has_room: has_room(load) && !is_in(&self.unable, node),
            hosts: is_in(&self.hosts, node),
            load,
        });
        std::iter::once(own).chain(others).collect()
    }

    /// The other nodes that serve this version of an app or a newer one.
    pub(super) fn serving(&self, app: &str, version: u64) -> impl Iterator<Item = NodeId> {
        self.served.get(app).into_iter().flatten().filter(move |(_, served)| *served >= version).map(|(node, _)| *node)
    }

    /// Another node that serves the app from a directory.
    pub(super) fn serving_from_a_directory(&self, app: &str) -> Option<NodeId> {
        self.served.get(app).into_iter().flatten().find(|(_, version)| *version == 0).map(|(node, _)| *node)
    }

    /// All other nodes that take calls.
    pub(super) fn nodes(&self) -> impl ExactSizeIterator<Item = NodeId> {
        self.nodes.iter().map(|(node, _)| *node)
    }
}

/// Whether a node that is so busy may take another app.
pub(super) fn has_room(load: Load) -> bool {
    load < FULL
}

/// How busy a node with apps that are so busy is.
pub(super) fn sum(loads: impl Iterator<Item = Load>) -> Load {
    loads.fold(Load::default(), |sum, load| Load(sum.0.saturating_add(load.0)))
}
