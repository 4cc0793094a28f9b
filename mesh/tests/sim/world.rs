//! Nodes on a simulated network under a virtual clock. The seed decides everything.

use std::{
    cmp::Reverse,
    collections::{BTreeSet, BinaryHeap, HashMap},
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use fnmesh_mesh::{
    NodeId,
    membership::{Action, App, Config, Event, Identity, Load, Membership, Profile, Record, Snapshot, Timer},
    table::RoutingTable,
};

/// IP, UDP and QUIC around each message.
const OVERHEAD_BYTES: usize = 20 + 8 + 35;
/// A link whose peer says nothing is lost after this long.
const LINK_TIMEOUT: Duration = Duration::from_secs(3);
/// More would fill the machine's memory in a large world.
const TABLES: usize = 20;
const FETCH_TIMEOUT: Duration = Duration::from_secs(1);

/// What the network does to messages.
#[derive(Clone, Debug)]
pub(crate) struct Network {
    pub(crate) loss: f64,
    pub(crate) delay: Duration,
    pub(crate) jitter: Duration,
    /// Ordered pairs between which nothing passes.
    pub(crate) cuts: BTreeSet<(usize, usize)>,
}

impl Default for Network {
    fn default() -> Self {
        Self { loss: 0.0, delay: Duration::from_micros(500), jitter: Duration::from_micros(500), cuts: BTreeSet::new() }
    }
}

/// Messages and bytes one node sent.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Traffic {
    pub(crate) messages: u64,
    pub(crate) bytes: u64,
}

/// What a node noticed of another, and when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Notice {
    Up,
    Down,
    Left,
}

pub(crate) struct Node {
    pub(crate) id: NodeId,
    pub(crate) profile: Profile,
    pub(crate) membership: Option<Membership>,
    /// Follows membership on the first [`TABLES`] nodes.
    table: RoutingTable,
    pub(crate) sent: Traffic,
    pub(crate) notices: Vec<(Duration, NodeId, Notice)>,
    /// Whatever it sends or gets takes so much longer.
    pub(crate) slowness: Duration,
    /// What it has not looked at while it is stopped.
    paused: Option<Vec<Item>>,
    life: u32,
    address: SocketAddr,
}

enum Item {
    Message { from: usize, to: usize, bytes: Bytes },
    Timer { node: usize, life: u32, timer: Timer },
    Asked { by: usize, whom: usize, question: Question },
    Answered { node: usize, life: u32, event: Event },
    Link { node: usize, peer: usize, works: bool },
}

#[derive(Clone, Copy)]
enum Question {
    Record(NodeId),
    Snapshot { with_records: bool },
}

impl Item {
    fn node(&self) -> usize {
        match self {
            Self::Message { to, .. } => *to,
            Self::Timer { node, .. } | Self::Answered { node, .. } | Self::Link { node, .. } => *node,
            Self::Asked { whom, .. } => *whom,
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
        let mut world = Self::new(seed, count, 3);
        for node in 0..count {
            world.start(node, &[0]);
            world.run(Duration::from_millis(20));
        }
        world.run_until(Duration::from_secs(30), Self::is_converged);
        world.run(Duration::from_secs(5));
        world
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
        let identity = Identity::new(this.id, this.address, generation);
        let mut actions = Vec::new();
        let membership = Membership::new(self.config.clone(), identity, this.profile.clone(), seed, now, &mut actions);
        this.membership = Some(membership);
        this.table = RoutingTable::default();
        self.act(node, actions);
        self.handle(node, Event::Join(seeds));
        if was_killed {
            self.tell_links(node, true, Duration::from_millis(100));
        }
    }

    /// Ends a node without a word.
    pub(crate) fn kill(&mut self, node: usize) {
        self.nodes[node].membership = None;
        self.tell_links(node, false, LINK_TIMEOUT);
    }

    pub(crate) fn leave(&mut self, node: usize) {
        self.handle(node, Event::Leave);
        self.nodes[node].membership = None;
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
        if node < TABLES {
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
        if node < TABLES {
            let changed = actions.iter().filter_map(|action| match action {
                Action::Changed(peer) => Some(*peer),
                _ => None,
            });
            let Node { membership, table, .. } = &mut self.nodes[node];
            table.follow(membership.as_ref().expect("the node runs"), changed);
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
                Action::Down(peer) => self.note(node, peer, Notice::Down),
                Action::Left(peer) => self.note(node, peer, Notice::Left),
                Action::Changed(_) => {}
            }
        }
    }

    fn note(&mut self, node: usize, peer: NodeId, notice: Notice) {
        let now = self.now;
        self.nodes[node].notices.push((now, peer, notice));
    }

    fn process(&mut self, item: Item) {
        if let Some(waiting) = &mut self.nodes[item.node()].paused {
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
                    self.handle(node, if works { Event::LinkBack(id) } else { Event::LinkLost(id) });
                }
            }
            Item::Timer { .. } | Item::Answered { .. } => {}
        }
    }

    fn send(&mut self, from: usize, to: usize, bytes: Bytes) {
        self.count_sent(from, bytes.len());
        if !self.network.cuts.contains(&(from, to)) && self.rng.f64() >= self.network.loss {
            let after = self.latency(from, to);
            self.push(after, Item::Message { from, to, bytes });
        }
    }

    /// A question on a stream: it is repeated until it arrives or the asker gives up.
    fn ask(&mut self, by: usize, whom: usize, question: Question) {
        self.count_sent(by, 100);
        let after = self.latency(by, whom) + self.repeats();
        self.push(after, Item::Asked { by, whom, question });
    }

    fn answer(&mut self, by: usize, whom: usize, question: Question) {
        let life = self.nodes[by].life;
        let from = self.nodes[whom].id;
        let cuts = &self.network.cuts;
        let is_cut = cuts.contains(&(by, whom)) || cuts.contains(&(whom, by));
        let answer = self.nodes[whom].membership.as_ref().filter(|_| !is_cut).and_then(|membership| match question {
            Question::Record(of) => {
                let record = membership.record(of)?.clone();
                Some((record_bytes(&record), Event::Record { from, record }))
            }
            Question::Snapshot { with_records } => {
                let snapshot = membership.snapshot(with_records);
                let records: usize = snapshot.records.iter().map(|record| record_bytes(record)).sum();
                let bytes = snapshot.members.len() * 130 + records;
                Some((bytes, Event::Snapshot { from, snapshot: Box::new(snapshot) }))
            }
        });
        match (answer, question) {
            (Some((bytes, event)), _) => {
                self.count_sent(whom, bytes);
                let after = self.latency(whom, by) + self.repeats();
                self.push(after, Item::Answered { node: by, life, event });
            }
            (None, Question::Record(of)) => {
                let event = Event::FetchFailed { of, from };
                self.push(FETCH_TIMEOUT, Item::Answered { node: by, life, event });
            }
            (None, Question::Snapshot { .. }) => {}
        }
    }

    fn latency(&mut self, from: usize, to: usize) -> Duration {
        let slowness = self.nodes[from].slowness + self.nodes[to].slowness;
        self.network.delay + slowness + self.network.jitter.mul_f64(self.rng.f64())
    }

    fn repeats(&mut self) -> Duration {
        let mut waited = Duration::ZERO;
        while self.rng.f64() < self.network.loss {
            waited += Duration::from_millis(50) + self.network.delay * 2;
        }
        waited
    }

    fn tell_links(&mut self, node: usize, works: bool, after: Duration) {
        for other in 0..self.nodes.len() {
            if other != node {
                self.tell_link(node, other, works, after);
            }
        }
    }

    fn tell_link(&mut self, a: usize, b: usize, works: bool, after: Duration) {
        if self.tells_links {
            for (node, peer) in [(a, b), (b, a)] {
                let after = after + self.network.delay.mul_f64(self.rng.f64());
                self.push(after, Item::Link { node, peer, works });
            }
        }
    }

    fn count_sent(&mut self, node: usize, bytes: usize) {
        let sent = &mut self.nodes[node].sent;
        sent.messages += 1;
        // What does not fit one packet has the overhead of each.
        sent.bytes += (bytes + OVERHEAD_BYTES * bytes.div_ceil(1_200)) as u64;
    }

    fn push(&mut self, after: Duration, item: Item) {
        self.count += 1;
        self.queue.push(Reverse((self.now + after, self.count)));
        self.items.insert(self.count, item);
    }
}

fn app(index: usize, names: &[Arc<str>]) -> App {
    let mut hash = [0; 32];
    hash[..8].copy_from_slice(&(index as u64).to_be_bytes());
    App { name: format!("app{index}").into(), version: 1, hash, functions: names.to_vec(), load: Load(0) }
}

/// About what the record takes as JSON.
fn record_bytes(record: &Record) -> usize {
    let functions = |app: &App| app.functions.iter().map(|name| name.len() + 3).sum::<usize>();
    200 + record.profile.apps.iter().map(|app| 130 + functions(app)).sum::<usize>()
}
