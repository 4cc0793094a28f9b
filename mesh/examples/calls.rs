//! Prints what the simulation of calls shows for meshes of 3, 10 and 100 nodes, as tables for docs/scale.md.
//!
//! `cargo run --release -p fnmesh-mesh --example calls [faults|heat]`

// The tests use more of it.
#[allow(dead_code, unused_imports)]
#[path = "../tests/sim/mod.rs"]
mod world;

use std::{num::NonZero, time::Duration};

use fnmesh_mesh::deployments::Replicas;
use world::{End, Mix, Spec, World};

/// How many nodes, and how many seeds.
const SIZES: [(usize, u64); 3] = [(3, 5), (10, 5), (100, 1)];
/// Calls a second that one node can run of the hot app.
const ONE_NODE: f64 = 16.0;
const HOT: usize = 0;

type Figures = Vec<(&'static str, f64)>;

fn main() {
    let only = std::env::args().nth(1);
    let is_asked = |what: &str| only.as_ref().is_none_or(|only| only == what);
    if is_asked("faults") {
        println!("While nodes die:\n");
        table(faults);
    }
    if is_asked("heat") {
        println!("\nFollowing the heat:\n");
        table(heat);
    }
}

fn table(run: fn(u64, usize) -> Figures) {
    let column = |(nodes, seeds)| (0..seeds).map(|seed| run(seed, nodes)).collect();
    let columns: Vec<Vec<Figures>> = SIZES.map(column).into();
    let sizes: Vec<_> = SIZES.iter().map(|(nodes, _)| format!("{nodes} nodes")).collect();
    println!("| | {} |\n|---|{}", sizes.join(" | "), "---|".repeat(SIZES.len()));
    for (row, (name, _)) in columns[0][0].iter().enumerate() {
        let cell = |runs: &Vec<Figures>| range(runs.iter().map(|run| run[row].1).collect());
        println!("| {name} | {} |", columns.iter().map(cell).collect::<Vec<_>>().join(" | "));
    }
}

fn spec(name: &str, replicas: Replicas) -> Spec {
    Spec {
        name: name.into(),
        replicas,
        max_instances: 2,
        concurrency: 4,
        queue: 200,
        service: Duration::from_millis(500),
    }
}

/// The hot app on these nodes, and one other on each of the first three.
fn world(seed: u64, nodes: usize, replicas: Replicas, hosts: Vec<usize>) -> World {
    let others = (0..3).map(|node| (spec(&format!("other{node}"), Replicas::Auto), vec![node]));
    World::deployed(seed, nodes, std::iter::once((spec("hot", replicas), hosts)).chain(others).collect())
}

/// 90 % of the calls are of the hot app: so much of what all nodes can run of it.
fn skewed(nodes: usize, load: f64) -> Mix {
    let others = (1..=3).map(|app| (app, 0.1 / 3.0));
    let weights = std::iter::once((HOT, 0.9)).chain(others).collect();
    let per_second = nodes as f64 * load * ONE_NODE / 0.9;
    Mix { per_second, weights, entries: (0..nodes).collect(), idempotent: 0.5, timeout: Duration::from_secs(20) }
}

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// An app gets hot that is on one node.
fn heat(seed: u64, nodes: usize) -> Figures {
    eprintln!("heat: {nodes} nodes, seed {seed}");
    let mut world = world(seed, nodes, Replicas::Auto, vec![0]);
    let wanted = nodes - nodes / 10;
    world.call(Some(skewed(nodes, 0.95)));
    let begin = world.now;
    let second = world.run_until(secs(60), |world| world.hosts(HOT).len() >= 2);
    let spread = second + world.run_until(secs(1_000), |world| world.hosts(HOT).len() >= wanted);
    let end = world.now;
    // What has piled up is done.
    world.run(secs(60));
    let meanwhile = world.work.calls.iter().filter(|call| call.app == HOT && (begin..end).contains(&call.began));
    let (answered, failed): (Vec<_>, Vec<_>) =
        meanwhile.partition(|call| matches!(call.end, Some((_, End::Answered(_)))));
    let failed = 100.0 * failed.len() as f64 / (answered.len() + failed.len()) as f64;
    let (since, moves) = (world.now, world.work.moves.len());
    world.reset_traffic();
    world.run(secs(60));
    let throughput = world.throughput(HOT, since) / ONE_NODE;
    let (calls, sent) = (world.figures(since), world.traffic());
    world.run(secs(540));
    let figures = vec![
        ("second node serves the hot app, s", second.as_secs_f64()),
        ("9 of 10 nodes serve it (of 3: all), s", spread.as_secs_f64()),
        ("of the calls until then without a result, %", failed),
        ("throughput, times that of one node", throughput),
        ("median, ms", calls.median.as_secs_f64() * 1e3),
        ("p99, ms", calls.p99.as_secs_f64() * 1e3),
        ("attempts for each call", calls.attempts as f64 / calls.calls as f64),
        ("apps that move in the following 10 minutes", (world.work.moves.len() - moves) as f64),
        ("membership: bytes/s a node sends", sent.bytes as f64 / 60.0),
    ];
    eprintln!("{figures:?}");
    figures
}

/// Of the nodes a tenth, or one, dies each 10 s and comes back 5 s later.
fn faults(seed: u64, nodes: usize) -> Figures {
    eprintln!("faults: {nodes} nodes, seed {seed}");
    let replicas = Replicas::Count(NonZero::new((nodes * 2 / 3).max(2)).expect("at least 2"));
    let mut world = world(seed, nodes, replicas, (0..(nodes * 2 / 3).max(2)).collect());
    let mut rng = fastrand::Rng::with_seed(seed);
    world.call(Some(Mix { weights: vec![(HOT, 1.0)], ..skewed(nodes, 0.35) }));
    let since = world.now;
    for _ in 0..6 {
        let dying = rng.choose_multiple(0..nodes, nodes.div_ceil(10));
        dying.iter().for_each(|node| world.kill(*node));
        world.run(secs(5));
        let seed = (0..nodes).find(|node| !dying.contains(node)).expect("one lives");
        dying.iter().for_each(|node| world.start(*node, &[seed]));
        world.run(secs(5));
    }
    world.call(None);
    world.run(secs(21));
    let figures = world.figures(since);
    let failed = |kind: &str| figures.failed.get(kind).copied().unwrap_or_default();
    let twice = world.work.calls.iter().filter(|call| !call.is_idempotent && call.executions > 1);
    let others = figures.calls - figures.answered - failed("EntryLost") - failed("OutcomeUnknown");
    let share = |count: usize| 100.0 * count as f64 / figures.calls as f64;
    vec![
        ("calls", figures.calls as f64),
        ("without an answer", figures.open as f64),
        ("not idempotent, and run twice", twice.count() as f64),
        ("their entry node died, %", share(failed("EntryLost"))),
        ("outcome unknown, %", share(failed("OutcomeUnknown"))),
        ("other errors, %", share(others)),
        ("p99, ms", figures.p99.as_secs_f64() * 1e3),
    ]
}

fn range(mut figures: Vec<f64>) -> String {
    figures.sort_by(f64::total_cmp);
    let (least, most) = (figures[0], figures[figures.len() - 1]);
    let digits = if most < 20.0 && figures.iter().any(|figure| figure.fract() != 0.0) { 2 } else { 0 };
    let [least, most] = [least, most].map(|figure| format!("{figure:.digits$}"));
    if least == most { least } else { format!("{least} to {most}") }
}
