use proptest::prelude::*;

use super::*;
use crate::membership::Profile;

fn id(node: u8) -> NodeId {
    NodeId::from_bytes([node; 16])
}

fn app(name: &str, version: u64, functions: &[&str]) -> App {
    let functions = functions.iter().map(|name| Arc::from(*name)).collect();
    App { name: name.into(), version, hash: [version as u8; 32], functions, load: Load(0) }
}

fn record(node: u8, version: u64, apps: Vec<App>) -> Arc<Record> {
    Arc::new(Record { node: id(node), generation: 1, version, profile: Profile { apps, ..Profile::default() } })
}

fn peers(table: &Reader, app: &str, function: &str) -> Vec<NodeId> {
    let table = table.load();
    let route = table.lookup(app, function);
    route.map(|route| route.version.peers().iter().map(|peer| peer.node).collect()).unwrap_or_default()
}

#[test]
fn a_function_is_found_on_all_that_serve_it() {
    let mut table = RoutingTable::default();
    let reader = table.reader();
    table.apply(record(1, 1, vec![app("shop", 1, &["add", "total"]), app("text", 1, &["merge"])]));
    table.apply(record(2, 1, vec![app("shop", 1, &["add", "total"])]));
    assert_eq!(peers(&reader, "shop", "add"), [id(1), id(2)]);
    assert_eq!(peers(&reader, "text", "merge"), [id(1)]);
    assert!(reader.load().lookup("shop", "nope").is_none() && reader.load().lookup("nope", "add").is_none());
    table.remove(id(1));
    assert_eq!(peers(&reader, "shop", "add"), [id(2)]);
    assert!(reader.load().app("text").is_none());
}

#[test]
fn the_newest_version_serves() {
    let mut table = RoutingTable::default();
    let reader = table.reader();
    table.apply(record(1, 1, vec![app("shop", 1, &["add"])]));
    table.apply(record(2, 1, vec![app("shop", 2, &["total"])]));
    assert_eq!(peers(&reader, "shop", "total"), [id(2)]);
    let now = reader.load();
    assert!(now.lookup("shop", "add").is_none(), "the new version removed it");
    let numbers: Vec<_> = now.app("shop").unwrap().versions().map(|version| version.number()).collect();
    assert_eq!(numbers, [2, 1]);
    table.remove(id(2));
    assert_eq!(peers(&reader, "shop", "add"), [id(1)], "the old one serves again");
    assert!(now.lookup("shop", "add").is_none(), "who looks at an earlier moment still sees it");
}

#[test]
fn a_draining_node_gets_no_calls() {
    let mut table = RoutingTable::default();
    let serving = record(1, 1, vec![app("shop", 1, &["add"])]);
    table.apply(serving.clone());
    let mut draining = Record::clone(&serving);
    draining.profile.status = Status::Draining;
    table.apply(Arc::new(draining));
    assert!(table.reader().load().apps().is_empty());
}

#[test]
fn what_is_unchanged_is_shared() {
    let mut table = RoutingTable::default();
    let reader = table.reader();
    table.apply(record(1, 1, vec![app("shop", 1, &["add"])]));
    table.apply(record(2, 1, vec![app("text", 1, &["merge"]), app("shop", 1, &["add"])]));
    let before = Arc::clone(&reader.load());
    table.apply(record(2, 2, vec![app("text", 2, &["merge"]), app("shop", 1, &["add"])]));
    let after = Arc::clone(&reader.load());
    let differing = before.shards.iter().zip(&after.shards).filter(|(a, b)| !Arc::ptr_eq(a, b)).count();
    assert_eq!(differing, 1);
    let newest = |table: &Table| table.app("shop").unwrap().newest().clone();
    assert!(Arc::ptr_eq(&newest(&before), &newest(&after)));
}

#[test]
fn reported_load_is_seen_by_all_and_survives_other_news() {
    let mut table = RoutingTable::default();
    let reader = table.reader();
    table.apply(record(1, 1, vec![app("shop", 1, &["add"])]));
    let load = |table: &Reader| table.load().lookup("shop", "add").unwrap().version.peers()[0].load();
    reader.load().report("shop", id(1), Load(40));
    assert_eq!(load(&reader), Load(40));
    table.apply(record(2, 1, vec![app("shop", 1, &["add"])]));
    table.apply(record(1, 2, vec![app("shop", 1, &["add"]), app("more", 1, &["f"])]));
    assert_eq!(load(&reader), Load(40), "the record said nothing new of it");
}

#[test]
fn nearest_names_come_from_the_nearest_apps() {
    let mut table = RoutingTable::default();
    table.apply(record(1, 1, vec![app("shop", 1, &["add", "total"]), app("text", 1, &["merge", "marge"])]));
    let now = table.reader().load().clone();
    assert_eq!(now.nearest("text", "merg")[0], "text/merge");
    assert_eq!(now.nearest("shp", "add")[0], "shop/add");
    assert!(now.nearest("qqqqqq", "zzz").is_empty());
}

#[test]
fn peers_are_sorted_by_zone() {
    let mut table = RoutingTable::default();
    for (node, zone) in [(1, "b"), (2, "a"), (3, "b"), (4, "a")] {
        let mut record = Record::clone(&record(node, 1, vec![app("shop", 1, &["add"])]));
        record.profile.zone = zone.into();
        table.apply(Arc::new(record));
    }
    assert_eq!(peers(&table.reader(), "shop", "add"), [id(2), id(4), id(1), id(3)]);
}

fn any_app() -> impl Strategy<Value = App> {
    let functions = prop::collection::vec(prop::sample::select(vec!["f", "g", "h"]), 1..=3);
    (0..4_u8, 1..3_u64, functions)
        .prop_map(|(name, version, functions)| app(&format!("app{name}"), version, &functions))
}

proptest! {
    #[test]
    fn any_order_of_changes_ends_as_if_begun_anew(
        changes in prop::collection::vec((0..5_u8, prop::option::of(prop::collection::vec(any_app(), 0..4))), 0..30),
    ) {
        let mut table = RoutingTable::default();
        let mut last = BTreeMap::new();
        for (version, (node, apps)) in changes.into_iter().enumerate() {
            let apps = apps.map(|mut apps| {
                // A node serves one version of an app.
                apps.sort_by(|a, b| a.name.cmp(&b.name));
                apps.dedup_by(|a, b| a.name == b.name);
                apps
            });
            match apps {
                Some(apps) => {
                    let record = record(node, version as u64, apps);
                    last.insert(node, record.clone());
                    table.apply(record);
                }
                None => {
                    last.remove(&node);
                    table.remove(id(node));
                }
            }
        }
        let mut anew = RoutingTable::default();
        last.into_values().for_each(|record| anew.apply(record));
        prop_assert_eq!(shape(&table), shape(&anew));
    }
}

/// All that can be looked up.
fn shape(table: &RoutingTable) -> Vec<String> {
    let now = table.reader().load().clone();
    let mut lines = Vec::new();
    for (name, app) in now.apps() {
        let mut versions: Vec<_> = app
            .versions()
            .map(|version| {
                let mut functions: Vec<_> = version.functions().collect();
                functions.sort();
                let peers: Vec<_> = version.peers().iter().map(|peer| peer.node).collect();
                format!("{name} v{} {functions:?} {peers:?}", version.number())
            })
            .collect();
        // Versions that differ in functions alone have no order.
        versions.sort();
        lines.extend(versions);
    }
    lines
}
