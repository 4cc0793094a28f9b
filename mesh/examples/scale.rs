//! Prints what the simulation shows for meshes of 10, 100 and 1,000 nodes, as a table for docs/scale.md.
//!
//! `cargo run --release -p fnmesh-mesh --example scale`

// The tests use more of it.
#[allow(dead_code, unused_imports)]
#[path = "../tests/sim/mod.rs"]
mod world;

use std::time::Duration;

use fnmesh_mesh::deployments::Replicas;
use world::{World, content};

const SEEDS: u64 = 5;
const SIZES: [usize; 3] = [10, 100, 1_000];
const LIMIT: Duration = Duration::from_secs(60);

fn main() {
    let columns: Vec<Vec<(&str, String)>> = SIZES.iter().map(|&nodes| column(nodes)).collect();
    let sizes: Vec<_> = SIZES.iter().map(|nodes| format!("{nodes} nodes")).collect();
    println!("| | {} |\n|---|{}", sizes.join(" | "), "---|".repeat(SIZES.len()));
    for row in 0..columns[0].len() {
        let cells: Vec<_> = columns.iter().map(|column| column[row].1.as_str()).collect();
        println!("| {} | {} |", columns[0][row].0, cells.join(" | "));
    }
}

fn column(nodes: usize) -> Vec<(&'static str, String)> {
    let runs: Vec<_> = (0..SEEDS).map(|seed| run(seed, nodes)).collect();
    let names = runs[0].iter().map(|(name, _)| *name);
    names.enumerate().map(|(row, name)| (name, range(runs.iter().map(|run| run[row].1).collect()))).collect()
}

/// The figures of one simulated mesh.
fn run(seed: u64, nodes: usize) -> Vec<(&'static str, f64)> {
    eprintln!("{nodes} nodes, seed {seed}");
    let mut world = World::acquainted(seed, nodes, 100);
    world.tells_links = false;
    world.run(Duration::from_secs(8));
    world.reset_traffic();
    world.run(Duration::from_secs(20));
    let quiet = world.traffic();
    let most = |share: usize| nodes * share / 100;

    world.reset_traffic();
    let changed = nodes / 2;
    world.describe(changed, |profile| profile.apps[0].version = 2);
    let knowing = |world: &World, of| world.live().filter(|node| world.knows(*node, of)).count();
    let route = world.run_until(LIMIT, |world| knowing(world, changed) >= most(99));
    let route_all = route + world.run_until(LIMIT, |world| knowing(world, changed) == nodes);
    world.run(Duration::from_secs(20) - route_all);
    let noisy = world.traffic();

    let deployer = nodes / 3;
    world.change(deployer, "shop", Some(content(1)), Replicas::Auto);
    let has_heard = |world: &World, node: usize| world.nodes[node].registry.get("shop").is_some();
    let deployed = world.run_until(LIMIT, |world| world.live().all(|node| has_heard(world, node)));
    world.run(Duration::from_secs(1));
    let told = world.told.bytes as f64 / nodes as f64;

    let joiner = nodes;
    world.start(joiner, &[1]);
    let sees = world.run_until(LIMIT, |world| world.live().all(|node| world.knows(joiner, node)));
    let seen = sees + world.run_until(LIMIT, |world| world.live().all(|node| world.knows(node, joiner)));

    let routing = |world: &World, to| world.live().filter(|node| world.routes_to(*node, to)).count();
    world.leave(joiner);
    let left = world.run_until(LIMIT, |world| routing(world, joiner) == 0);

    world.run(Duration::from_secs(5) + Duration::from_millis(seed * 53));
    world.kill(changed);
    let dead = world.run_until(LIMIT, |world| routing(world, changed) <= nodes - 1 - most(99));
    let dead_all = dead + world.run_until(LIMIT, |world| routing(world, changed) == 0);

    vec![
        ("nothing changes: messages/s a node sends", quiet.messages as f64 / 20.0),
        ("nothing changes: bytes/s a node sends", quiet.bytes as f64 / 20.0),
        ("new route, known by 99 %, s", route.as_secs_f64()),
        ("new route, known by all, s", route_all.as_secs_f64()),
        ("new route, bytes a node sends for it", noisy.bytes.saturating_sub(quiet.bytes) as f64),
        ("new deployment, known by all, s", deployed.as_secs_f64()),
        ("new deployment, bytes a node sends for it", told),
        ("new node knows all, s", sees.as_secs_f64()),
        ("all know the new node, s", seen.as_secs_f64()),
        ("leaving node out everywhere, s", left.as_secs_f64()),
        ("dead node out of 99 %, s", dead.as_secs_f64()),
        ("dead node out everywhere, s", dead_all.as_secs_f64()),
    ]
}

fn range(mut figures: Vec<f64>) -> String {
    figures.sort_by(f64::total_cmp);
    let (least, most) = (figures[0], figures[figures.len() - 1]);
    let digits = if most < 20.0 { 2 } else { 0 };
    if least == most { format!("{least:.digits$}") } else { format!("{least:.digits$} to {most:.digits$}") }
}
