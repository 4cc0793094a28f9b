//! What a routing table of 1,000 nodes and 100,000 functions takes, by counting what is allocated.

mod support {
    pub(crate) mod fleet;
}

use std::{net::SocketAddr, time::Instant};

use fnmesh_mesh::{
    NodeId,
    membership::{Config, Entry, Event, Identity, Membership, Profile, Record, Snapshot},
    table::RoutingTable,
};
use support::fleet::{APPS, Counting, FUNCTIONS_PER_APP, NODES, REPLICAS, live_bytes, record, total_bytes};

#[global_allocator]
static HEAP: Counting = Counting;

// One test: what another thread allocates would be counted too.
#[test]
fn a_thousand_nodes_and_100_000_functions_fit_100_mb() {
    let before = live_bytes();
    let mut table = RoutingTable::default();
    (0..NODES).for_each(|node| table.apply(record(node, 1)));
    let bytes = live_bytes() - before;
    println!("table with its records: {} MB", bytes / 1_000_000);
    assert!(bytes <= 100_000_000, "{bytes} bytes");
    let reader = table.reader();
    let now = reader.load();
    assert_eq!(now.apps().len(), APPS);
    assert!(now.apps().iter().all(|(_, app)| {
        app.newest().functions().len() == FUNCTIONS_PER_APP && app.newest().peers().len() == REPLICAS
    }));
    drop(now);

    // What membership keeps besides the records.
    let records: Vec<_> = (0..NODES).map(|node| record(node, 1)).collect();
    let members = records.iter().map(|record| entry(record)).collect();
    let (live, mut actions) = (live_bytes(), Vec::new());
    let identity = Identity::new(NodeId::from_bytes([7; 16]), address(), 1);
    let start = Instant::now();
    let mut membership = Membership::new(Config::default(), identity, Profile::default(), 1, start, &mut actions);
    let snapshot = Box::new(Snapshot { members, records });
    membership.handle(Event::Snapshot { from: identity.node, snapshot }, start, &mut actions);
    assert_eq!(membership.members().len(), NODES);
    drop(actions);
    let bytes = live_bytes() - live;
    println!("membership without its records: {} KB", bytes / 1_000);
    assert!(bytes <= 1_000_000, "{bytes} bytes");

    // One node deploys another version of its apps: nothing is copied but what lies in their shards.
    let news = record(7, 2);
    let (live, total) = (live_bytes(), total_bytes());
    table.apply(news);
    let allocated = total_bytes() - total;
    println!("one node's news: {allocated} bytes allocated, {} bytes more", live_bytes().saturating_sub(live));
    assert!(allocated <= 50_000, "{allocated} bytes");
}

fn entry(record: &Record) -> Entry {
    Entry {
        node: record.node,
        address: address(),
        generation: record.generation,
        renewals: 0,
        incarnation: 0,
        stamp: Some(record.stamp()),
    }
}

fn address() -> SocketAddr {
    SocketAddr::from(([10, 0, 0, 1], 7100))
}
