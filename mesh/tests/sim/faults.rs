//! Calls while nodes die, come back, stop, slow down, and lose sight of each other.

use std::{collections::BTreeSet, num::NonZero, time::Duration};

use fnmesh_mesh::deployments::Replicas;

use super::{
    ms, s,
    world::{End, Mix, Spec, World},
};

const NODES: usize = 5;
const HOT: usize = 0;

fn spec(name: &str, replicas: usize) -> Spec {
    let replicas = NonZero::new(replicas).map_or(Replicas::Auto, Replicas::Count);
    Spec { name: name.into(), replicas, max_instances: 2, concurrency: 8, queue: 200, service: ms(50) }
}

/// Nearly all calls are of the first app, which is on the first three nodes.
fn world(seed: u64, entries: Vec<usize>) -> World {
    let mut world = World::deployed(seed, NODES, vec![(spec("hot", 3), vec![0, 1, 2]), (spec("cold", 0), vec![3])]);
    let weights = vec![(HOT, 0.9), (1, 0.1)];
    world.call(Some(Mix { per_second: 150.0, weights, entries, idempotent: 0.5, timeout: s(10) }));
    world
}

/// What always holds, whatever happened. The clients of nodes that were `stopped` had to wait.
fn assert_invariants(world: &World, stopped: &BTreeSet<usize>) {
    for (number, call) in world.work.calls.iter().enumerate() {
        let Some((at, end)) = &call.end else { panic!("call {number} has no answer: {call:?}") };
        assert!(call.is_idempotent || call.executions <= 1, "call {number} ran twice: {call:?}");
        let is_answered = matches!(end, End::Answered(_));
        assert!(!is_answered || call.executions >= 1, "call {number} was answered and did not run: {call:?}");
        let is_in_time = *at <= call.deadline || stopped.contains(&call.entry);
        assert!(is_in_time, "call {number} ended too late: {call:?}");
    }
}

/// One fault or its end, at random.
struct Trouble {
    rng: fastrand::Rng,
    dead: BTreeSet<usize>,
    paused: BTreeSet<usize>,
    /// Those that ever were.
    stopped: BTreeSet<usize>,
}

impl Trouble {
    fn new(seed: u64) -> Self {
        let rng = fastrand::Rng::with_seed(seed ^ 0x5eed);
        Self { rng, dead: BTreeSet::new(), paused: BTreeSet::new(), stopped: BTreeSet::new() }
    }

    fn strike(&mut self, world: &mut World) {
        let node = self.rng.usize(..NODES);
        match self.rng.u8(..6) {
            0 if !self.is_out(node) && self.dead.len() < NODES - 1 => {
                world.kill(node);
                self.dead.insert(node);
            }
            1 if !self.is_out(node) => {
                world.pause(node);
                self.paused.insert(node);
                self.stopped.insert(node);
            }
            2 => {
                let (left, right): (Vec<_>, Vec<_>) = (0..NODES).partition(|_| self.rng.bool());
                world.cut(&left, &right);
                if self.rng.bool() {
                    world.cut(&right, &left);
                }
            }
            3 => {
                (world.nodes[node].slowness, world.nodes[node].pace) = (ms(self.rng.u64(..100)), self.rng.f64() * 10.0)
            }
            4 => world.network.loss = self.rng.f64() * 0.1,
            _ => self.mend(world),
        }
    }

    /// Ends all that is wrong but for slowness.
    fn mend(&mut self, world: &mut World) {
        world.heal();
        self.paused.iter().for_each(|node| world.resume(*node));
        let seeds: Vec<_> = (0..NODES).filter(|node| !self.dead.contains(node)).collect();
        self.dead.iter().for_each(|node| world.start(*node, &seeds));
        (self.paused, self.dead) = Default::default();
    }

    fn is_out(&self, node: usize) -> bool {
        self.dead.contains(&node) || self.paused.contains(&node)
    }
}

#[test]
fn every_call_ends_and_none_runs_twice_unless_it_may() {
    let (mut calls, mut failed, mut repeated) = (0, 0, 0);
    for seed in 0..40 {
        let mut world = world(seed, (0..NODES).collect());
        let mut trouble = Trouble::new(seed);
        for _ in 0..15 {
            world.run(ms(trouble.rng.u64(100..5_000)));
            trouble.strike(&mut world);
        }
        trouble.mend(&mut world);
        world.network.loss = 0.0;
        for node in &mut world.nodes {
            (node.slowness, node.pace) = (Duration::ZERO, 1.0);
        }
        world.run_until(s(20), World::is_converged);
        world.run(s(15));
        let since = world.now;
        world.run(s(5));
        world.call(None);
        world.run(s(11));
        assert_invariants(&world, &trouble.stopped);
        let after = world.figures(since);
        assert_eq!(after.calls, after.answered, "once all is well: {after:?}");
        let all = world.figures(Duration::ZERO);
        calls += all.calls;
        failed += all.calls - all.answered;
        repeated += all.repeated;
    }
    println!("{calls} calls, {failed} failed, {repeated} that may run twice did");
    assert!(failed > 0 && repeated > 0, "nothing has gone wrong, so nothing is shown");
}

#[test]
fn idempotent_calls_succeed_while_one_host_survives() {
    for seed in 0..20 {
        // Clients call nodes that stay; of the three hosts one does, too.
        let mut world = world(seed, vec![2, 3, 4]);
        let mut rng = fastrand::Rng::with_seed(seed);
        for _ in 0..6 {
            let node = rng.usize(..2);
            let is_killed = rng.bool();
            if is_killed {
                world.kill(node)
            } else {
                world.pause(node)
            }
            world.nodes[1 - node].slowness = ms(rng.u64(..50));
            world.run(ms(rng.u64(500..8_000)));
            if is_killed {
                world.start(node, &[2, 3])
            } else {
                world.resume(node)
            }
            world.run(ms(rng.u64(500..8_000)));
        }
        world.call(None);
        world.run(s(11));
        assert_invariants(&world, &BTreeSet::new());
        for call in &world.work.calls {
            let (_, end) = call.end.as_ref().unwrap();
            let is_answered = matches!(end, End::Answered(_));
            // Others fail if they were on the node that died or stopped, and say that their outcome is unknown.
            let is_lost = *end == End::Failed("OutcomeUnknown".to_owned());
            assert!(is_answered || (is_lost && !call.is_idempotent), "{call:?}");
        }
    }
}

#[test]
fn a_host_that_dies_fails_only_the_calls_it_had() {
    for seed in 0..20 {
        let mut world = world(seed, vec![3, 4]);
        world.run(s(5));
        world.kill(0);
        let since = world.now;
        world.run(s(4));
        let begun_after = world.now;
        world.run(s(10));
        world.call(None);
        world.run(s(11));
        assert_invariants(&world, &BTreeSet::new());
        let failed = world.work.calls.iter().filter(|call| !matches!(call.end, Some((_, End::Answered(_)))));
        let failed: Vec<_> = failed.collect();
        assert!(failed.iter().all(|call| !call.is_idempotent && call.began < begun_after), "{failed:?}");
        println!("seed {seed}: {} calls failed, of {}", failed.len(), world.figures(since).calls);
    }
}

#[test]
fn an_app_whose_only_host_dies_is_called_elsewhere_soon() {
    for seed in 0..10 {
        let mut world = world(seed, vec![0, 1, 2]);
        world.run(s(2));
        world.kill(3);
        let since = world.now;
        world.run(s(20));
        world.call(None);
        world.run(s(11));
        assert_invariants(&world, &BTreeSet::new());
        let cold = world.work.calls.iter().filter(|call| call.app == 1 && call.began >= since);
        let unanswered: Vec<_> = cold.filter(|call| !matches!(call.end, Some((_, End::Answered(_))))).collect();
        println!("seed {seed}: {} calls without a result", unanswered.len());
        for call in unanswered {
            assert!(call.began < since + s(5), "{call:?}");
        }
        assert_eq!(world.hosts(1).len(), 1);
    }
}
