//! The other nodes of the mesh, as placement looks at them.

use std::sync::Arc;

use rustc_hash::FxHashMap;

use super::Site;
use crate::{
    NodeId,
    membership::{Load, Profile, Status},
};

/// What is known of the other nodes.
#[derive(Debug, Default)]
pub struct View {
    /// Those that take calls and can host apps, how busy they are, and whether they have room.
    nodes: Vec<(NodeId, Load, bool)>,
    /// By app: what the nodes say of it that say anything.
    said: FxHashMap<Arc<str>, FxHashMap<NodeId, Said>>,
    /// The numbers of the versions that are served, and by whom.
    served: FxHashMap<Arc<str>, Vec<(NodeId, u64)>>,
}

/// What a node says of an app.
#[derive(Clone, Copy, Debug, Default)]
struct Said {
    serves: bool,
    is_starting: bool,
    is_unable: bool,
}

impl View {
    /// What the other members that are reachable say of themselves.
    pub fn of<'a>(others: impl IntoIterator<Item = (NodeId, &'a Profile)>) -> Self {
        let mut view = Self::default();
        for (node, profile) in others {
            if profile.status == Status::Serving {
                view.add(node, profile);
            }
        }
        view
    }

    /// The same without nodes that take no part in deployments: what they serve is known, and that is all.
    pub fn without(mut self, others: impl Fn(NodeId) -> bool) -> Self {
        self.nodes.retain(|(node, ..)| !others(*node));
        self
    }

    fn add(&mut self, node: NodeId, profile: &Profile) {
        let loads = || profile.apps.iter().map(|app| app.load);
        self.nodes.push((node, sum(loads()), has_room(loads())));
        for app in &profile.apps {
            self.said(&app.name, node).serves = true;
            self.served.entry(Arc::clone(&app.name)).or_default().push((node, app.version));
        }
        profile.starting.iter().for_each(|app| self.said(app, node).is_starting = true);
        profile.unable.iter().for_each(|app| self.said(app, node).is_unable = true);
    }

    fn said(&mut self, app: &Arc<str>, node: NodeId) -> &mut Said {
        self.said.entry(Arc::clone(app)).or_default().entry(node).or_default()
    }

    /// The nodes with regard to `app`, this one, `own`, among them.
    pub fn sites(&self, app: &str, own: Site) -> Vec<Site> {
        let said = self.said.get(app);
        let others = self.nodes.iter().map(|&(node, load, has_room)| {
            let said = said.and_then(|said| said.get(&node)).copied().unwrap_or_default();
            Site {
                node,
                has_room: has_room && !said.is_unable,
                hosts: said.serves || said.is_starting,
                serves: said.serves,
                load,
            }
        });
        std::iter::once(own).chain(others).collect()
    }

    /// The other nodes that serve this version of an app or a newer one.
    pub fn serving(&self, app: &str, version: u64) -> impl Iterator<Item = NodeId> {
        self.served.get(app).into_iter().flatten().filter(move |(_, served)| *served >= version).map(|(node, _)| *node)
    }

    /// Another node that serves the app from a directory.
    pub fn serving_from_a_directory(&self, app: &str) -> Option<NodeId> {
        self.served.get(app).into_iter().flatten().find(|(_, version)| *version == 0).map(|(node, _)| *node)
    }

    /// All other nodes that take calls and can host apps.
    pub fn nodes(&self) -> impl ExactSizeIterator<Item = NodeId> {
        self.nodes.iter().map(|(node, ..)| *node)
    }
}

/// How busy an app is with so many calls that run and wait, as peers are told. While its pool can grow it is not more
/// than full, since those that wait are about to run: what is told stays for seconds.
pub fn load(calls: usize, capacity: usize, is_saturated: bool) -> Load {
    let load = Load::new(calls, capacity);
    if is_saturated { load } else { load.min(Load::FULL) }
}

/// Whether a node with apps that are so busy may take another: in none of them calls wait for others to end. The sum
/// over its apps would say nothing of it: pools grow apart from each other, so that a few apps with one call each are
/// full, all of them.
pub fn has_room(loads: impl IntoIterator<Item = Load>) -> bool {
    loads.into_iter().all(|load| load <= Load::FULL)
}

/// How busy a node with apps that are so busy is.
pub fn sum(loads: impl IntoIterator<Item = Load>) -> Load {
    loads.into_iter().fold(Load::default(), |sum, load| Load(sum.0.saturating_add(load.0)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::membership::App;

    fn id(node: u8) -> NodeId {
        NodeId::from_bytes([node; 16])
    }

    fn profile(apps: &[(&str, u16)]) -> Profile {
        let app = |&(name, load): &(&str, u16)| App {
            name: name.into(),
            version: 1,
            hash: [1; 32],
            functions: Vec::new(),
            load: Load(load),
        };
        Profile { apps: apps.iter().map(app).collect(), ..Profile::default() }
    }

    fn site(profile: &Profile) -> Site {
        let own = Site { node: id(0), has_room: true, hosts: true, serves: true, load: Load(0) };
        let sites = View::of([(id(1), profile)]).sites("shop", own);
        assert_eq!((sites.len(), sites[0]), (2, own));
        sites[1]
    }

    #[test]
    fn a_node_has_room_until_calls_wait_in_one_of_its_apps() {
        let site = |apps: &[(&str, u16)]| site(&profile(apps));
        let free = Site { node: id(1), has_room: true, hosts: false, serves: false, load: Load(0) };
        assert_eq!(site(&[]), free);
        // Three apps whose only instance runs one call at a time.
        assert_eq!(site(&[("a", 16), ("b", 16), ("c", 16)]), Site { load: Load(48), ..free });
        assert_eq!(site(&[("a", 17), ("b", 0)]), Site { load: Load(17), has_room: false, ..free });
    }

    #[test]
    fn who_starts_an_app_hosts_it_but_does_not_serve_it() {
        let starting = Profile { starting: vec!["shop".into()], ..profile(&[]) };
        assert!(site(&starting).hosts && !site(&starting).serves);
        let serving = profile(&[("shop", 3)]);
        assert!(site(&serving).hosts && site(&serving).serves && site(&serving).has_room);
        let unable = Profile { unable: vec!["shop".into()], ..profile(&[]) };
        assert!(!site(&unable).has_room && !site(&unable).hosts);
    }

    #[test]
    fn who_drains_is_not_seen() {
        let draining = Profile { status: Status::Draining, ..profile(&[("shop", 3)]) };
        let view = View::of([(id(1), &draining)]);
        assert_eq!((view.nodes().len(), view.serving("shop", 1).count()), (0, 0));
    }

    #[test]
    fn who_knows_nothing_of_deployments_hosts_none() {
        let directory = App { version: 0, ..profile(&[("shop", 0)]).apps[0].clone() };
        let served = Profile { apps: vec![directory], ..Profile::default() };
        let view = View::of([(id(1), &served), (id(2), &profile(&[]))]).without(|node| node == id(1));
        assert_eq!(view.nodes().collect::<Vec<_>>(), [id(2)]);
        // But the name of what it serves is taken.
        assert_eq!(view.serving_from_a_directory("shop"), Some(id(1)));
    }

    #[test]
    fn calls_that_wait_count_once_the_pool_cannot_grow() {
        assert_eq!(load(0, 0, false), Load(0));
        assert_eq!(load(3, 1, false), Load::FULL);
        assert_eq!(load(3, 1, true), Load(48));
        assert_eq!(load(1, 4, false), Load(4));
    }
}
