//! A large mesh's records, and an allocator that counts.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use fnmesh_mesh::{
    NodeId,
    membership::{App, Load, Profile, Record},
};

pub(crate) const NODES: usize = 1_000;
pub(crate) const APPS: usize = 1_000;
pub(crate) const FUNCTIONS_PER_APP: usize = 100;
pub(crate) const REPLICAS: usize = 3;

static LIVE: AtomicUsize = AtomicUsize::new(0);
static TOTAL: AtomicUsize = AtomicUsize::new(0);

/// The system's allocator, counting bytes.
pub(crate) struct Counting;

// SAFETY: every call goes to the system's allocator with the arguments it came with.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        LIVE.fetch_add(layout.size(), Ordering::Relaxed);
        TOTAL.fetch_add(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller keeps alloc's contract, which is the same there.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller keeps dealloc's contract, and `pointer` is from `System.alloc`.
        unsafe { System.dealloc(pointer, layout) }
    }
}

/// Bytes that are allocated now.
pub(crate) fn live_bytes() -> usize {
    LIVE.load(Ordering::Relaxed)
}

/// Bytes that were ever allocated.
pub(crate) fn total_bytes() -> usize {
    TOTAL.load(Ordering::Relaxed)
}

pub(crate) fn app_name(app: usize) -> String {
    format!("application-{app}")
}

pub(crate) fn function_name(app: usize, function: usize) -> String {
    format!("module_{}.function_{function}", app % 7)
}

/// The record of one node: it serves `REPLICAS` apps, each of which is on as many nodes. Nothing in it is shared with
/// other records, as it is when they come from the network.
pub(crate) fn record(node: usize, version: u64) -> Arc<Record> {
    let apps = (0..REPLICAS).map(|replica| app((node + replica * 331) % APPS, version)).collect();
    let profile = Profile { name: format!("node-{node}").into(), apps, ..Profile::default() };
    Arc::new(Record { node: node_id(node), generation: 1_790_000_000_000, version, profile })
}

fn node_id(node: usize) -> NodeId {
    NodeId::of_key(&node.to_be_bytes())
}

fn app(index: usize, version: u64) -> App {
    let mut hash = [version as u8; 32];
    hash[..8].copy_from_slice(&index.to_be_bytes());
    let functions = (0..FUNCTIONS_PER_APP).map(|function| function_name(index, function).into()).collect();
    App { name: app_name(index).into(), version, hash, functions, load: Load(0) }
}
