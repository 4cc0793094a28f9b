//! The mesh in simulation: nodes on a memory transport under a virtual clock. Each run is decided by its seed, which
//! is printed when it fails.

#[path = "sim/deployments.rs"]
mod deployments;
#[path = "sim/faults.rs"]
mod faults;
#[path = "sim/heat.rs"]
mod heat;
#[path = "sim/mod.rs"]
mod world;

use std::time::Duration;

use world::{Notice, World};

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn s(s: u64) -> Duration {
    Duration::from_secs(s)
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let run = |seed| {
        let mut world = World::new(seed, 10, 3);
        world.network.loss = 0.05;
        (0..10).for_each(|node| world.start(node, &[0]));
        world.run(s(20));
        world.kill(4);
        world.run(s(20));
        world.nodes.iter().map(|node| (node.sent.messages, node.sent.bytes, node.notices.clone())).collect::<Vec<_>>()
    };
    assert_eq!(run(7), run(7));
    assert_ne!(run(7), run(8));
}

#[test]
fn nodes_that_start_together_find_each_other() {
    for (count, limit) in [(3, s(2)), (20, s(3)), (100, s(5))] {
        for seed in 0..3 {
            let mut world = World::new(seed, count, 3);
            for node in 0..count {
                world.start(node, &[0]);
            }
            let took = world.run_until(limit, World::is_converged);
            println!("{count} nodes, seed {seed}: all know all after {took:?}");
        }
    }
}

#[test]
fn a_new_route_reaches_all_of_20_nodes() {
    for seed in 0..10 {
        let mut world = World::settled(seed, 20);
        world.describe(7, |profile| profile.apps[0].version = 2);
        let took = world.run_until(ms(1_500), World::is_converged);
        println!("20 nodes, seed {seed}: new route everywhere after {took:?}");
    }
}

#[test]
fn a_dead_node_is_out_within_3_seconds() {
    for count in [3, 20] {
        for seed in 0..40 {
            let mut world = World::settled(seed, count);
            world.tells_links = false;
            world.run(ms(seed * 7));
            world.kill(1);
            let took = world.run_until(s(3), World::is_converged);
            println!("{count} nodes, seed {seed}: dead node out everywhere after {took:?}");
        }
    }
}

#[test]
fn a_leaving_node_is_out_at_once() {
    for seed in 0..3 {
        let mut world = World::settled(seed, 20);
        let since = world.now;
        world.leave(3);
        let took = world.run_until(ms(20), World::is_converged);
        assert_eq!((world.notices(since, Notice::Left), world.notices(since, Notice::Down)), (19, 0));
        println!("20 nodes, seed {seed}: left everywhere after {took:?}");
    }
}

#[test]
fn a_restarted_node_replaces_its_old_self() {
    for seed in 0..3 {
        let mut world = World::settled(seed, 20);
        world.kill(5);
        world.run(ms(50));
        world.start(5, &[2]);
        let took = world.run_until(ms(2_500), World::is_converged);
        println!("20 nodes, seed {seed}: restarted node known everywhere after {took:?}");
    }
}

#[test]
fn a_stopped_node_comes_back_by_itself() {
    for seed in 0..3 {
        let mut world = World::settled(seed, 3);
        world.pause(2);
        world.run_until(s(3), |world| !world.routes_to(0, 2) && !world.routes_to(1, 2));
        world.run(s(10));
        world.resume(2);
        let took = world.run_until(s(5), World::is_converged);
        println!("3 nodes, seed {seed}: stopped node back after {took:?}");
    }
}

#[test]
fn views_converge_after_a_partition() {
    for (count, cut_for) in [(2, s(20)), (3, s(20)), (20, s(20)), (20, s(1)), (20, s(300)), (100, s(20))] {
        for seed in 0..3 {
            let mut world = World::settled(seed, count);
            let (left, right): (Vec<_>, Vec<_>) = (0..count).partition(|node| node % 2 == 0);
            world.cut(&left, &right);
            world.cut(&right, &left);
            world.run(cut_for);
            if cut_for > s(5) {
                let is_split =
                    |node: usize| (0..count).all(|other| world.routes_to(node, other) == (node % 2 == other % 2));
                assert!((0..count).all(is_split));
            }
            world.heal();
            let took = world.run_until(s(15), World::is_converged);
            // Who was suspected before may still be thought dead for a moment.
            world.run(s(5));
            let since = world.now;
            world.run(s(30));
            assert!(world.is_converged());
            assert_eq!(world.notices(since, Notice::Down), 0);
            println!("{count} nodes, seed {seed}, cut for {cut_for:?}: one view after {took:?}");
        }
    }
}

#[test]
fn views_converge_after_a_partition_even_if_no_link_tells() {
    for seed in 0..3 {
        let mut world = World::settled(seed, 20);
        world.tells_links = false;
        let (left, right): (Vec<_>, Vec<_>) = (0..20).partition(|node| node % 3 == 0);
        world.cut(&left, &right);
        world.cut(&right, &left);
        world.run(s(20));
        world.heal();
        let took = world.run_until(s(20), World::is_converged);
        println!("20 nodes, seed {seed}: one view after {took:?}");
    }
}

#[test]
fn a_peer_that_does_not_hear_is_not_routed_to() {
    for seed in 0..3 {
        let mut world = World::settled(seed, 20);
        let since = world.now;
        world.cut(&[4], &[9]);
        world.run_until(s(4), |world| !world.routes_to(4, 9) && !world.routes_to(9, 4));
        world.run(s(30));
        assert!(!world.routes_to(4, 9) && !world.routes_to(9, 4), "the link is judged, not what others say");
        assert_eq!(world.notices(since, Notice::Down), 0, "both are alive for all others");
        world.heal();
        world.run_until(s(2), World::is_converged);
    }
}

#[test]
fn nothing_flaps_at_one_percent_loss() {
    let mut world = World::settled(1, 20);
    world.network.loss = 0.01;
    world.network.delay = ms(5);
    world.network.jitter = ms(10);
    let since = world.now;
    world.run(s(600));
    assert_eq!(world.notices(since, Notice::Down), 0);
    assert!(world.is_converged());
}

#[test]
fn a_new_route_gets_through_heavy_loss() {
    for seed in 0..3 {
        let mut world = World::settled(seed, 20);
        world.network.loss = 0.4;
        world.describe(11, |profile| profile.apps[0].version = 2);
        let has_it = |world: &World, node: usize| {
            world.membership(node).record(world.nodes[11].id).is_some_and(|record| record.profile.apps[0].version == 2)
        };
        let took = world.run_until(s(20), |world| world.live().all(|node| has_it(world, node)));
        println!("20 nodes, seed {seed}, 40 % loss: new route everywhere after {took:?}");
        world.network.loss = 0.0;
        world.run_until(s(15), World::is_converged);
    }
}

#[test]
fn what_gossip_missed_comes_by_comparison() {
    for seed in 0..5 {
        let mut world = World::settled(seed, 20);
        world.tells_links = false;
        let others: Vec<_> = (0..20).filter(|node| *node != 6).collect();
        world.cut(&[6], &others);
        world.cut(&others, &[6]);
        world.describe(11, |profile| profile.apps[0].version = 2);
        // Too short for anybody to be dead, long enough for all to have told it as often as they do.
        world.run(ms(1_100));
        world.heal();
        let took = world.run_until(s(25), World::is_converged);
        println!("20 nodes, seed {seed}: the missed route is known after {took:?}");
    }
}

#[test]
fn a_slow_peer_stays_a_member() {
    let mut world = World::settled(2, 20);
    world.nodes[6].slowness = ms(200);
    let since = world.now;
    world.run(s(60));
    assert_eq!(world.notices(since, Notice::Down), 0);
    assert!(world.is_converged());
}

#[test]
fn a_thousand_nodes_are_quiet_when_nothing_changes() {
    let mut world = World::acquainted(1, 1_000, 100);
    world.run(s(8));
    world.reset_traffic();
    world.run(s(10));
    let sent = world.traffic();
    println!("1000 nodes: {} messages/s and {} bytes/s sent by a node", sent.messages / 10, sent.bytes / 10);
    assert!(sent.bytes / 10 <= 20_000, "{sent:?} in 10 s");
    assert_eq!(world.notices(Duration::ZERO, Notice::Down), 0);

    world.describe(500, |profile| profile.apps[0].version = 2);
    let took = world.run_until(s(5), |world| (0..1_000).filter(|node| world.knows(*node, 500)).count() >= 990);
    println!("1000 nodes: new route known by 99 % after {took:?}");

    world.tells_links = false;
    world.kill(3);
    let took = world.run_until(s(15), |world| world.live().filter(|node| !world.routes_to(*node, 3)).count() >= 990);
    println!("1000 nodes: dead node out of 99 % after {took:?}");
}
