//! How a node gets what it lacks: records it heard of, and whole views.

use std::{collections::BTreeSet, net::SocketAddr, sync::Arc, time::Duration};

use foca::{Member, State};
use serde::{Deserialize, Serialize};

use super::{
    Membership, codec,
    event::{Action, Kind, Timer},
    frame::Frame,
    identity::Identity,
    news::News,
    record::{Record, Stamp},
};
use crate::NodeId;

/// How many of the dead a node tries again at a time.
const REVIVED: usize = 2;

/// A node that has just started compares often: after this long, then half as often each time.
pub(super) const FIRST_PAUSE: Duration = Duration::from_millis(500);

/// How long gossip may take to bring the record of a new member before it is asked itself.
const RECORD_PATIENCE: Duration = Duration::from_millis(700);

/// All that a node knows of its mesh.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    /// The members, and the node itself.
    pub members: Vec<Entry>,
    /// Their records, if they were asked for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub records: Vec<Arc<Record>>,
}

/// A member in a [`Snapshot`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Which node.
    pub node: NodeId,
    /// Where it listens.
    pub address: SocketAddr,
    /// When it started, in ms since 1970.
    pub generation: u64,
    /// How often it came back since.
    pub renewals: u16,
    /// SWIM's count of suspicions it denied.
    pub incarnation: u16,
    /// The newest known record.
    pub stamp: Option<Stamp>,
}

impl Entry {
    fn identity(&self) -> Identity {
        Identity { node: self.node, address: self.address, generation: self.generation, renewals: self.renewals }
    }
}

impl Membership {
    /// All this node knows, for who asks by [`Action::FetchSnapshot`].
    pub fn snapshot(&self, with_records: bool) -> Snapshot {
        let entry = |id: &Identity, incarnation| Entry {
            node: id.node,
            address: id.address,
            generation: id.generation,
            renewals: id.renewals,
            incarnation,
            stamp: self.records.get(&id.node).map(|record| record.stamp()),
        };
        let others = self.foca.iter_members().map(|member| entry(member.id(), member.incarnation()));
        let members: Vec<_> = std::iter::once(entry(self.identity(), 0)).chain(others).collect();
        let records = if with_records {
            members.iter().filter_map(|entry| self.records.get(&entry.node)).cloned().collect()
        } else {
            Vec::new()
        };
        Snapshot { members, records }
    }

    pub(super) fn merge(&mut self, from: NodeId, snapshot: Snapshot, actions: &mut Vec<Action>) {
        let me = *self.identity();
        let mut news = Vec::new();
        let mut alive = Vec::new();
        for entry in &snapshot.members {
            let identity = entry.identity();
            if identity.node != me.node {
                alive.push(Member::new(identity, entry.incarnation, State::Alive));
                news.extend(entry.stamp.map(|stamp| News { node: entry.node, stamp }));
            } else if identity.age() > me.age() {
                // An earlier life of this node had the later clock.
                let generation = identity.generation.saturating_add(1);
                self.become_identity(Identity { generation, renewals: 0, ..me }, actions);
                self.announce_to(from, actions);
            }
        }
        self.revive_claimed(&alive, actions);
        self.swim(actions, |foca, sink| foca.apply_many(alive.into_iter(), false, sink));
        // The others know these; to tell of each would keep the mesh busy for long.
        for record in snapshot.records {
            self.take_record(from, record, actions);
        }
        for news in news {
            self.want(news, from, actions);
        }
    }

    /// Who is dead here and alive there should hear of it, so that it can come back.
    fn revive_claimed(&mut self, alive: &[Member<Identity>], actions: &mut Vec<Action>) {
        let is_claimed = |id: &Identity| alive.iter().any(|claim| claim.id() == id);
        let dead: Vec<_> = self.dead().filter(|id| is_claimed(id)).take(REVIVED).collect();
        for id in dead {
            self.swim(actions, |foca, sink| foca.announce(id, sink));
        }
    }

    fn dead(&self) -> impl Iterator<Item = Identity> {
        let states = self.foca.iter_membership_state();
        states.filter(|member| member.state() == State::Down).map(|member| *member.id())
    }

    /// Asks `teller` for a record, unless it is known or on its way.
    pub(super) fn want(&mut self, news: News, teller: NodeId, actions: &mut Vec<Action>) {
        let News { node, stamp } = news;
        let is_known = self.records.get(&node).is_some_and(|record| record.stamp() >= stamp);
        let is_coming = self.fetching.get(&node).is_some_and(|coming| *coming >= stamp);
        if is_known || is_coming || node == self.identity().node {
            return;
        }
        let member = self.members.get(&teller).or_else(|| self.members.get(&node));
        let Some(&Identity { node: from, address, .. }) = member else { return };
        self.fetching.insert(node, stamp);
        actions.push(Action::Fetch { of: node, stamp, from, address });
    }

    /// Sees to it that a new member's record is fetched even if no news of it comes.
    pub(super) fn expect_record(&mut self, identity: &Identity, actions: &mut Vec<Action>) {
        if self.lacks_record(identity) {
            self.schedule(Kind::Missing(*identity), RECORD_PATIENCE, actions);
        }
    }

    pub(super) fn ask_for_record(&mut self, identity: &Identity, actions: &mut Vec<Action>) {
        if self.lacks_record(identity) {
            let stamp = Stamp { generation: identity.generation, version: 1 };
            self.want(News { node: identity.node, stamp }, identity.node, actions);
        }
    }

    fn lacks_record(&self, identity: &Identity) -> bool {
        self.records.get(&identity.node).is_none_or(|record| record.generation < identity.generation)
    }

    /// Takes note of a record, whoever gave it; says whether it is news.
    pub(super) fn take_record(&mut self, from: NodeId, record: Arc<Record>, actions: &mut Vec<Action>) -> bool {
        let (node, stamp) = (record.node, record.stamp());
        let is_newer = self.records.get(&node).is_none_or(|known| known.stamp() < stamp);
        // A late answer about an earlier life of a node that has started anew.
        let is_stale = self.members.get(&node).is_some_and(|member| member.generation > record.generation);
        let is_news = node != self.identity().node && is_newer && !is_stale;
        if is_news {
            self.records.insert(node, record);
            actions.push(Action::Changed(node));
        }
        match self.fetching.get(&node) {
            Some(wanted) if *wanted <= stamp => drop(self.fetching.remove(&node)),
            // It had an older one.
            Some(_) => self.fetch_failed(node, from, actions),
            None => {}
        }
        is_news
    }

    /// Asks the node itself for its record when another could not give it.
    pub(super) fn fetch_failed(&mut self, of: NodeId, from: NodeId, actions: &mut Vec<Action>) {
        let Some(stamp) = self.fetching.remove(&of) else { return };
        if let Some(owner) = self.members.get(&of).filter(|_| from != of) {
            actions.push(Action::Fetch { of, stamp, from: of, address: owner.address });
            self.fetching.insert(of, stamp);
        }
    }

    pub(super) fn join(&mut self, seeds: Vec<(NodeId, SocketAddr)>, actions: &mut Vec<Action>) {
        let own = self.identity().node;
        self.seeds = seeds;
        self.seeds.retain(|(node, _)| *node != own);
        for (node, address) in self.seeds.clone() {
            self.announce(node, address, actions);
        }
    }

    fn announce(&mut self, node: NodeId, address: SocketAddr, actions: &mut Vec<Action>) {
        // An announcement reaches whatever life the node is in.
        let identity = Identity::new(node, address, 0);
        self.swim(actions, |foca, sink| foca.announce(identity, sink));
    }

    /// Greets a node of which at least the address is known.
    pub(super) fn announce_to(&mut self, node: NodeId, actions: &mut Vec<Action>) {
        let known = self.foca.iter_membership_state().find(|member| member.id().node == node);
        if let Some(address) = known.map(|member| member.id().address) {
            self.announce(node, address, actions);
        }
    }

    pub(super) fn heal(&mut self, actions: &mut Vec<Action>) {
        let mut dead: Vec<_> = self.dead().filter(|id| !self.leaving.contains(&id.node)).collect();
        self.rng.shuffle(&mut dead);
        for id in dead.into_iter().take(REVIVED) {
            self.announce(id.node, id.address, actions);
        }
        if self.members.is_empty()
            && let Some(&(node, address)) = self.rng.choice(&self.seeds)
        {
            self.announce(node, address, actions);
        }
    }

    pub(super) fn schedule_heal(&mut self, actions: &mut Vec<Action>) {
        let period = if self.members.is_empty() { Duration::from_secs(1) } else { self.config.heal_period };
        self.schedule(Kind::Heal, period, actions);
    }

    pub(super) fn schedule_sync(&mut self, actions: &mut Vec<Action>) {
        let pause = self.sync_pause.min(self.config.sync_period);
        self.sync_pause = pause * 2;
        self.schedule(Kind::Sync, pause, actions);
    }

    /// Not all nodes at once.
    fn schedule(&mut self, kind: Kind, period: Duration, actions: &mut Vec<Action>) {
        let after = period.mul_f64(0.8 + 0.4 * self.rng.f64());
        actions.push(Action::Schedule { timer: Timer(kind), after });
    }

    pub(super) fn send_digest(&mut self, actions: &mut Vec<Action>) {
        let Some(index) = (!self.members.is_empty()).then(|| self.rng.usize(..self.members.len())) else { return };
        let member = self.members.values().nth(index).copied().expect("the index is below the length");
        self.send_digest_to(member, false, actions);
    }

    fn send_digest_to(&self, to: Identity, answer: bool, actions: &mut Vec<Action>) {
        let bytes = Frame::Digest { digest: self.digest(), answer }.encode();
        actions.push(Action::Send { to: to.node, address: to.address, bytes });
    }

    /// A sum over members and records that is the same where they are.
    pub(super) fn digest(&self) -> u64 {
        let mut scratch = Vec::with_capacity(64);
        self.members.values().chain([self.identity()]).fold(0_u64, |sum, identity| {
            scratch.clear();
            codec::put_identity(&mut scratch, identity);
            if let Some(record) = self.records.get(&identity.node) {
                codec::put_number(&mut scratch, record.generation);
                codec::put_number(&mut scratch, record.version);
            }
            sum.wrapping_add(fnv(&scratch))
        })
    }

    pub(super) fn compare(&mut self, from: NodeId, digest: u64, answer: bool, actions: &mut Vec<Action>) {
        let Some(&member) = self.members.get(&from) else { return };
        if digest == self.digest() {
            return;
        }
        actions.push(Action::FetchSnapshot { from, address: member.address, with_records: false });
        if !answer {
            self.send_digest_to(member, true, actions);
        }
    }

    /// Drops what is known of nodes that foca has forgotten.
    pub(super) fn tidy(&mut self) {
        let mut known: BTreeSet<_> = self.foca.iter_membership_state().map(|member| member.id().node).collect();
        known.insert(self.identity().node);
        self.records.retain(|node, _| known.contains(node));
        self.unlinked.retain(|node| known.contains(node));
        self.leaving.retain(|node| known.contains(node));
        // Should an answer never come, the next news of that record asks again.
        self.fetching.clear();
    }
}

/// FNV-1a, 64 bits (<http://www.isthe.com/chongo/tech/comp/fnv/>), which is the same on all machines and in all versions.
fn fnv(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3))
}
