//! Prints what lookups in a routing table of 1,000 nodes and 100,000 functions cost.
//!
//! `cargo run --release -p fnmesh-mesh --example table`

#[path = "../tests/support/fleet.rs"]
mod fleet;

use std::{hint::black_box, time::Instant};

use fleet::{APPS, Counting, FUNCTIONS_PER_APP, NODES, app_name, function_name, live_bytes, record, total_bytes};
use fnmesh_mesh::table::{Reader, RoutingTable};

#[global_allocator]
static HEAP: Counting = Counting;

const LOOKUPS: usize = 2_000_000;

fn main() {
    let before = live_bytes();
    let start = Instant::now();
    let mut table = RoutingTable::default();
    (0..NODES).for_each(|node| table.apply(record(node, 1)));
    let took = start.elapsed();
    let bytes = live_bytes() - before;
    println!("{NODES} nodes, {APPS} apps, {} functions", APPS * FUNCTIONS_PER_APP);
    println!("table and records: {:.1} MB; made in {took:?}", bytes as f64 / 1e6);

    // One after the other in memory, as a request's name is at hand when it is looked up.
    let mut text = String::new();
    let mut spans = Vec::new();
    for _ in 0..LOOKUPS / 10 {
        let (app, function) = (fastrand::usize(..APPS), fastrand::usize(..FUNCTIONS_PER_APP));
        let (start, middle) = (text.len(), text.len() + app_name(app).len());
        text += &app_name(app);
        text += &function_name(app, function);
        spans.push([start, middle, text.len()]);
    }
    let names: Vec<_> =
        spans.iter().map(|[start, middle, end]| (&text[*start..*middle], &text[*middle..*end])).collect();
    let reader = table.reader();
    let hot = &names[..16];
    for (what, names) in [("any function", &names[..]), ("one of 16 functions", hot)] {
        let runs: Vec<_> = (0..5).map(|_| nanoseconds(&reader, names)).collect();
        println!("lookup of {what}: {} ns", list(&runs));
    }

    let (total, start) = (total_bytes(), Instant::now());
    let news: Vec<_> = (0..100).map(|node| record(node, 2)).collect();
    let (made, total_made) = (start.elapsed(), total_bytes() - total);
    let (total, start) = (total_bytes(), Instant::now());
    news.into_iter().for_each(|record| table.apply(record));
    let per = |bytes: usize| bytes / 100;
    println!("one node's news: {:?}, {} bytes allocated", start.elapsed() / 100, per(total_bytes() - total));
    println!("  (the record alone: {:?}, {} bytes)", made / 100, per(total_made));
}

fn nanoseconds(reader: &Reader, names: &[(&str, &str)]) -> f64 {
    let start = Instant::now();
    let mut found = 0;
    for (app, function) in names.iter().cycle().take(LOOKUPS) {
        let table = reader.load();
        found += usize::from(black_box(table.lookup(black_box(app), black_box(function))).is_some());
    }
    assert_eq!(found, LOOKUPS);
    start.elapsed().as_nanos() as f64 / LOOKUPS as f64
}

fn list(figures: &[f64]) -> String {
    figures.iter().map(|figure| format!("{figure:.0}")).collect::<Vec<_>>().join(", ")
}
