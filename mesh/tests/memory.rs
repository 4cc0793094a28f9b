//! What a routing table of 1,000 nodes and 100,000 functions takes, by counting what is allocated.

mod support {
    pub(crate) mod fleet;
}

use fnmesh_mesh::table::RoutingTable;
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

    // One node deploys another version of its apps: nothing is copied but what lies in their shards.
    let news = record(7, 2);
    let (live, total) = (live_bytes(), total_bytes());
    table.apply(news);
    let allocated = total_bytes() - total;
    println!("one node's news: {allocated} bytes allocated, {} bytes more", live_bytes().saturating_sub(live));
    assert!(allocated <= 50_000, "{allocated} bytes");
}
