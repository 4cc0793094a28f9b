//! What this node says of itself, and when.

use std::{sync::Arc, time::Instant};

use super::{
    Membership,
    event::{Action, Kind, Timer},
    identity::Identity,
    news::News,
    record::{Profile, Record},
};

/// The own record.
#[derive(Debug)]
pub(super) struct Own {
    /// As others are told.
    pub(super) record: Arc<Record>,
    /// As it should be.
    wanted: Profile,
    told_at: Instant,
    /// A timer is set for the next version.
    pub(super) is_scheduled: bool,
}

impl Own {
    pub(super) fn new(identity: Identity, profile: Profile, now: Instant) -> Self {
        let record =
            Record { node: identity.node, generation: identity.generation, version: 1, profile: profile.clone() };
        Self { record: Arc::new(record), wanted: profile, told_at: now, is_scheduled: false }
    }

    /// Load alone has changed, and by how much does not matter.
    fn is_the_same_for_others(&self) -> bool {
        let (told, wanted) = (&self.record.profile, &self.wanted);
        wanted.differs_in_load_alone(told)
            && told.apps.iter().zip(&wanted.apps).all(|(old, new)| !new.load.is_news_after(old.load))
    }
}

impl Membership {
    pub(super) fn describe(&mut self, profile: Profile, now: Instant, actions: &mut Vec<Action>) {
        self.own.wanted = profile;
        self.publish(now, actions);
    }

    /// Makes a new version of the own record if it is time, else sees to it that it happens later.
    pub(super) fn publish(&mut self, now: Instant, actions: &mut Vec<Action>) {
        if self.own.is_the_same_for_others() {
            return;
        }
        let is_load_alone = self.own.wanted.differs_in_load_alone(&self.own.record.profile);
        let pause =
            if is_load_alone { self.config.load_pause(self.members.len() + 1) } else { self.config.announce_period };
        let age = now.saturating_duration_since(self.own.told_at);
        // The very first version has not been read by anybody yet, but it may just be on its way.
        if age >= pause || (self.own.record.version == 1 && !is_load_alone) {
            self.own.told_at = now;
            self.tell_anew(self.own.record.generation, actions);
        } else if !self.own.is_scheduled || !is_load_alone {
            self.own.is_scheduled = true;
            actions.push(Action::Schedule { timer: Timer(Kind::Publish), after: pause - age });
        }
    }

    /// Makes the next version of the own record and tells some members at once.
    pub(super) fn tell_anew(&mut self, generation: u64, actions: &mut Vec<Action>) {
        let (node, version) = (self.own.record.node, self.own.record.version + 1);
        let record = Arc::new(Record { node, generation, version, profile: self.own.wanted.clone() });
        self.records.insert(node, record.clone());
        self.tell(News { node, stamp: record.stamp() });
        self.own.record = record;
        self.swim(actions, |foca, sink| foca.gossip(sink));
        actions.push(Action::Changed(node));
    }

    /// Has gossip carry `news`.
    pub(super) fn tell(&mut self, news: News) {
        // foca refuses what is empty or longer than a message, which news never is.
        let _ = self.foca.add_broadcast(&news.encode());
    }

    /// Goes on as `identity`, which must win over the present one.
    pub(super) fn become_identity(&mut self, identity: Identity, actions: &mut Vec<Action>) {
        self.swim(actions, |foca, sink| foca.change_identity(identity, sink));
        if identity.generation > self.own.record.generation {
            self.tell_anew(identity.generation, actions);
        }
    }
}
