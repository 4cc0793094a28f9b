use std::{collections::BTreeSet, net::SocketAddr, sync::Arc, time::Duration};

use fnmesh_mesh::{
    NodeId,
    deployments::Registry,
    membership::{App, Load, Membership, Profile},
    table::RoutingTable,
};

use super::{Item, entry::Entry, hosting::Hosting};

/// Messages and bytes one node sent.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Traffic {
    pub(crate) messages: u64,
    pub(crate) bytes: u64,
}

/// What a node noticed of another, and when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Notice {
    Up,
    Down,
    Left,
}

pub(crate) struct Node {
    pub(crate) id: NodeId,
    pub(crate) profile: Profile,
    pub(crate) membership: Option<Membership>,
    /// Follows membership on the first nodes, or on all where there are calls.
    pub(super) table: RoutingTable,
    pub(crate) sent: Traffic,
    pub(crate) notices: Vec<(Duration, NodeId, Notice)>,
    /// Whatever it sends or gets takes so much longer.
    pub(crate) slowness: Duration,
    /// Calls that run on it take so many times as long.
    pub(crate) pace: f64,
    pub(super) hosting: Option<Hosting>,
    /// What it knows of what is deployed; it is on disk, as are the bundles, by hash.
    pub(crate) registry: Registry,
    pub(crate) bundles: BTreeSet<[u8; 32]>,
    /// In which of its lives it has a link to each node; 0 where it has none.
    pub(super) linked: Vec<u32>,
    /// What it hosted when it ended.
    pub(super) before: BTreeSet<usize>,
    pub(super) entry: Option<Entry>,
    /// What it has not looked at while it is stopped.
    pub(super) paused: Option<Vec<Item>>,
    pub(super) life: u32,
    pub(super) address: SocketAddr,
}

pub(super) fn app(index: usize, names: &[Arc<str>]) -> App {
    let mut hash = [0; 32];
    hash[..8].copy_from_slice(&(index as u64).to_be_bytes());
    App { name: format!("app{index}").into(), version: 1, hash, functions: names.to_vec(), load: Load(0) }
}
