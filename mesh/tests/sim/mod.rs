//! Nodes on a simulated network under a virtual clock. The seed decides everything.

mod entry;
mod hosting;
mod network;
mod node;
mod pool;
mod serve;
mod work;

use std::{
    cmp::Reverse,
    collections::{BTreeSet, BinaryHeap, HashMap},
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use entry::Entry;
use fnmesh_mesh::{
    NodeId,
    membership::{Action, Config, Event, Identity, Membership, Profile, Snapshot, Timer},
    table::RoutingTable,
};
use hosting::Hosting;
use network::Network;
use node::{Node, app};
pub(crate) use node::{Notice, Traffic};
pub(crate) use pool::Spec;
pub(crate) use work::{End, Mix};
use work::{Task, Work};

/// A link whose peer says nothing is lost after this long.
const LINK_TIMEOUT: Duration = Duration::from_secs(3);
/// Nodes that have a table in a world without calls: more would fill the machine's memory in a large one.
const TABLES: usize = 20;

enum Item {
    Message {
        from: usize,
        to: usize,
        bytes: Bytes,
    },
    Timer {
        node: usize,
        life: u32,
        timer: Timer,
    },
    Asked {
        by: usize,
        whom: usize,
        question: Question,
    },
    Answered {
        node: usize,
        life: u32,
        event: Event,
    },
    Link {
        node: usize,
        peer: usize,
        works: bool,
    },
    /// Void in any other `life` of the node, if one is given.
    Task {
        node: usize,
        life: Option<u32>,
        task: Task,
    },
    /// The next call of a client.
    Arrival {
        number: u64,
    },
}

#[derive(Clone, Copy)]
enum Question {
    Record(NodeId),
    Snapshot { with_records: bool },
}

impl Item {
    /// Whom it happens to.
    fn node(&self) -> Option<usize> {
        match self {
            Self::Message { to, .. } => Some(*to),
            Self::Timer { node, .. } | Self::Answered { node, .. } | Self::Link { node, .. } => Some(*node),
            Self::Task { node, .. } => Some(*node),
            Self::Asked { whom, .. } => Some(*whom),
            Self::Arrival { .. } => None,
        }
    }
}

pub(crate) struct World {
    pub(crate) seed: u64,
    pub(crate) now: Duration,
    pub(crate) nodes: Vec<Node>,
    pub(crate) network: Network,
    /// Whether losses of links are told; SWIM alone must do, too.
    pub(crate) tells_links: bool,
    pub(crate) work: Work,
    /// How many of the nodes have a table.
    tables: usize,
    config: Config,
    epoch: Instant,
    rng: fastrand::Rng,
    queue: BinaryHeap<Reverse<(Duration, u64)>>,
    items: HashMap<u64, Item>,
    count: u64,
    index: HashMap<NodeId, usize>,
}

/// Shows the seed of a simulation that fails.
impl Drop for World {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("simulation of {} nodes, seed {}, failed at {:?}", self.nodes.len(), self.seed, self.now);
        }
    }
}

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

    pub(crate) fn membership(&self, node: usize) -> &Membership {
        self.nodes[node].membership.as_ref().expect("the node runs")
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

    pub(crate) fn describe(&mut self, node: usize, change: impl FnOnce(&mut Profile)) {
        change(&mut self.nodes[node].profile);
        let profile = Box::new(self.nodes[node].profile.clone());
        self.handle(node, Event::Local(profile));
    }

    /// Runs for a while.
    pub(crate) fn run(&mut self, duration: Duration) {
        let end = self.now + duration;
        while let Some(&Reverse((at, key))) = self.queue.peek()
            && at <= end
        {
            self.queue.pop();
            self.now = at;
            let item = self.items.remove(&key).expect("each key has its item");
            self.process(item);
        }
        self.now = end;
    }

    /// Runs until `is_done`, looking every 10 ms; says how long that took.
    pub(crate) fn run_until(&mut self, limit: Duration, is_done: impl Fn(&Self) -> bool) -> Duration {
        let start = self.now;
        while !is_done(self) {
            assert!(self.now - start < limit, "not within {limit:?}");
            self.run(Duration::from_millis(10));
        }
        self.now - start
    }

    pub(crate) fn live(&self) -> impl Iterator<Item = usize> + Clone {
        (0..self.nodes.len()).filter(|node| self.nodes[*node].membership.is_some())
    }

    /// Whether every live node can call every live node, each at its newest record, and no other.
    pub(crate) fn is_converged(&self) -> bool {
        let live: Vec<_> = self.live().collect();
        live.iter().all(|&node| {
            self.membership(node).members().len() == live.len() - 1 && live.iter().all(|&other| self.knows(node, other))
        })
    }

    /// Whether `node` would call `other`, at its newest record.
    pub(crate) fn knows(&self, node: usize, other: usize) -> bool {
        let newest = self.membership(other).routable(self.nodes[other].id).map(|record| record.stamp());
        let known = self.membership(node).routable(self.nodes[other].id).map(|record| record.stamp());
        known.is_some() && known == newest && self.routes_to(node, other)
    }

    /// Whether `node` would call `other`, at whatever record.
    pub(crate) fn routes_to(&self, node: usize, other: usize) -> bool {
        let is_routable = self.membership(node).routable(self.nodes[other].id).is_some();
        if node < self.tables {
            let table = self.nodes[node].table.reader();
            let table = table.load();
            let route = table.lookup(&format!("app{other}"), "function_0");
            let is_in_table = route.is_some_and(|route| {
                let version = self.nodes[other].profile.apps[0].version;
                let peers = route.version.peers();
                peers.len() == 1 && peers[0].node == self.nodes[other].id && route.version.number() <= version
            });
            assert_eq!(is_in_table, is_routable, "the table of node {node} follows its membership");
        }
        is_routable
    }

    /// What live nodes noticed since `since`.
    pub(crate) fn notices(&self, since: Duration, kind: Notice) -> usize {
        let of = |node: &Node| node.notices.iter().filter(|(at, _, what)| *at >= since && *what == kind).count();
        self.nodes.iter().map(of).sum()
    }

    pub(crate) fn reset_traffic(&mut self) {
        for node in &mut self.nodes {
            node.sent = Traffic::default();
        }
    }

    /// Messages and bytes that live nodes sent, for each node.
    pub(crate) fn traffic(&self) -> Traffic {
        let nodes = self.live().count() as u64;
        let sum = |of: fn(&Traffic) -> u64| self.live().map(|node| of(&self.nodes[node].sent)).sum::<u64>() / nodes;
        Traffic { messages: sum(|sent| sent.messages), bytes: sum(|sent| sent.bytes) }
    }

    fn handle(&mut self, node: usize, event: Event) {
        let now = self.epoch + self.now;
        let mut actions = Vec::new();
        let Some(membership) = self.nodes[node].membership.as_mut() else { return };
        membership.handle(event, now, &mut actions);
        self.act(node, actions);
    }

    fn act(&mut self, node: usize, actions: Vec<Action>) {
        let life = self.nodes[node].life;
        let is_changed = |action: &Action| match action {
            Action::Changed(peer) => Some(*peer),
            _ => None,
        };
        let changed: Vec<_> = actions.iter().filter_map(is_changed).collect();
        if !changed.is_empty() {
            let Node { membership, table, hosting, .. } = &mut self.nodes[node];
            if node < self.tables {
                table.follow(membership.as_ref().expect("the node runs"), changed);
            }
            hosting.iter_mut().for_each(|hosting| hosting.has_news = true);
            self.routes_changed(node);
        }
        for action in actions {
            match action {
                Action::Send { to, bytes, .. } => self.send(node, self.index[&to], bytes),
                Action::Schedule { timer, after } => self.push(after, Item::Timer { node, life, timer }),
                Action::Fetch { of, from, .. } => self.ask(node, self.index[&from], Question::Record(of)),
                Action::FetchSnapshot { from, with_records, .. } => {
                    self.ask(node, self.index[&from], Question::Snapshot { with_records });
                }
                Action::Up(peer) => self.note(node, peer, Notice::Up),
                Action::Down(peer) => {
                    self.note(node, peer, Notice::Down);
                    self.lose_calls(node, self.index[&peer], |_| true);
                }
                Action::Left(peer) => {
                    self.note(node, peer, Notice::Left);
                    self.lose_calls(node, self.index[&peer], |_| true);
                }
                Action::Changed(_) | Action::Moved(..) => {}
            }
        }
    }

    fn note(&mut self, node: usize, peer: NodeId, notice: Notice) {
        let now = self.now;
        self.nodes[node].notices.push((now, peer, notice));
    }

    fn process(&mut self, item: Item) {
        if let Some(waiting) = item.node().and_then(|node| self.nodes[node].paused.as_mut()) {
            waiting.push(item);
            return;
        }
        match item {
            Item::Message { from, to, bytes } => {
                let from = self.nodes[from].id;
                self.handle(to, Event::Received { from, bytes });
            }
            Item::Timer { node, life, timer } if life == self.nodes[node].life => {
                self.handle(node, Event::Timer(timer));
            }
            Item::Asked { by, whom, question } => self.answer(by, whom, question),
            Item::Answered { node, life, event } if life == self.nodes[node].life => self.handle(node, event),
            Item::Link { node, peer, works } => {
                let is_cut = self.network.cuts.contains(&(node, peer)) || self.network.cuts.contains(&(peer, node));
                let is_there = self.nodes[peer].membership.is_some() && self.nodes[peer].paused.is_none();
                // A link that was healed or cut again in the meantime is told of by another item.
                if works == (is_there && !is_cut) {
                    let id = self.nodes[peer].id;
                    self.note_link(node, peer, works);
                    self.handle(node, if works { Event::LinkBack(id) } else { Event::LinkLost(id) });
                }
            }
            Item::Task { node, life: None, task } => self.perform(node, task),
            Item::Task { node, life: Some(life), task } => {
                if life == self.nodes[node].life && self.nodes[node].membership.is_some() {
                    self.perform(node, task);
                }
            }
            Item::Arrival { number } => self.arrive(number),
            Item::Timer { .. } | Item::Answered { .. } => {}
        }
    }

    fn push(&mut self, after: Duration, item: Item) {
        self.count += 1;
        self.queue.push(Reverse((self.now + after, self.count)));
        self.items.insert(self.count, item);
    }
}
