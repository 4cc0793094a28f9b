//! Which peers serve what.
//!
//! One [`RoutingTable`] is written by the task that owns membership. Any number of threads read its [`Table`]s through
//! a [`Reader`], without locks: each is immutable, and a change replaces it. What did not change is shared between the
//! two: apps lie in 256 shards, so that one node's news copies a few of them and not the table.

mod route;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, HashMap},
    hash::BuildHasher,
    sync::Arc,
};

use arc_swap::{ArcSwap, Guard};
use rustc_hash::FxBuildHasher;

use crate::{
    NodeId,
    membership::{App, Load, Membership, Record, Status},
};
pub use route::{AppRoutes, FunctionKey, Peer, Route, VersionRoutes};

const SHARDS: usize = 256;

/// By the app's name.
type Shard = HashMap<Arc<str>, AppRoutes, FxBuildHasher>;

/// The one that writes.
#[derive(Debug, Default)]
pub struct RoutingTable {
    current: Arc<ArcSwap<Table>>,
    applied: BTreeMap<NodeId, Arc<Record>>,
}

/// The ones that read; a cheap clone for each thread.
#[derive(Clone, Debug)]
pub struct Reader(Arc<ArcSwap<Table>>);

/// The routes at one moment.
#[derive(Clone, Debug)]
pub struct Table {
    shards: Vec<Arc<Shard>>,
}

impl RoutingTable {
    /// A reader of this table.
    pub fn reader(&self) -> Reader {
        Reader(self.current.clone())
    }

    /// Does what [`crate::membership::Action::Changed`] of `nodes` asks for, all in one step.
    pub fn follow(&mut self, membership: &Membership, nodes: impl IntoIterator<Item = NodeId>) {
        self.update(nodes.into_iter().map(|node| (node, membership.routable(node).cloned())));
    }

    /// Routes calls to `record.node` as the record says.
    pub fn apply(&mut self, record: Arc<Record>) {
        self.update([(record.node, Some(record))]);
    }

    /// Routes no more calls to `node`.
    pub fn remove(&mut self, node: NodeId) {
        self.update([(node, None)]);
    }

    fn update(&mut self, changes: impl IntoIterator<Item = (NodeId, Option<Arc<Record>>)>) {
        let mut table = None;
        for (node, new) in changes {
            let new = new.filter(|record| record.profile.status == Status::Serving);
            let old = match &new {
                Some(record) => self.applied.insert(node, record.clone()),
                None => self.applied.remove(&node),
            };
            if old.is_some() || new.is_some() {
                let table = table.get_or_insert_with(|| Table::clone(&self.current.load()));
                table.replace(node, old.as_deref(), new.as_deref());
            }
        }
        if let Some(table) = table {
            self.current.store(Arc::new(table));
        }
    }
}

impl Reader {
    /// The routes now. What it gives keeps them as they are; hold it for a look, not across an `.await`.
    pub fn load(&self) -> Guard<Arc<Table>> {
        self.0.load()
    }
}

impl Default for Table {
    fn default() -> Self {
        Self { shards: vec![Arc::default(); SHARDS] }
    }
}

impl Table {
    /// The peers that serve `app/function` in the newest version of the app.
    ///
    /// Names are told apart by 64-bit hashes, since among 100,000 functions each further look at memory costs as much as
    /// all the rest: a name that nobody serves finds another's peers with a chance of 1 in 10^14, and is unknown there.
    pub fn lookup(&self, app: &str, function: &str) -> Option<Route<'_>> {
        self.app(app)?.route(FunctionKey::new(app, function))
    }

    /// All versions of an app.
    pub fn app(&self, name: &str) -> Option<&AppRoutes> {
        self.shards[shard_of(name)].get(name)
    }

    /// All apps, sorted by name.
    pub fn apps(&self) -> Vec<(&Arc<str>, &AppRoutes)> {
        let all = self.shards.iter().flat_map(|shard| shard.iter());
        let mut apps: Vec<_> = all.collect();
        apps.sort_unstable_by_key(|(name, _)| *name);
        apps
    }

    /// The at most 3 functions whose `app/function` looks most like this one, best first.
    ///
    /// Looks at the functions of the app, or if there is no such app, of those whose names are nearest to it: it costs
    /// no more than the names of all apps and the functions of three.
    pub fn nearest(&self, app: &str, function: &str) -> Vec<String> {
        let apps = match self.app(app) {
            Some(_) => vec![app.to_owned()],
            None => fnmesh_invoke::nearest(app, self.shards.iter().flat_map(|shard| shard.keys()).map(|name| &**name)),
        };
        let functions_of = |name: &String| {
            let functions = self.app(name).map(|app| app.newest().functions());
            functions.into_iter().flatten().map(|function| format!("{name}/{function}")).collect::<Vec<_>>()
        };
        let names: Vec<_> = apps.iter().flat_map(functions_of).collect();
        fnmesh_invoke::nearest(&format!("{app}/{function}"), names.iter().map(String::as_str))
    }

    /// Notes how busy `app` on `node` is, as a reply said. Any thread may do so; who looks next sees it.
    pub fn report(&self, app: &str, node: NodeId, load: Load) {
        let versions = self.app(app).into_iter().flat_map(AppRoutes::versions);
        for peer in versions.flat_map(|version| version.peers()).filter(|peer| peer.node == node) {
            peer.report(load);
        }
    }

    /// Notes that `app` on `node` takes calls again, if it did not as far as is known.
    pub fn relieve(&self, app: &str, node: NodeId) {
        let versions = self.app(app).into_iter().flat_map(AppRoutes::versions);
        let peers = versions.flat_map(|version| version.peers()).filter(|peer| peer.node == node);
        peers.filter(|peer| peer.load() >= Load::FULL).for_each(|peer| peer.report(Load::BUSY));
    }

    fn replace(&mut self, node: NodeId, old: Option<&Record>, new: Option<&Record>) {
        let zone = |record: Option<&Record>| record.map(|record| record.profile.zone.clone()).unwrap_or_default();
        let (old_zone, new_zone) = (zone(old), zone(new));
        let old_apps = old.map_or(&[][..], |record| &record.profile.apps);
        let new_apps = new.map_or(&[][..], |record| &record.profile.apps);
        let stays = |app: &App, others: &Names<'_>| {
            let other = others.get(&*app.name);
            old_zone == new_zone && other.is_some_and(|other| other.serves_as(app) && other.load == app.load)
        };
        let (before, after) = (names(old_apps), names(new_apps));
        for app in old_apps.iter().filter(|app| !stays(app, &after)) {
            self.withdraw(node, app);
        }
        for app in new_apps.iter().filter(|app| !stays(app, &before)) {
            self.announce(Peer::new(node, new_zone.clone(), app.load), app);
        }
    }

    fn announce(&mut self, peer: Peer, app: &App) {
        let shard = Arc::make_mut(&mut self.shards[shard_of(&app.name)]);
        match shard.get_mut(&app.name) {
            Some(routes) => routes.announce(peer, app),
            None => drop(shard.insert(app.name.clone(), AppRoutes::new(peer, app))),
        }
    }

    fn withdraw(&mut self, node: NodeId, app: &App) {
        let shard = Arc::make_mut(&mut self.shards[shard_of(&app.name)]);
        if let Some(routes) = shard.get_mut(&app.name)
            && routes.withdraw(node, app)
        {
            shard.remove(&app.name);
        }
    }
}

type Names<'a> = HashMap<&'a str, &'a App, FxBuildHasher>;

fn names(apps: &[App]) -> Names<'_> {
    apps.iter().map(|app| (&*app.name, app)).collect()
}

fn shard_of(app: &str) -> usize {
    // The low bits choose the place in the shard's own map.
    (FxBuildHasher.hash_one(app) >> 32) as usize % SHARDS
}
