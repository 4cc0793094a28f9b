use std::{
    hash::BuildHasher,
    sync::{
        Arc,
        atomic::{AtomicU16, Ordering},
    },
};

use hashbrown::HashTable;
use rustc_hash::FxBuildHasher;

use crate::{
    NodeId,
    membership::{App, Load},
};

/// Names the function `app/function` in statistics, whatever version serves it. A hash: two functions may share one by
/// a chance of about 1 in 10^9 among 100,000, and would then share their statistics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FunctionKey(pub(crate) u64);

impl FunctionKey {
    /// The key of `app/function`.
    pub fn new(app: &str, function: &str) -> Self {
        Self(FxBuildHasher.hash_one((app, function)))
    }
}

/// A node that serves an app.
#[derive(Clone, Debug)]
pub struct Peer {
    /// Which node.
    pub node: NodeId,
    /// Its zone; empty if it has none.
    pub zone: Arc<str>,
    load: Arc<AtomicU16>,
}

impl Peer {
    pub(crate) fn new(node: NodeId, zone: Arc<str>, load: Load) -> Self {
        Self { node, zone, load: Arc::new(AtomicU16::new(load.0)) }
    }

    /// How busy the app was there when it was last told.
    pub fn load(&self) -> Load {
        // A figure on its own: nothing else is read on the strength of it.
        Load(self.load.load(Ordering::Relaxed))
    }

    /// Notes how busy the app is there. All threads see it.
    pub fn report(&self, load: Load) {
        self.load.store(load.0, Ordering::Relaxed);
    }

    fn key(&self) -> (&str, NodeId) {
        (&self.zone, self.node)
    }
}

/// The versions of one app that are served somewhere.
#[derive(Clone, Debug)]
pub struct AppRoutes {
    newest: Arc<VersionRoutes>,
    /// The hashes of its functions, close at hand.
    keys: Keys,
    /// The others, newest first.
    older: Vec<Arc<VersionRoutes>>,
}

/// A set of [`FunctionKey`]s, which are hashes already.
#[derive(Clone, Debug)]
struct Keys(HashTable<u64>);

impl Keys {
    fn contains(&self, FunctionKey(key): FunctionKey) -> bool {
        self.0.find(key, |other| *other == key).is_some()
    }
}

/// Who serves one version of an app.
#[derive(Clone, Debug)]
pub struct VersionRoutes {
    number: u64,
    hash: [u8; 32],
    /// Sorted.
    functions: Arc<[Arc<str>]>,
    /// Never empty; sorted by zone, then node.
    peers: Vec<Peer>,
}

/// Where a function is served.
#[derive(Clone, Copy, Debug)]
pub struct Route<'a> {
    /// What names the function in statistics.
    pub key: FunctionKey,
    /// The version and its peers; clone the `Arc` to keep them.
    pub version: &'a Arc<VersionRoutes>,
}

impl AppRoutes {
    pub(super) fn new(peer: Peer, app: &App) -> Self {
        let newest = Arc::new(VersionRoutes::new(peer, app));
        Self { keys: newest.keys(&app.name), newest, older: Vec::new() }
    }

    /// The version that calls go to: the one with the highest number. Where two have it, because it was deployed on both
    /// sides of a cut, all nodes choose the same.
    pub fn newest(&self) -> &Arc<VersionRoutes> {
        &self.newest
    }

    /// All versions, newest first.
    pub fn versions(&self) -> impl Iterator<Item = &Arc<VersionRoutes>> {
        std::iter::once(&self.newest).chain(&self.older)
    }

    pub(super) fn route(&self, key: FunctionKey) -> Option<Route<'_>> {
        self.keys.contains(key).then_some(Route { key, version: &self.newest })
    }

    pub(super) fn announce(&mut self, peer: Peer, app: &App) {
        let mut versions = std::iter::once(&mut self.newest).chain(&mut self.older);
        if let Some(version) = versions.find(|version| version.is(app)) {
            return Arc::make_mut(version).insert(peer);
        }
        let mut new = Arc::new(VersionRoutes::new(peer, app));
        if new.age() > self.newest.age() {
            self.keys = new.keys(&app.name);
            std::mem::swap(&mut new, &mut self.newest);
        }
        let place = self.older.partition_point(|version| version.age() > new.age());
        self.older.insert(place, new);
    }

    /// Says whether nothing is left.
    pub(super) fn withdraw(&mut self, node: NodeId, app: &App) -> bool {
        if self.newest.is(app) {
            let newest = Arc::make_mut(&mut self.newest);
            newest.peers.retain(|peer| peer.node != node);
            if newest.peers.is_empty() {
                if self.older.is_empty() {
                    return true;
                }
                self.newest = self.older.remove(0);
                self.keys = self.newest.keys(&app.name);
            }
        } else if let Some(index) = self.older.iter().position(|version| version.is(app)) {
            let version = Arc::make_mut(&mut self.older[index]);
            version.peers.retain(|peer| peer.node != node);
            if version.peers.is_empty() {
                self.older.remove(index);
            }
        }
        false
    }
}

impl VersionRoutes {
    fn new(peer: Peer, app: &App) -> Self {
        Self { number: app.version, hash: app.hash, functions: functions(app).into(), peers: vec![peer] }
    }

    /// Its number.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// The hash of its content.
    pub fn hash(&self) -> &[u8; 32] {
        &self.hash
    }

    /// The names its functions are called by, sorted.
    pub fn functions(&self) -> impl ExactSizeIterator<Item = &Arc<str>> {
        self.functions.iter()
    }

    /// Who serves it, sorted by zone, then node; at least one.
    pub fn peers(&self) -> &[Peer] {
        &self.peers
    }

    fn keys(&self, app: &str) -> Keys {
        let mut keys = HashTable::with_capacity(self.functions.len());
        for function in &*self.functions {
            let FunctionKey(key) = FunctionKey::new(app, function);
            keys.insert_unique(key, key, |key| *key);
        }
        Keys(keys)
    }

    /// The same content has the same functions; if a node thinks otherwise it is another version to us.
    fn is(&self, app: &App) -> bool {
        self.age() == (app.version, app.hash) && *self.functions == *functions(app)
    }

    fn age(&self) -> (u64, [u8; 32]) {
        (self.number, self.hash)
    }

    fn insert(&mut self, peer: Peer) {
        let place = self.peers.binary_search_by(|other| other.key().cmp(&peer.key()));
        match place {
            Ok(index) => self.peers[index] = peer,
            Err(index) => self.peers.insert(index, peer),
        }
    }
}

fn functions(app: &App) -> Vec<Arc<str>> {
    let mut functions = app.functions.clone();
    functions.sort_unstable();
    functions.dedup();
    functions
}
