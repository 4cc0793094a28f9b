//! Nodes on a simulated network under a virtual clock. The seed decides everything.

mod announce;
mod deploy;
mod drain;
mod entry;
mod hosting;
mod life;
mod look;
mod network;
mod node;
mod pool;
mod serve;
mod work;

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap},
    time::{Duration, Instant, SystemTime},
};

use bytes::Bytes;
pub(crate) use deploy::content;
use fnmesh_mesh::{
    NodeId,
    membership::{Action, Config, Event, Membership, Profile, Timer},
};
use network::Network;
use node::Node;
pub(crate) use node::{Notice, Traffic};
pub(crate) use pool::Spec;
pub(crate) use work::{End, Mix};
use work::{Task, Work};

/// A link whose peer says nothing is lost after this long.
const LINK_TIMEOUT: Duration = Duration::from_secs(3);
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
    /// The date at which the simulation begins.
    pub(crate) date: SystemTime,
    /// What nodes have told each other of what is deployed.
    pub(crate) told: Traffic,
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
    pub(crate) fn membership(&self, node: usize) -> &Membership {
        self.nodes[node].membership.as_ref().expect("the node runs")
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
                Action::Up(peer) => {
                    self.note(node, peer, Notice::Up);
                    self.dial(node, self.index[&peer]);
                }
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
                    if works {
                        self.link_up(node, peer)
                    } else {
                        self.nodes[node].linked[peer] = 0
                    }
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
