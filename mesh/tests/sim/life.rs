//! How worlds begin, and how nodes start, end, stop and lose sight of each other.

use std::{
    collections::{BTreeSet, BinaryHeap, HashMap},
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant, UNIX_EPOCH},
};

use fnmesh_mesh::{
    NodeId,
    deployments::Registry,
    membership::{Config, Event, Identity, Membership, Profile, Snapshot, Status},
    table::RoutingTable,
};

use super::{
    Item, LINK_TIMEOUT, Spec, Traffic, World,
    entry::Entry,
    hosting::Hosting,
    network::Network,
    node::{Node, app},
    work::{Task, Work},
};

/// Nodes that have a table in a world without calls: more would fill the machine's memory in a large one.
const TABLES: usize = 20;

impl World {
    /// `count` nodes, none of which runs; each is to serve one app of its own with `functions` functions.
    pub(crate) fn new(seed: u64, count: usize, functions: usize) -> Self {
        let mut rng = fastrand::Rng::with_seed(seed);
        let names: Vec<Arc<str>> = (0..functions).map(|index| format!("function_{index}").into()).collect();
        let node = |index: usize| Node {
            id: NodeId::from_bytes(std::array::from_fn(|_| rng.u8(..))),
            profile: Profile { name: format!("n{index}").into(), apps: vec![app(index, &names)], ..Profile::default() },
            membership: None,
            table: RoutingTable::default(),
            sent: Traffic::default(),
            notices: Vec::new(),
            slowness: Duration::ZERO,
            pace: 1.0,
            hosting: None,
            registry: Registry::default(),
            bundles: BTreeSet::new(),
            linked: vec![0; count],
            before: BTreeSet::new(),
            entry: None,
            paused: None,
            life: 0,
            address: SocketAddr::from(([10, 0, (index / 256) as u8, (index % 256) as u8], 7100)),
        };
        let nodes: Vec<_> = (0..count).map(node).collect();
        let index = nodes.iter().enumerate().map(|(index, node)| (node.id, index)).collect();
        Self {
            seed,
            now: Duration::ZERO,
            nodes,
            network: Network::default(),
            tells_links: true,
            work: Work::default(),
            date: UNIX_EPOCH + Duration::from_secs(1_790_000_000),
            told: Traffic::default(),
            tables: TABLES,
            config: Config::default(),
            epoch: Instant::now(),
            rng,
            queue: BinaryHeap::new(),
            items: HashMap::new(),
            count: 0,
            index,
        }
    }

    /// A world whose nodes have started one after the other, joined through the first, and found each other.
    pub(crate) fn settled(seed: u64, count: usize) -> Self {
        Self::new(seed, count, 3).settle()
    }

    /// The same, with apps deployed; each on the nodes that are named with it.
    pub(crate) fn deployed(seed: u64, count: usize, specs: Vec<(Spec, Vec<usize>)>) -> Self {
        let mut world = Self::new(seed, count, 1);
        for (app, (spec, hosts)) in specs.into_iter().enumerate() {
            world.work.specs.push(Arc::new(spec));
            world.deploy_before(app, &hosts);
            // As if it had run there before.
            for node in hosts {
                world.nodes[node].before.insert(app);
            }
        }
        world.tables = count;
        world.settle()
    }

    fn settle(mut self) -> Self {
        let count = self.nodes.len();
        let world = &mut self;
        for node in 0..count {
            world.start(node, &[0]);
            world.run(Duration::from_millis(20));
        }
        world.run_until(Duration::from_secs(30), Self::is_converged);
        world.run(Duration::from_secs(5));
        self
    }

    /// A world in which `count` nodes know each other from the start, as if they had run for long. One more node does
    /// not run yet.
    pub(crate) fn acquainted(seed: u64, count: usize, functions: usize) -> Self {
        let mut world = Self::new(seed, count + 1, functions);
        let mut all = Snapshot::default();
        for node in 0..count {
            world.start(node, &[]);
            let snapshot = world.membership(node).snapshot(true);
            all.members.extend(snapshot.members);
            all.records.extend(snapshot.records);
        }
        for node in 0..count {
            let from = world.nodes[(node + 1) % count].id;
            world.handle(node, Event::Snapshot { from, snapshot: Box::new(all.clone()) });
            // Not all nodes probe in the same moment.
            world.run(Duration::from_millis(250) / count as u32);
        }
        world
    }

    /// Starts or restarts a node; it joins through `seeds`.
    pub(crate) fn start(&mut self, node: usize, seeds: &[usize]) {
        let generation = 1_790_000_000_000 + self.now.as_millis() as u64;
        let seed = self.rng.u64(..);
        let now = self.epoch + self.now;
        let seeds: Vec<_> = seeds.iter().map(|seed| (self.nodes[*seed].id, self.nodes[*seed].address)).collect();
        let this = &mut self.nodes[node];
        let was_killed = this.life > 0;
        this.life += 1;
        let life = this.life;
        if !self.work.specs.is_empty() {
            this.profile.apps.truncate(1);
            this.profile.starting.clear();
            this.profile.unable.clear();
            this.profile.status = Status::Serving;
            this.hosting = Some(Hosting::new(std::mem::take(&mut this.before), self.now));
            this.entry = Some(Entry::new(this.id, seed, now));
        }
        let identity = Identity::new(this.id, this.address, generation);
        let mut actions = Vec::new();
        let membership = Membership::new(self.config.clone(), identity, this.profile.clone(), seed, now, &mut actions);
        this.membership = Some(membership);
        this.table = RoutingTable::default();
        self.act(node, actions);
        self.handle(node, Event::Join(seeds));
        if !self.work.specs.is_empty() {
            let phase = Duration::from_millis(self.rng.u64(..100));
            self.push(phase, Item::Task { node, life: Some(life), task: Task::Tick });
        }
        if was_killed {
            self.tell_links(node, true, Duration::from_millis(100));
        }
    }

    /// Ends a node without a word.
    pub(crate) fn kill(&mut self, node: usize) {
        self.stop(node);
        self.tell_links(node, false, LINK_TIMEOUT);
    }

    pub(crate) fn leave(&mut self, node: usize) {
        self.handle(node, Event::Leave);
        self.stop(node);
    }

    fn stop(&mut self, node: usize) {
        self.lose_entry(node);
        let this = &mut self.nodes[node];
        (this.membership, this.paused) = (None, None);
        this.linked.fill(0);
        if let Some(hosting) = this.hosting.take() {
            this.before = hosting.hosted();
        }
    }

    /// Stops a node as SIGSTOP does.
    pub(crate) fn pause(&mut self, node: usize) {
        self.nodes[node].paused = Some(Vec::new());
        self.tell_links(node, false, LINK_TIMEOUT);
    }

    pub(crate) fn resume(&mut self, node: usize) {
        for item in self.nodes[node].paused.take().unwrap_or_default() {
            self.process(item);
        }
        self.tell_links(node, true, Duration::from_millis(500));
    }

    /// Cuts the way from each of `from` to each of `to`.
    pub(crate) fn cut(&mut self, from: &[usize], to: &[usize]) {
        for &a in from {
            for &b in to {
                self.network.cuts.insert((a, b));
                self.tell_link(a, b, false, LINK_TIMEOUT);
            }
        }
    }

    /// Removes all cuts; links come back within a second.
    pub(crate) fn heal(&mut self) {
        for (a, b) in std::mem::take(&mut self.network.cuts) {
            let after = Duration::from_millis(self.rng.u64(..1_000));
            self.tell_link(a, b, true, after);
        }
    }
}
