//! How long messages, questions and news of links take, and which get lost.

use std::{collections::BTreeSet, time::Duration};

use bytes::Bytes;
use fnmesh_mesh::membership::{App, Event, Record};

use super::{Item, Question, World};

/// IP, UDP and QUIC around each message.
const OVERHEAD_BYTES: usize = 20 + 8 + 35;
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

impl World {
    pub(super) fn send(&mut self, from: usize, to: usize, bytes: Bytes) {
        self.count_sent(from, bytes.len());
        if !self.network.cuts.contains(&(from, to)) && self.rng.f64() >= self.network.loss {
            let after = self.latency(from, to);
            self.push(after, Item::Message { from, to, bytes });
        }
    }

    /// A question on a stream: it is repeated until it arrives or the asker gives up.
    pub(super) fn ask(&mut self, by: usize, whom: usize, question: Question) {
        self.count_sent(by, 100);
        let after = self.latency(by, whom) + self.repeats();
        self.push(after, Item::Asked { by, whom, question });
    }

    pub(super) fn answer(&mut self, by: usize, whom: usize, question: Question) {
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

    pub(super) fn latency(&mut self, from: usize, to: usize) -> Duration {
        let slowness = self.nodes[from].slowness + self.nodes[to].slowness;
        self.network.delay + slowness + self.network.jitter.mul_f64(self.rng.f64())
    }

    pub(super) fn repeats(&mut self) -> Duration {
        let mut waited = Duration::ZERO;
        while self.rng.f64() < self.network.loss {
            waited += Duration::from_millis(50) + self.network.delay * 2;
        }
        waited
    }

    pub(super) fn tell_links(&mut self, node: usize, works: bool, after: Duration) {
        for other in 0..self.nodes.len() {
            if other != node {
                self.tell_link(node, other, works, after);
            }
        }
    }

    pub(super) fn tell_link(&mut self, a: usize, b: usize, works: bool, after: Duration) {
        if self.tells_links {
            for (node, peer) in [(a, b), (b, a)] {
                let after = after + self.network.delay.mul_f64(self.rng.f64());
                self.push(after, Item::Link { node, peer, works });
            }
        }
    }

    pub(super) fn count_sent(&mut self, node: usize, bytes: usize) {
        let sent = &mut self.nodes[node].sent;
        sent.messages += 1;
        // What does not fit one packet has the overhead of each.
        sent.bytes += (bytes + OVERHEAD_BYTES * bytes.div_ceil(1_200)) as u64;
    }
}

/// About what the record takes as JSON.
fn record_bytes(record: &Record) -> usize {
    let functions = |app: &App| app.functions.iter().map(|name| name.len() + 3).sum::<usize>();
    200 + record.profile.apps.iter().map(|app| 130 + functions(app)).sum::<usize>()
}
