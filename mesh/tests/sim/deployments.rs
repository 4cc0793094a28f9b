//! Apps are deployed, replaced and removed while the mesh is cut, nodes die, come back and drain.

use std::{num::NonZero, time::Duration};

use fnmesh_mesh::deployments::{Content, Replicas};

use super::{
    ms, s,
    world::{Mix, Spec, World, content},
};

const DAY: u64 = 24 * 3_600;

/// The apps by number.
const THREE: usize = 0;
const ALL: usize = 1;
const AUTO: usize = 2;

fn three() -> Replicas {
    Replicas::Count(NonZero::new(3).expect("it is not 0"))
}

/// One app on the first three nodes, one on all, and one that follows its load.
fn world(seed: u64, nodes: usize) -> World {
    let spec = |name: &str, replicas| Spec {
        name: name.into(),
        replicas,
        max_instances: 2,
        concurrency: 8,
        queue: 200,
        service: ms(50),
    };
    let on_all = (0..nodes).collect();
    let apps = vec![
        (spec("three", three()), vec![0, 1, 2]),
        (spec("all", Replicas::All), on_all),
        (spec("auto", Replicas::Auto), vec![1]),
    ];
    World::deployed(seed, nodes, apps)
}

fn cut_in_halves(world: &mut World) {
    let (left, right): (Vec<_>, Vec<_>) = (0..world.nodes.len()).partition(|node| node % 2 == 0);
    world.cut(&left, &right);
    world.cut(&right, &left);
}

/// Whether just so many nodes serve an app, and all of them this content.
fn is_served_by(world: &World, app: usize, count: usize, content: &Content) -> bool {
    let hosts = world.hosts(app);
    hosts.len() == count && hosts.iter().all(|node| world.serves(*node, app) == Some(content.hash))
}

fn knows(world: &World, node: usize, app: &str, content: Option<&Content>) -> bool {
    world.nodes[node].registry.get(app).is_some_and(|record| record.content.as_ref() == content)
}

#[test]
fn of_two_versions_that_are_deployed_during_a_cut_one_wins_on_all_nodes() {
    for seed in 0..4 {
        let mut world = world(seed, 10);
        cut_in_halves(&mut world);
        world.run(s(15));
        // The later one wins, on whichever side it is; if they are of the same moment, the larger hash.
        let (first, last, pause) = [(0, 1, s(1)), (1, 0, s(1)), (0, 1, s(0)), (1, 0, s(0))][seed as usize];
        let numbers = if pause.is_zero() { [7, 8] } else { [8, 7] };
        for app in ["three", "all"] {
            let replicas = if app == "all" { Replicas::All } else { three() };
            world.change(first, app, Some(content(numbers[0])), replicas);
            world.run(pause);
            world.change(last, app, Some(content(numbers[1])), replicas);
            world.run(s(0));
        }
        world.run(s(20));
        for node in 0..10 {
            let number = numbers[usize::from(node % 2 == last % 2)];
            assert_eq!(world.serves(node, ALL), Some([number; 32]), "each side serves its own");
        }
        world.heal();
        let took = world.run_until(s(3), World::agrees);
        let winner = content(numbers[1]);
        assert!((0..10).all(|node| knows(&world, node, "three", Some(&winner))));
        let served = world.run_until(s(3), |world| is_served_by(world, ALL, 10, &winner));
        let settled = served + world.run_until(s(60), |world| is_served_by(world, THREE, 3, &winner));
        println!("seed {seed}: agreed after {took:?}, served after {served:?}, on three nodes after {settled:?}");
        world.run(s(60));
        assert!(is_served_by(&world, THREE, 3, &winner) && is_served_by(&world, ALL, 10, &winner));
    }
}

#[test]
fn removed_on_one_side_of_a_cut_and_deployed_on_the_other_the_later_counts() {
    for seed in 0..6 {
        let mut world = world(seed, 8);
        cut_in_halves(&mut world);
        world.run(s(5));
        let again = content(9);
        let is_removed = seed % 2 == 0;
        let change = |world: &mut World, removes: bool| {
            let content = if removes { None } else { Some(again.clone()) };
            world.change(usize::from(removes), "all", content, Replicas::All);
        };
        change(&mut world, !is_removed);
        world.run(ms(200));
        change(&mut world, is_removed);
        // Two changes count for more than a later one.
        let is_twice = seed >= 4;
        if is_twice {
            world.run(ms(200));
            let node = usize::from(!is_removed);
            world.change(node, "all", Some(content(10)), Replicas::All);
        }
        world.run(s(10));
        world.heal();
        let took = world.run_until(s(3), World::agrees);
        let wanted = match (is_twice, is_removed) {
            (true, _) => Some(content(10)),
            (false, true) => None,
            (false, false) => Some(again.clone()),
        };
        assert!((0..8).all(|node| knows(&world, node, "all", wanted.as_ref())));
        let done = world.run_until(s(10), |world| match &wanted {
            Some(content) => is_served_by(world, ALL, 8, content),
            None => world.hosts(ALL).is_empty(),
        });
        println!("seed {seed}: agreed after {took:?}, done after {done:?}");
    }
}

#[test]
fn a_node_that_was_away_for_long_does_not_bring_back_what_was_removed() {
    for seed in 0..5 {
        let mut world = world(seed, 5);
        let away = [1, 2];
        away.iter().for_each(|node| world.kill(*node));
        world.run(s(20));
        for app in ["three", "auto"] {
            world.change(0, app, None, Replicas::Auto);
        }
        world.run(s(5));
        // Not so long that the removal is forgotten.
        world.date += Duration::from_secs(80 * DAY);
        world.run(s(5));
        away.iter().for_each(|node| world.start(*node, &[0]));
        let took = world.run_until(s(3), World::agrees);
        println!("seed {seed}: agreed after {took:?}");
        world.run_until(s(10), |world| world.hosts(THREE).is_empty() && world.hosts(AUTO).is_empty());
        world.run(s(30));
        assert!(world.hosts(THREE).is_empty() && world.hosts(AUTO).is_empty());
        let kept = [THREE, AUTO].map(|app| [app as u8 + 100; 32]);
        assert!(world.nodes.iter().all(|node| kept.iter().all(|bundle| !node.bundles.contains(bundle))));
        assert_eq!(world.hosts(ALL).len(), 5);
    }
}

#[test]
fn numbers_of_replicas_are_kept_while_nodes_die_and_come_back() {
    for seed in 0..4 {
        let mut world = world(seed, 8);
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut fewest = usize::MAX;
        for _ in 0..8 {
            let node = rng.usize(1..8);
            world.kill(node);
            for _ in 0..rng.usize(5..40) {
                world.run(ms(500));
                fewest = fewest.min(world.hosts(THREE).len());
            }
            world.start(node, &[0]);
            world.run(s(15));
            assert_eq!(world.hosts(ALL).len(), 8, "after 15 s: {:?}", world.work.moves);
        }
        world.run_until(s(30), |world| world.hosts(THREE).len() == 3 && world.hosts(AUTO).len() == 1);
        world.run(s(60));
        assert_eq!((world.hosts(THREE).len(), world.hosts(AUTO).len(), world.hosts(ALL).len()), (3, 1, 8));
        println!("seed {seed}: never fewer than {fewest} of 3, {} moves", world.work.moves.len());
        assert!(fewest >= 2);
    }
}

#[test]
fn a_deployment_is_known_to_100_nodes_in_a_moment() {
    for seed in 0..3 {
        let mut world = World::acquainted(seed, 100, 1);
        world.network.loss = 0.1;
        world.run(s(2));
        world.change(7, "shop", Some(content(1)), Replicas::Auto);
        let took =
            world.run_until(s(1), |world| world.live().all(|node| knows(world, node, "shop", Some(&content(1)))));
        world.run(s(1));
        let told = world.told;
        println!("seed {seed}: known after {took:?}, {} messages and {} bytes", told.messages, told.bytes);
        // Each of those that hear of it tells 16.
        assert_eq!(told.messages, 99 + 99 * 16);
        assert!(told.bytes < told.messages * 600, "{told:?}");
    }
}

#[test]
fn who_has_no_link_to_where_it_was_deployed_hears_of_it_from_others() {
    for seed in 0..3 {
        let mut world = World::acquainted(seed, 100, 1);
        world.run(s(2));
        let far: Vec<_> = (50..100).collect();
        world.cut(&[7], &far);
        world.cut(&far, &[7]);
        // Until links are lost, and membership has found other ways.
        world.run(s(10));
        world.change(7, "shop", Some(content(1)), Replicas::Auto);
        let took =
            world.run_until(s(1), |world| world.live().all(|node| knows(world, node, "shop", Some(&content(1)))));
        println!("seed {seed}: known after {took:?}");
    }
}

#[test]
fn a_bundle_comes_from_who_keeps_it_and_without_one_nothing_is_served() {
    for seed in 0..5 {
        let mut world = world(seed, 6);
        world.network.loss = 0.05;
        world.kill(5);
        world.run(s(5));
        world.change(0, "all", Some(content(3)), Replicas::All);
        world.run_until(s(10), |world| is_served_by(world, ALL, 5, &content(3)));
        // Whatever happened to them: nobody has the bundle any more.
        world.nodes.iter_mut().for_each(|node| node.bundles.clear());
        world.start(5, &[0]);
        world.run(s(20));
        assert_eq!(world.serves(5, ALL), None);
        assert!(world.nodes[5].profile.unable.iter().any(|app| &**app == "all"), "and it says so");
        world.nodes[3].bundles.insert(content(3).bundle);
        let took = world.run_until(s(7), |world| is_served_by(world, ALL, 6, &content(3)));
        println!("seed {seed}: served {took:?} after the bundle was found");
    }
}

#[test]
fn a_node_drains_and_leaves_without_a_failed_call() {
    for seed in 0..6 {
        let mut world = world(seed, 4);
        let weights = vec![(THREE, 0.4), (ALL, 0.2), (AUTO, 0.4)];
        world.call(Some(Mix { per_second: 150.0, weights, entries: vec![0, 2, 3], idempotent: 0.0, timeout: s(10) }));
        world.run(s(5));
        let since = world.now;
        // The only host of an app, and one of those of the others.
        world.drain(1);
        let took = world.run_until(s(10), |world| world.has_drained(1));
        world.run(s(2));
        world.leave(1);
        world.run(s(20));
        world.call(None);
        world.run(s(11));
        let figures = world.figures(since);
        println!("seed {seed}: drained after {took:?}, {} calls", figures.calls);
        assert!(figures.failed.is_empty() && figures.answered == figures.calls, "{figures:?}");
        assert_eq!((world.hosts(THREE).len(), world.hosts(AUTO).len(), world.hosts(ALL).len()), (3, 1, 3));
    }
}

#[test]
fn a_new_version_replaces_the_old_without_a_failed_call() {
    for seed in 0..4 {
        let mut world = world(seed, 5);
        let weights = vec![(THREE, 0.5), (ALL, 0.5)];
        let entries = (0..5).collect();
        world.call(Some(Mix { per_second: 150.0, weights, entries, idempotent: 0.0, timeout: s(10) }));
        world.run(s(5));
        let since = world.now;
        world.change(3, "three", Some(content(4)), three());
        world.change(3, "all", Some(content(5)), Replicas::All);
        let took = world.run_until(s(5), |world| is_served_by(world, ALL, 5, &content(5)));
        world.run_until(s(15), |world| is_served_by(world, THREE, 3, &content(4)));
        world.run(s(10));
        world.call(None);
        world.run(s(11));
        let figures = world.figures(since);
        println!("seed {seed}: served by all after {took:?}, {} calls", figures.calls);
        assert!(figures.failed.is_empty() && figures.answered == figures.calls, "{figures:?}");
    }
}
