use std::{collections::BTreeMap, sync::Arc};

use fnmesh_invoke::Error;
use proptest::prelude::*;

use super::*;

const ME: NodeId = id(0);

const fn id(node: u8) -> NodeId {
    NodeId::from_bytes([node; 16])
}

fn function() -> FunctionKey {
    FunctionKey::new("shop", "add")
}

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// Peers 1, 2, ... with these zones, sorted as the table has them.
fn peers(zones: &[&str]) -> Vec<Peer> {
    let mut peers: Vec<_> =
        (1..).zip(zones).map(|(node, zone)| Peer::new(id(node), Arc::from(*zone), Load(0))).collect();
    peers.sort_by(|a, b| (&a.zone, a.node).cmp(&(&b.zone, b.node)));
    peers
}

struct Calls {
    balancer: Balancer,
    peers: Vec<Peer>,
    now: Instant,
}

impl Calls {
    fn new(zones: &[&str], seed: u64) -> Self {
        let balancer = Balancer::new(Config::default(), ME, "", seed);
        Self { balancer, peers: peers(zones), now: Instant::now() }
    }

    fn choose(&mut self) -> NodeId {
        let choice = self.balancer.choose(function(), &self.peers, Local::Absent, &[], self.now);
        let Some(Choice::Peer(peer)) = choice else { panic!("{choice:?}") };
        peer
    }

    fn call(&mut self, peer: NodeId, outcome: Outcome, latency: Duration) {
        self.balancer.sent(function(), peer, self.now);
        self.balancer.done(function(), peer, outcome, latency, self.now);
    }

    /// Makes calls one after the other; `run` says how they end. Counts them by peer.
    fn run(&mut self, count: usize, run: impl Fn(NodeId) -> (Outcome, Duration)) -> BTreeMap<NodeId, usize> {
        let mut counts = BTreeMap::new();
        for _ in 0..count {
            let peer = self.choose();
            let (outcome, latency) = run(peer);
            self.now += ms(1);
            self.call(peer, outcome, latency);
            *counts.entry(peer).or_default() += 1;
        }
        counts
    }
}

#[test]
fn calls_run_here_until_it_is_saturated() {
    let mut calls = Calls::new(&["", ""], 1);
    let mut choose =
        |local, peers: &[Peer], tried: &[NodeId]| calls.balancer.choose(function(), peers, local, tried, calls.now);
    let all = peers(&["", ""]);
    assert_eq!(choose(Local::Ready, &all, &[]), Some(Choice::Here));
    let saturated = Local::Saturated(Load::new(5, 4));
    assert!(matches!(choose(saturated, &all, &[]), Some(Choice::Peer(_))));
    assert_eq!(choose(saturated, &[], &[]), Some(Choice::Here));
    assert_eq!(choose(saturated, &all, &[id(1), id(2)]), Some(Choice::Here));
    assert_eq!(choose(saturated, &all, &[ME, id(1)]), Some(Choice::Peer(id(2))));
    assert_eq!(choose(Local::Ready, &all, &[ME, id(1)]), Some(Choice::Peer(id(2))));
    assert_eq!(choose(Local::Absent, &all, &[id(1), id(2)]), None);
    assert_eq!(choose(Local::Absent, &[], &[]), None);
}

#[test]
fn a_saturated_node_spills_only_to_who_is_less_busy() {
    for seed in 0..20 {
        let mut calls = Calls::new(&["", "", "far", "far"], seed);
        let (now, own) = (calls.now, Load::new(6, 4));
        let mut choose = |peers: &[Peer], tried: &[NodeId]| {
            calls.balancer.choose(function(), peers, Local::Saturated(own), tried, now)
        };
        let all = peers(&["", "", "far", "far"]);
        all.iter().for_each(|peer| peer.report(own));
        assert_eq!(choose(&all, &[]), Some(Choice::Here), "all are as busy");
        all[1].report(Load(own.0 + 1));
        assert_eq!(choose(&all, &[]), Some(Choice::Here));
        for less_busy in [3, 0] {
            all[less_busy].report(Load::BUSY);
            assert_eq!(choose(&all, &[]), Some(Choice::Peer(all[less_busy].node)), "the own zone first");
        }
        assert_eq!(choose(&all, &[all[0].node, all[3].node]), Some(Choice::Here));
        all.iter().for_each(|peer| peer.report(Load(own.0 + 1)));
        assert!(matches!(choose(&all, &[ME]), Some(Choice::Peer(_))), "this node has refused it");
    }
}

#[test]
fn a_call_is_spilled_to_begin_at_once_or_to_wait_for_clearly_less() {
    for (own, peer, expected) in [
        (17, 15, true),
        (17, 16, false),
        (16, 16, false),
        (15, 15, false),
        (40, 36, false),
        (40, 34, true),
        (400, 360, false),
        (400, 340, true),
        (400, 0, true),
        (u16::MAX, u16::MAX, false),
    ] {
        assert_eq!(is_worth_it(Load(own), Load(peer)), expected, "{own} {peer}");
    }
}

#[test]
fn a_saturated_node_does_not_spill_to_the_ejected() {
    let mut calls = Calls::new(&["", ""], 12);
    let choose = |calls: &mut Calls, local| calls.balancer.choose(function(), &calls.peers, local, &[], calls.now);
    let saturated = Local::Saturated(Load::new(6, 4));
    (0..5).for_each(|_| calls.call(id(1), Outcome::Failed, ms(1)));
    calls.peers[1].report(Load::new(7, 4));
    assert_eq!(choose(&mut calls, saturated), Some(Choice::Here));
    calls.now += Duration::from_secs(1);
    assert_eq!(choose(&mut calls, saturated), Some(Choice::Peer(id(1))));
}

#[test]
fn a_slow_peer_gets_few_calls() {
    let mut calls = Calls::new(&["", "", ""], 2);
    let counts = calls.run(3_000, |peer| (Outcome::Answered, if peer == id(1) { ms(100) } else { ms(5) }));
    assert!(counts[&id(1)] < 100, "{counts:?}");
    assert!(counts[&id(2)] > 1_000 && counts[&id(3)] > 1_000, "{counts:?}");
}

#[test]
fn fast_failures_attract_no_load() {
    let mut calls = Calls::new(&["", "", ""], 3);
    let counts = calls.run(3_000, |peer| {
        if peer == id(1) { (Outcome::Failed, Duration::from_micros(50)) } else { (Outcome::Answered, ms(5)) }
    });
    assert!(counts[&id(1)] < 30, "{counts:?}");
    let mut calls = Calls::new(&["", ""], 3);
    let counts = calls.run(3_000, |peer| {
        if peer == id(1) { (Outcome::Busy, Duration::from_micros(50)) } else { (Outcome::Answered, ms(5)) }
    });
    assert!(counts[&id(1)] < 30, "{counts:?}");
}

#[test]
fn calls_in_flight_and_reported_load_count() {
    let mut calls = Calls::new(&["", ""], 4);
    for peer in [id(1), id(2)] {
        calls.call(peer, Outcome::Answered, ms(5));
    }
    for _ in 0..3 {
        calls.balancer.sent(function(), id(1), calls.now);
    }
    assert!((0..20).all(|_| calls.choose() == id(2)));
    calls.peers[1].report(Load::new(40, 4));
    assert!((0..20).all(|_| calls.choose() == id(1)), "3 in flight are less than 10 times the capacity");
}

#[test]
fn the_first_calls_are_spread() {
    let mut calls = Calls::new(&["", ""], 11);
    for _ in 0..10 {
        let peer = calls.choose();
        calls.balancer.sent(function(), peer, calls.now);
    }
    let pending = |peer| calls.balancer.peer(function(), peer).unwrap().pending();
    assert_eq!((pending(id(1)), pending(id(2))), (5, 5));
}

#[test]
fn an_unknown_peer_is_tried_as_one_of_the_middle() {
    let mut calls = Calls::new(&["", "", "", ""], 5);
    for (peer, latency) in [(1, 1), (2, 5), (3, 100)] {
        calls.call(id(peer), Outcome::Answered, ms(latency));
    }
    // The median is a moment old at most.
    calls.now += ms(100);
    let now = calls.now;
    let draw = Draw { function: function(), peers: &calls.peers, tried: &[], below: None, now };
    let [fast, slow, unknown] = [0, 2, 3];
    assert_eq!(calls.balancer.cheaper(&draw, unknown, slow), unknown);
    assert_eq!(calls.balancer.cheaper(&draw, unknown, fast), fast);
}

#[test]
fn five_failures_eject_for_a_doubling_time() {
    let mut calls = Calls::new(&["", ""], 6);
    let is_ejected = |calls: &Calls| calls.balancer.is_ejected(function(), id(1), calls.now);
    for _ in 0..4 {
        calls.call(id(1), Outcome::Failed, ms(1));
        assert!(!is_ejected(&calls));
    }
    calls.call(id(1), Outcome::Failed, ms(1));
    for seconds in [1, 2, 4, 8, 16, 30, 30] {
        assert!(is_ejected(&calls) && calls.choose() == id(2));
        calls.now += Duration::from_secs(seconds) - ms(1);
        assert!(is_ejected(&calls), "{seconds} s");
        calls.now += ms(1);
        assert!(!is_ejected(&calls), "{seconds} s");
        calls.call(id(1), Outcome::Failed, ms(1));
    }
    calls.now += Duration::from_secs(30);
    calls.call(id(1), Outcome::Answered, ms(1));
    calls.now += Duration::from_secs(30);
    calls.call(id(1), Outcome::Answered, ms(1));
    for _ in 0..5 {
        calls.call(id(1), Outcome::Failed, ms(1));
    }
    calls.now += Duration::from_secs(1);
    assert!(!is_ejected(&calls), "who has recovered begins again at 1 s");
}

#[test]
fn failures_among_answers_eject_too() {
    let mut calls = Calls::new(&["", ""], 7);
    for _ in 0..2 {
        calls.call(id(1), Outcome::Answered, ms(1));
        (0..3).for_each(|_| calls.call(id(1), Outcome::Failed, ms(1)));
    }
    assert!(!calls.balancer.is_ejected(function(), id(1), calls.now), "too few calls to judge");
    calls.call(id(1), Outcome::Answered, ms(1));
    calls.call(id(1), Outcome::Failed, ms(1));
    assert!(calls.balancer.is_ejected(function(), id(1), calls.now), "7 of 10 failed");
}

#[test]
fn old_failures_are_forgotten() {
    let mut calls = Calls::new(&["", ""], 8);
    for _ in 0..3 {
        (0..3).for_each(|_| calls.call(id(1), Outcome::Failed, ms(1)));
        calls.call(id(1), Outcome::Answered, ms(1));
        calls.now += Duration::from_secs(10);
    }
    assert!(!calls.balancer.is_ejected(function(), id(1), calls.now));
}

#[test]
fn the_own_zone_is_preferred_within_a_factor_of_two() {
    let mut calls = Calls::new(&["", "", "far", "far"], 9);
    let near = [id(1), id(2)];
    let share = |counts: BTreeMap<NodeId, usize>| near.iter().map(|node| counts.get(node).unwrap_or(&0)).sum::<usize>();
    let counts = calls.run(1_000, |peer| (Outcome::Answered, if near.contains(&peer) { ms(8) } else { ms(5) }));
    assert!(share(counts) >= 990);
    calls.now += Duration::from_secs(60);
    let counts = calls.run(1_000, |peer| (Outcome::Answered, if near.contains(&peer) { ms(500) } else { ms(5) }));
    assert!(share(counts) < 100);
}

#[test]
fn figures_are_kept_for_so_many_functions() {
    let mut calls = Calls::new(&["", ""], 10);
    calls.balancer.config.max_functions = 10;
    let key = |function: usize| FunctionKey::new("shop", &function.to_string());
    calls.balancer.sent(key(0), id(1), calls.now);
    for function in 1..100 {
        calls.now += ms(1);
        calls.balancer.sent(key(function), id(1), calls.now);
        calls.balancer.done(key(function), id(1), Outcome::Answered, ms(1), calls.now);
    }
    assert!(calls.balancer.functions.len() <= 11, "{}", calls.balancer.functions.len());
    assert_eq!(calls.balancer.peer(key(0), id(1)).unwrap().pending(), 1, "its call is still in flight");
}

#[test]
fn the_function_s_own_errors_are_answers() {
    assert_eq!(Outcome::of(&Error::FunctionFailed(Box::default())), Outcome::Answered);
    assert_eq!(Outcome::of(&Error::Draining), Outcome::Busy);
    assert_eq!(Outcome::of(&Error::internal("x")), Outcome::Failed);
}

proptest! {
    #[test]
    fn whoever_is_chosen_may_be_called(
        seed: u64,
        zones in prop::collection::vec(prop::sample::select(vec!["", "a", "b"]), 0..8),
        tried in prop::collection::vec(0..8_u8, 0..4),
        ends in prop::collection::vec((0..8_u8, 0..4_u8, 0..3_000_u64), 0..60),
        local in prop::sample::select(vec![Local::Absent, Local::Saturated(Load(0)), Local::Saturated(Load(20))]),
        loads in prop::collection::vec(0..40_u16, 8),
    ) {
        let mut calls = Calls::new(&zones, seed);
        calls.peers.iter().zip(loads).for_each(|(peer, load)| peer.report(Load(load)));
        for (peer, outcome, time) in ends {
            let outcome = [Outcome::Answered, Outcome::Busy, Outcome::Failed, Outcome::Cancelled][outcome as usize];
            calls.now += ms(time / 4);
            calls.call(id(peer), outcome, ms(time));
        }
        let tried: Vec<_> = tried.into_iter().map(id).collect();
        let choice = calls.balancer.choose(function(), &calls.peers, local, &tried, calls.now);
        let below = match local {
            Local::Saturated(own) if !tried.contains(&ME) => Some(own),
            _ => None,
        };
        let may = |peer: &&Peer| !tried.contains(&peer.node) && below.is_none_or(|own| is_worth_it(own, peer.load()));
        let allowed: Vec<_> = calls.peers.iter().filter(may).collect();
        let counts = |peer: NodeId| calls.balancer.is_ejected(function(), peer, calls.now);
        let healthy_left = allowed.iter().any(|peer| !counts(peer.node));
        match choice {
            Some(Choice::Peer(node)) => {
                prop_assert!(allowed.iter().any(|peer| peer.node == node));
                // Ejected ones only where no other is left, or more than half of them are.
                let ejected = calls.peers.iter().filter(|peer| counts(peer.node)).count();
                prop_assert!(!counts(node) || !healthy_left || ejected > calls.peers.len() / 2);
            }
            Some(Choice::Here) => prop_assert!(below.is_some() && !healthy_left),
            None => prop_assert!(below.is_none() && allowed.is_empty()),
        }
    }
}
