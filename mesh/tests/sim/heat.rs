//! Apps follow the heat: calls, and where the apps that they are of are hosted.

use std::{num::NonZero, time::Duration};

use fnmesh_mesh::deployments::Replicas;

use super::{
    ms, s,
    world::{Mix, Spec, World},
};

/// The app that most calls are of.
const HOT: usize = 0;

/// Calls a second that one node can run of an app.
const ONE_NODE: f64 = 80.0;

const ONE: Replicas = Replicas::Count(NonZero::<usize>::MIN);

fn spec(name: &str, replicas: Replicas) -> Spec {
    Spec { name: name.into(), replicas, max_instances: 2, concurrency: 4, queue: 200, service: ms(100) }
}

/// Three nodes or more, the hot app on the first of them, and three other apps on the first three.
fn world(seed: u64, count: usize, replicas: Replicas) -> World {
    let others = (1..4).map(|app| (spec(&format!("other{app}"), Replicas::Auto), vec![app - 1]));
    World::deployed(seed, count, std::iter::once((spec("hot", replicas), vec![0])).chain(others).collect())
}

/// 90 % of the calls are of the hot app; so many times what one node can run.
fn skewed(load: f64) -> Mix {
    let weights = vec![(HOT, 0.9), (1, 0.1 / 3.0), (2, 0.1 / 3.0), (3, 0.1 / 3.0)];
    let per_second = load * ONE_NODE / 0.9;
    Mix { per_second, weights, entries: vec![0, 1, 2], idempotent: 0.5, timeout: s(10) }
}

fn is_on(nodes: usize) -> impl Fn(&World) -> bool {
    move |world| world.hosts(HOT).len() >= nodes
}

#[test]
fn a_hot_app_is_on_all_three_nodes_within_5_seconds_and_rests() {
    for seed in 0..6 {
        // Enough for three nodes, and too much.
        for load in [2.7, 4.0] {
            let mut world = world(seed, 3, Replicas::Auto);
            world.call(Some(skewed(load)));
            let took = world.run_until(s(5), is_on(3));
            println!("seed {seed}, load {load}: on all nodes after {took:?}");
            let minutes = if seed == 0 { 10 } else { 1 };
            world.run(s(60 * minutes));
            assert_eq!((world.hosts(HOT).len(), world.work.moves.len()), (3, 2), "{:?}", world.work.moves);
        }
    }
}

#[test]
fn three_nodes_do_at_least_twice_what_one_does() {
    for seed in 0..3 {
        let throughput = |replicas| {
            let mut world = world(seed, 3, replicas);
            world.call(Some(skewed(4.0)));
            world.run(s(10));
            let since = world.now;
            world.run(s(20));
            world.throughput(HOT, since)
        };
        let (one, auto) = (throughput(ONE), throughput(Replicas::Auto));
        println!("seed {seed}: {one:.0} calls/s on one node, {auto:.0} on three");
        assert!(one > 0.9 * ONE_NODE && auto >= 2.0 * one, "{one} {auto}");
    }
}

#[test]
fn wherever_clients_call_a_hot_app_spreads() {
    for entry in 0..3 {
        let mut world = world(7, 3, Replicas::Auto);
        world.call(Some(Mix { entries: vec![entry], ..skewed(2.7) }));
        let took = world.run_until(s(5), is_on(3));
        println!("all calls at node {entry}: on all nodes after {took:?}");
        // What has piled up until then is done first.
        world.run(s(30));
        let since = world.now;
        world.run(s(60));
        let figures = world.figures(since);
        assert!(figures.failed.is_empty() && figures.p99 < ms(500), "{figures:?}");
        assert_eq!(world.work.moves.len(), 2, "{:?}", world.work.moves);
    }
}

#[test]
fn a_hot_app_gets_no_more_nodes_than_it_needs() {
    for seed in 0..5 {
        for start in [ms(300), s(3)] {
            let mut world = world(seed, 20, Replicas::Auto);
            world.work.start = start;
            world.call(Some(skewed(1.25)));
            world.run(s(60));
            let hosts = world.hosts(HOT).len();
            // What has piled up while it started for 3 s may take one more.
            let most = if start < s(1) { 2 } else { 3 };
            assert!((2..=most).contains(&hosts), "{:?}", world.work.moves);
            assert_eq!(world.work.moves.len(), hosts - 1, "{:?}", world.work.moves);
        }
    }
}

#[test]
fn an_app_that_needs_many_nodes_has_them_soon_and_not_twice_as_many() {
    for seed in 0..4 {
        for (needed, limit) in [(5, s(12)), (17, s(14))] {
            let mut world = world(seed, 20, Replicas::Auto);
            // Nodes do nine tenths of what they can.
            world.call(Some(Mix { entries: (0..20).collect(), ..skewed(0.9 * needed as f64) }));
            let took = world.run_until(limit, is_on(needed));
            println!("seed {seed}: on {needed} nodes after {took:?}");
            let mut last = 1;
            let at = |moved: usize| world.work.moves[moved].at;
            // Whoever begins within a second is of the same step.
            let starts = (0..world.work.moves.len()).filter(|moved| *moved == 0 || at(*moved) > at(moved - 1) + s(1));
            for before in starts.skip(1) {
                assert!(before < 2 * last, "{:?}", world.work.moves);
                last = before + 1;
            }
            world.run(s(60));
            let hosts = world.hosts(HOT).len();
            // What has piled up until then is to be done, too.
            assert!((needed..2 * needed).contains(&hosts), "{hosts}: {:?}", world.work.moves);
            assert_eq!(world.work.moves.len(), hosts - 1, "{:?}", world.work.moves);
        }
    }
}

#[test]
fn nodes_that_carry_many_light_apps_have_room() {
    for seed in 0..6 {
        let light = |app: usize| {
            let spec = Spec { concurrency: 1, ..spec(&format!("light{app}"), Replicas::Auto) };
            (spec, vec![app % 3])
        };
        let specs = std::iter::once((spec("hot", Replicas::Auto), vec![0])).chain((1..10).map(light));
        let mut world = World::deployed(seed, 3, specs.collect());
        let weights = std::iter::once((HOT, 200.0)).chain((1..10).map(|app| (app, 5.0))).collect();
        world.call(Some(Mix { per_second: 245.0, weights, ..skewed(1.0) }));
        let took = world.run_until(s(5), is_on(3));
        println!("seed {seed}: on all nodes after {took:?}");
    }
}

#[test]
fn calls_that_wait_everywhere_are_not_sent_around() {
    let mut world = world(3, 3, Replicas::Auto);
    world.call(Some(Mix { weights: vec![(HOT, 1.0)], ..skewed(4.0) }));
    world.run(s(10));
    let since = world.now;
    world.run(s(60));
    let figures = world.figures(since);
    println!("{figures:?}");
    assert!(figures.remote * 50 < figures.answered, "{figures:?}");
    assert!(figures.attempts * 50 < figures.calls * 51, "{figures:?}");
    assert!(figures.failed.keys().all(|kind| kind == "Throttled"), "{figures:?}");
}

#[test]
fn an_app_that_cools_down_goes_back_to_one_node() {
    let mut world = world(4, 3, Replicas::Auto);
    world.work.placement.keep_alive = s(20);
    world.call(Some(skewed(2.7)));
    world.run_until(s(5), is_on(3));
    world.call(Some(Mix { weights: vec![(1, 1.0)], ..skewed(0.1) }));
    world.run_until(s(60), |world| world.hosts(HOT).len() == 1);
    let since = world.now;
    // Its calls go where it is left, also from those who have just retired.
    world.call(Some(skewed(0.5)));
    world.run(s(60));
    world.call(None);
    world.run(s(11));
    let figures = world.figures(since);
    assert!(figures.failed.is_empty() && figures.calls == figures.answered, "{figures:?}");
    assert_eq!(world.hosts(HOT).len(), 1);
}

#[test]
fn nothing_is_moved_by_calls_that_one_node_can_run() {
    for seed in 0..3 {
        let mut world = world(seed, 3, Replicas::Auto);
        world.call(Some(skewed(0.6)));
        let since = world.now;
        world.run(s(60));
        assert!(world.work.moves.is_empty(), "{:?}", world.work.moves);
        assert!(world.figures(since).failed.is_empty());
    }
}

/// Bytes and messages of membership, load that is announced included.
#[test]
fn calls_cost_membership_little() {
    let mut world = world(5, 3, Replicas::Auto);
    world.call(Some(skewed(2.7)));
    world.run_until(s(5), is_on(3));
    world.run(s(5));
    world.reset_traffic();
    world.run(Duration::from_secs(60));
    let sent = world.traffic();
    println!("{} messages/s and {} bytes/s sent by a node", sent.messages / 60, sent.bytes / 60);
    assert!(sent.messages <= 60 * 15 && sent.bytes <= 60 * 3_000, "{sent:?} in 60 s");
}
