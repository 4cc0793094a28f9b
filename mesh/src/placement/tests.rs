use std::{collections::VecDeque, num::NonZero};

use proptest::prelude::*;

use super::*;

const APP: &str = "shop";
const TICK: Duration = Duration::from_millis(100);
/// How old what nodes know of each other is, and how long one takes to start an app: ticks.
const LAG: usize = 10;
const START: usize = 12;

fn id(node: usize) -> NodeId {
    NodeId::from_bytes([node as u8; 16])
}

/// Nodes that decide each 100 ms about one app, on views that are a second old.
struct Mesh {
    replicas: Replicas,
    config: Config,
    placements: Vec<Placement>,
    alive: Vec<bool>,
    hosts: Vec<bool>,
    starting: Vec<Option<usize>>,
    views: VecDeque<Vec<Site>>,
    /// Calls in flight and waiting, with room for 10 on each host.
    calls: usize,
    idle: Duration,
    now: Instant,
    moves: usize,
    /// How long one takes to start an app.
    start_ticks: usize,
}

impl Mesh {
    fn new(nodes: usize, replicas: Replicas, first_hosts: &[usize]) -> Self {
        Self {
            replicas,
            config: Config::default(),
            placements: (0..nodes).map(|_| Placement::default()).collect(),
            alive: vec![true; nodes],
            hosts: (0..nodes).map(|node| first_hosts.contains(&node)).collect(),
            starting: vec![None; nodes],
            views: VecDeque::new(),
            calls: 0,
            idle: Duration::ZERO,
            now: Instant::now(),
            moves: 0,
            start_ticks: START,
        }
    }

    fn count(&self) -> usize {
        (0..self.hosts.len()).filter(|node| self.hosts[*node] && self.alive[*node]).count()
    }

    fn site(&self, node: usize) -> Site {
        let load = if self.hosts[node] { Load::new(self.calls, 10 * self.count().max(1)) } else { Load(0) };
        let hosts = self.hosts[node] || self.starting[node].is_some();
        Site { node: id(node), has_room: true, hosts, serves: self.hosts[node], load }
    }

    fn run(&mut self, duration: Duration) {
        for _ in 0..duration.as_millis() / TICK.as_millis() {
            self.tick();
        }
    }

    fn tick(&mut self) {
        self.now += TICK;
        let nodes = 0..self.hosts.len();
        self.views.push_back(nodes.clone().filter(|node| self.alive[*node]).map(|node| self.site(node)).collect());
        if self.views.len() > LAG {
            self.views.pop_front();
        }
        for node in nodes {
            match &mut self.starting[node] {
                Some(0) => (self.starting[node], self.hosts[node]) = (None, true),
                Some(left) => *left -= 1,
                None => {}
            }
            if self.alive[node] {
                self.decide(node);
            }
        }
    }

    fn decide(&mut self, node: usize) {
        let mut sites = self.views[0].clone();
        // Of itself a node knows the present.
        sites.retain(|site| site.node != id(node));
        sites.push(self.site(node));
        let is_saturated = self.hosts[node] && self.calls > 10 * self.count();
        let calls = self.calls.div_ceil(self.count().max(1));
        let demand = Demand { is_saturated, idle: self.idle, calls, capacity: 10, begun: 0 };
        let placement = &mut self.placements[node];
        match placement.decide(&self.config, (id(node), APP), self.replicas, &sites, demand, self.now) {
            Decision::Stay => {}
            Decision::Host => self.start(node),
            Decision::Ask(peer) => self.start(peer.to_bytes()[0] as usize),
            Decision::Retire => {
                self.hosts[node] = false;
                self.moves += 1;
            }
        }
    }

    fn start(&mut self, node: usize) {
        if !self.hosts[node] && self.starting[node].is_none() && self.alive[node] {
            self.starting[node] = Some(self.start_ticks);
            self.moves += 1;
        }
    }

    fn kill(&mut self, node: usize) {
        (self.alive[node], self.hosts[node], self.starting[node]) = (false, false, None);
        self.placements[node] = Placement::default();
    }
}

fn count(count: usize) -> Replicas {
    Replicas::Count(NonZero::new(count).unwrap())
}

/// Nodes of different versions have to agree on it; rustc-hash does not promise that it stays.
#[test]
fn order_of_nodes_never_changes() {
    assert_eq!(first("shop", (0..6).map(id), 6), [3, 2, 4, 1, 0, 5].map(id));
}

#[test]
fn a_count_is_reached_and_kept() {
    let mut mesh = Mesh::new(20, count(3), &[4]);
    mesh.run(Duration::from_secs(15));
    assert_eq!((mesh.count(), mesh.moves), (3, 2), "nobody starts it in vain");
    let dead = mesh.hosts.iter().position(|hosts| *hosts).unwrap();
    mesh.kill(dead);
    mesh.run(Duration::from_secs(15));
    assert_eq!((mesh.count(), mesh.moves), (3, 3));
    mesh.alive[dead] = true;
    mesh.run(Duration::from_secs(60));
    assert_eq!((mesh.count(), mesh.moves), (3, 3), "who comes back takes nothing away");
}

#[test]
fn a_restart_moves_nothing() {
    let mut mesh = Mesh::new(5, count(2), &[0, 1]);
    mesh.run(Duration::from_secs(5));
    mesh.kill(0);
    mesh.run(Duration::from_secs(5));
    (mesh.alive[0], mesh.hosts[0]) = (true, true);
    mesh.run(Duration::from_secs(60));
    assert_eq!((mesh.count(), mesh.moves), (2, 0));
}

#[test]
fn all_means_all_nodes_also_new_ones() {
    let mut mesh = Mesh::new(6, Replicas::All, &[0]);
    mesh.kill(5);
    mesh.run(Duration::from_secs(3));
    assert_eq!(mesh.count(), 5);
    mesh.alive[5] = true;
    mesh.run(Duration::from_secs(3));
    assert_eq!(mesh.count(), 6);
}

#[test]
fn too_many_hosts_after_a_cut_become_fewer() {
    let mut mesh = Mesh::new(8, count(3), &[0, 1, 2, 3, 4, 5]);
    mesh.run(Duration::from_secs(30));
    assert_eq!((mesh.count(), mesh.moves), (3, 3));
}

#[test]
fn a_saturated_app_spreads_and_stays() {
    let mut mesh = Mesh::new(3, Replicas::Auto, &[1]);
    mesh.run(Duration::from_secs(2));
    mesh.calls = 25;
    mesh.run(Duration::from_secs(5));
    assert_eq!(mesh.count(), 3, "on all three within 5 s of saturation");
    mesh.run(Duration::from_secs(600));
    assert_eq!(mesh.moves, 2, "and no oscillation in 10 minutes");
}

#[test]
fn nobody_is_asked_while_one_starts() {
    let mut mesh = Mesh::new(20, Replicas::Auto, &[1]);
    mesh.start_ticks = 80;
    mesh.run(Duration::from_secs(2));
    mesh.calls = 15;
    mesh.run(Duration::from_secs(60));
    assert_eq!((mesh.count(), mesh.moves), (2, 1), "it takes longer than an asked node has until it says so");
}

#[test]
fn one_that_was_asked_and_does_not_start_is_replaced() {
    let mut placement = Placement::default();
    let site = |node, hosts| Site { node: id(node), has_room: true, hosts, serves: hosts, load: Load(0) };
    let sites = [site(1, true), site(2, false), site(3, false)];
    let (config, start) = (Config::default(), Instant::now());
    let demand = Demand { is_saturated: true, calls: 20, capacity: 10, ..Demand::default() };
    let asked: Vec<_> = (0..200)
        .filter(|tick| {
            let now = start + TICK * *tick;
            let decision = placement.decide(&config, (id(1), APP), Replicas::Auto, &sites, demand, now);
            matches!(decision, Decision::Ask(_))
        })
        .collect();
    // 1 s in which the only host takes its share, 0.5 s of saturation; then 5 s and 0.5 s.
    assert_eq!(asked, [15, 70, 125, 180]);
}

#[test]
fn hosts_that_lack_one_more_ask_for_one() {
    let mut mesh = Mesh::new(20, Replicas::Auto, &[1, 2, 3]);
    mesh.run(Duration::from_secs(2));
    mesh.calls = 35;
    mesh.run(Duration::from_secs(60));
    assert_eq!((mesh.count(), mesh.moves), (4, 1), "three saturated hosts ask the same peer");
}

#[test]
fn hosts_become_twice_as_many_in_each_step() {
    let mut mesh = Mesh::new(100, Replicas::Auto, &[1]);
    mesh.run(Duration::from_secs(2));
    mesh.calls = 800;
    let mut counts = vec![1];
    // A step: 0.5 s of saturation, 1.2 s to start, 1 s until all know, 1 s to take a share.
    for _ in 0..400 {
        mesh.tick();
        if mesh.count() != counts[counts.len() - 1] {
            counts.push(mesh.count());
        }
    }
    // What is seen of others is a second old, so that the last step may be somewhat too large.
    assert!((80..=85).contains(&mesh.count()), "{counts:?}");
    let mut last = 1;
    assert!(counts.iter().all(|count| *count <= 2 * std::mem::replace(&mut last, *count)), "{counts:?}");
    mesh.run(Duration::from_secs(100));
    assert_eq!(mesh.moves, mesh.count() - 1, "and none gives up");
    assert!(mesh.count() <= 85, "nor do more come");
}

#[test]
fn the_least_busy_are_asked() {
    let site = |node, serves, load| Site { node: id(node), has_room: true, hosts: serves, serves, load: Load(load) };
    let mut sites = vec![site(1, true, 30), site(2, true, 30)];
    sites.extend((3..20).map(|node| site(node, false, if node == 7 || node == 9 { 3 } else { 12 })));
    sites[10].has_room = false;
    let demand = Demand { is_saturated: true, calls: 20, capacity: 10, ..Demand::default() };
    let start = Instant::now();
    let mut asked: Vec<_> = [1, 2]
        .map(|host| {
            let mut placement = Placement::default();
            let config = Config::default();
            let decide = |tick| {
                let now = start + TICK * tick;
                placement.decide(&config, (id(host), APP), Replicas::Auto, &sites, demand, now)
            };
            (0..20).map(decide).find_map(|decision| match decision {
                Decision::Ask(peer) => Some(peer),
                _ => None,
            })
        })
        .into();
    asked.sort();
    assert_eq!(asked, [Some(id(7)), Some(id(9))], "each another one");
}

#[test]
fn idle_hosts_retire_but_for_one() {
    let mut mesh = Mesh::new(5, Replicas::Auto, &[0, 1, 2]);
    mesh.idle = Duration::from_secs(599);
    mesh.run(Duration::from_secs(60));
    assert_eq!(mesh.moves, 0);
    mesh.idle = Duration::from_secs(600);
    mesh.run(Duration::from_secs(120));
    assert_eq!((mesh.count(), mesh.moves), (1, 2));
}

#[test]
fn an_app_whose_only_host_died_begins_elsewhere_once() {
    let mut mesh = Mesh::new(10, Replicas::Auto, &[6]);
    mesh.run(Duration::from_secs(2));
    mesh.kill(6);
    mesh.run(Duration::from_secs(4));
    assert_eq!((mesh.count(), mesh.moves), (1, 1));
    mesh.run(Duration::from_secs(60));
    assert_eq!((mesh.count(), mesh.moves), (1, 1));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn hosts_become_as_many_as_calls_need(nodes in 1..60_usize, calls in 1..600_usize, first in 0..60_usize) {
        let mut mesh = Mesh::new(nodes, Replicas::Auto, &[first % nodes]);
        mesh.calls = calls;
        mesh.run(Duration::from_secs(120));
        let wanted = calls.div_ceil(10).min(nodes);
        let hosts = mesh.count();
        prop_assert!((wanted..=wanted + 1 + wanted / 8).contains(&hosts), "{} of {}", hosts, wanted);
        prop_assert_eq!(mesh.moves, hosts - 1);
    }
}

proptest! {
    #[test]
    fn any_start_ends_at_the_count_and_rests(
        nodes in 1..12_usize, wanted in 1..6_usize, first in prop::collection::btree_set(0..12_usize, 0..12),
    ) {
        let first: Vec<_> = first.into_iter().filter(|node| *node < nodes).collect();
        let mut mesh = Mesh::new(nodes, count(wanted), &first);
        mesh.run(Duration::from_secs(60));
        prop_assert_eq!(mesh.count(), wanted.min(nodes));
        prop_assert_eq!(mesh.moves, first.len().abs_diff(wanted.min(nodes)), "no more moves than needed");
    }
}
