//! Who is in the mesh, and what each of them serves. Pure: (event, now) -> actions.
//!
//! SWIM (by foca) finds out who lives, at a cost that does not grow with the mesh. Each node describes itself by a
//! [`Record`]; gossip tells its [`Stamp`] only, and whoever lacks the record fetches it from whoever told. What gossip
//! loses, a comparison of digests with a random member brings back; the dead are tried again now and then, so that
//! the parts of a mesh find each other once the cut is healed.
//!
//! The driver owns a [`Membership`], gives it every [`Event`] and carries out every [`Action`]. A peer is callable from
//! here while [`Membership::routable`] has its record: it is a member, and the own link to it answers.

mod codec;
mod config;
mod dice;
mod event;
mod frame;
mod identity;
mod links;
mod news;
mod own;
mod record;
mod sync;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::{
        Arc,
        mpsc::{self, Receiver},
    },
    time::{Duration, Instant},
};

use codec::Codec;
pub use config::Config;
use dice::Dice;
pub use event::{Action, Event, Timer};
use event::{Kind, Sink};
use foca::{Foca, OwnedNotification};
use frame::Frame;
pub use identity::Identity;
use news::{Ear, News};
use own::Own;
pub use record::{App, Load, Profile, Record, Stamp, Status, directory_hash};
pub use sync::{Entry, Snapshot};

use crate::NodeId;

/// What one node knows of the mesh.
pub struct Membership {
    config: Config,
    foca: Foca<Identity, Codec, Dice, Ear>,
    news: Receiver<(News, NodeId)>,
    rng: fastrand::Rng,
    own: Own,
    /// foca's active members.
    members: BTreeMap<NodeId, Identity>,
    /// The newest records; the own one too.
    records: BTreeMap<NodeId, Arc<Record>>,
    /// Peers to which the link died and did not come back.
    unlinked: BTreeSet<NodeId>,
    /// Peers that said that they leave.
    leaving: BTreeSet<NodeId>,
    /// Records that are being fetched.
    fetching: BTreeMap<NodeId, Stamp>,
    /// Peers to join through.
    seeds: Vec<(NodeId, SocketAddr)>,
    /// The token of foca's present timers; those with another are void.
    token: Option<foca::TimerToken>,
    /// How long until the next comparison but one.
    sync_pause: Duration,
    left: bool,
}

impl Membership {
    /// The node `identity` alone, which says `profile` of itself. `seed` decides all that is left to chance.
    pub fn new(
        config: Config,
        identity: Identity,
        profile: Profile,
        seed: u64,
        now: Instant,
        actions: &mut Vec<Action>,
    ) -> Self {
        let mut rng = fastrand::Rng::with_seed(seed);
        let (ear, news) = mpsc::channel();
        let dice = Dice(rng.fork());
        let foca = Foca::with_custom_broadcast(identity, config.swim(1), dice, Codec::default(), Ear(ear));
        let own = Own::new(identity, profile, now);
        let records = BTreeMap::from([(identity.node, own.record.clone())]);
        let mut this = Self {
            config,
            foca,
            news,
            rng,
            own,
            members: BTreeMap::new(),
            records,
            unlinked: BTreeSet::new(),
            leaving: BTreeSet::new(),
            fetching: BTreeMap::new(),
            seeds: Vec::new(),
            token: None,
            sync_pause: sync::FIRST_PAUSE,
            left: false,
        };
        let stamp = this.own.record.stamp();
        this.tell(News { node: identity.node, stamp });
        this.schedule_sync(actions);
        this.schedule_heal(actions);
        actions.push(Action::Changed(identity.node));
        this
    }

    /// Takes notice of `event`; what is to be done about it is added to `actions`.
    pub fn handle(&mut self, event: Event, now: Instant, actions: &mut Vec<Action>) {
        if self.left {
            return;
        }
        match event {
            Event::Join(seeds) => self.join(seeds, actions),
            Event::Received { from, bytes } => self.receive(from, &bytes, actions),
            Event::Timer(Timer(kind)) => self.fire(kind, now, actions),
            Event::LinkLost(node) => self.lose_link(node, actions),
            Event::LinkBack(node) => self.regain_link(node, actions),
            Event::Record { from, record } => {
                let news = News { node: record.node, stamp: record.stamp() };
                if self.take_record(from, record, actions) {
                    self.tell(news);
                }
            }
            Event::FetchFailed { of, from } => self.fetch_failed(of, from, actions),
            Event::Snapshot { from, snapshot } => self.merge(from, *snapshot, actions),
            Event::Local(profile) => self.describe(*profile, now, actions),
            Event::Moved(address) => {
                self.become_identity(Identity { address, ..self.identity().renewed() }, actions);
                actions.push(Action::Changed(self.identity().node));
            }
            Event::Leave => self.leave(actions),
        }
        self.hear(actions);
    }

    /// Who this node is now.
    pub fn identity(&self) -> &Identity {
        self.foca.identity()
    }

    /// The members besides this node, in the order of their ids.
    pub fn members(&self) -> impl ExactSizeIterator<Item = &Identity> {
        self.members.values()
    }

    /// The member with this id.
    pub fn member(&self, node: NodeId) -> Option<&Identity> {
        self.members.get(&node)
    }

    /// The newest known record of `node`, to hand to who fetches it. For calls, see [`Self::routable`].
    pub fn record(&self, node: NodeId) -> Option<&Arc<Record>> {
        self.records.get(&node)
    }

    /// The record of `node` if calls may go there: it is this node, or a member whose link answers.
    pub fn routable(&self, node: NodeId) -> Option<&Arc<Record>> {
        let here = node == self.identity().node;
        let there = self.members.contains_key(&node) && !self.unlinked.contains(&node);
        self.records.get(&node).filter(|_| here || there)
    }

    fn receive(&mut self, from: NodeId, bytes: &[u8], actions: &mut Vec<Action>) {
        match Frame::decode(bytes) {
            Ok(Frame::Swim(message)) if frame::swim_sender(message) == Some(from) => {
                let renewals = self.identity().age();
                self.swim(actions, |foca, sink| foca.handle_data(message, sink));
                // It told that others think this node dead. It shall be the first to know better.
                if renewals != self.identity().age() {
                    self.announce_to(from, actions);
                }
            }
            Ok(Frame::Swim(_)) => {
                tracing::warn!(target: "fnmesh::mesh", %from, "a member sent a message in another's name; it is ignored");
            }
            Ok(Frame::Digest { digest, answer }) => self.compare(from, digest, answer, actions),
            Ok(Frame::Leave(identity)) if identity.node == from => {
                self.leaving.insert(from);
                let gone = std::iter::once(foca::Member::down(identity));
                self.swim(actions, |foca, sink| foca.apply_many(gone, true, sink));
            }
            Ok(Frame::Leave(_)) => {
                tracing::warn!(target: "fnmesh::mesh", %from, "a member said that another leaves; it is ignored");
            }
            Err(error) => {
                tracing::warn!(target: "fnmesh::mesh", %from, %error, "a message of a member cannot be read; it is ignored");
            }
        }
    }

    fn fire(&mut self, kind: Kind, now: Instant, actions: &mut Vec<Action>) {
        match kind {
            Kind::Swim(timer) => self.swim(actions, |foca, sink| foca.handle_timer(timer, sink)),
            Kind::Publish => {
                self.own.is_scheduled = false;
                self.publish(now, actions);
            }
            Kind::Sync => {
                self.tidy();
                self.send_digest(actions);
                self.schedule_sync(actions);
            }
            Kind::Missing(identity) => self.ask_for_record(&identity, actions),
            Kind::Heal => {
                self.heal(actions);
                self.schedule_heal(actions);
            }
        }
    }

    /// Lets foca do something, then takes notice of what it says.
    fn swim(
        &mut self,
        actions: &mut Vec<Action>,
        work: impl FnOnce(&mut Foca<Identity, Codec, Dice, Ear>, &mut Sink<'_>) -> Result<(), foca::Error>,
    ) {
        let mut sink = Sink::new(actions);
        if let Err(error) = work(&mut self.foca, &mut sink) {
            // The message is dropped, or foca repairs itself; nothing is left to do.
            tracing::debug!(target: "fnmesh::mesh", %error, "foca refuses");
        }
        let (notices, token) = sink.into_parts();
        self.token = token.or(self.token);
        for notice in notices {
            self.notice(notice, actions);
        }
    }

    fn notice(&mut self, notice: OwnedNotification<Identity>, actions: &mut Vec<Action>) {
        match notice {
            OwnedNotification::MemberUp(identity) => {
                let is_first = self.members.is_empty();
                self.members.insert(identity.node, identity);
                self.leaving.remove(&identity.node);
                self.rescale();
                actions.extend([Action::Up(identity.node), Action::Changed(identity.node)]);
                self.expect_record(&identity, actions);
                if is_first {
                    actions.push(Action::FetchSnapshot {
                        from: identity.node,
                        address: identity.address,
                        with_records: true,
                    });
                }
            }
            OwnedNotification::MemberDown(identity) => {
                self.members.remove(&identity.node);
                self.rescale();
                let node = identity.node;
                actions.push(if self.leaving.contains(&node) { Action::Left(node) } else { Action::Down(node) });
                actions.push(Action::Changed(node));
            }
            OwnedNotification::Rename(old, new) => {
                if let Some(member) = self.members.get_mut(&new.node) {
                    *member = new;
                }
                if new.address != old.address {
                    actions.extend([Action::Moved(new.node, new.address), Action::Changed(new.node)]);
                }
                // A node that started anew serves nothing until it says so, and its link is another.
                if new.generation > old.generation {
                    self.records.retain(|node, record| *node != new.node || record.generation >= new.generation);
                    self.unlinked.remove(&new.node);
                    actions.push(Action::Changed(new.node));
                    self.expect_record(&new, actions);
                }
            }
            OwnedNotification::Rejoin(identity) if identity.generation > self.own.record.generation => {
                self.tell_anew(identity.generation, actions);
            }
            OwnedNotification::Rejoin(_)
            | OwnedNotification::Active
            | OwnedNotification::Idle
            | OwnedNotification::Defunct => {}
        }
    }

    fn rescale(&mut self) {
        // Periods stay the same, which is all that foca could refuse.
        let _ = self.foca.set_config(self.config.swim(self.members.len() + 1));
    }

    /// What others said of records since the last event.
    fn hear(&mut self, actions: &mut Vec<Action>) {
        while let Ok((news, teller)) = self.news.try_recv() {
            self.want(news, teller, actions);
        }
    }
}
