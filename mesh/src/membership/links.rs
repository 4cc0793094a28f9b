//! What the own links tell, and the end of this node's membership.

use foca::State;

use super::{
    Membership,
    event::{Action, Kind, Timer},
    frame::Frame,
};
use crate::NodeId;

impl Membership {
    pub(super) fn lose_link(&mut self, node: NodeId, actions: &mut Vec<Action>) {
        if node == self.identity().node || !self.unlinked.insert(node) {
            return;
        }
        actions.push(Action::Changed(node));
        let suspect = self.foca.iter_members().find(|member| member.id().node == node).cloned();
        let (Some(member), Some(token)) = (suspect, self.token) else { return };
        if member.state() != State::Alive {
            return;
        }
        // As if a probe had failed. If only this link is broken, the peer hears of it from others and denies it.
        let (id, incarnation) = (*member.id(), member.incarnation());
        let suspicion = std::iter::once(foca::Member::new(id, incarnation, State::Suspect));
        self.swim(actions, |foca, sink| foca.apply_many(suspicion, true, sink));
        let verdict = foca::Timer::ChangeSuspectToDown { member_id: id, incarnation, token };
        let after = self.config.swim(self.members.len() + 1).suspect_to_down_after;
        actions.push(Action::Schedule { timer: Timer(Kind::Swim(verdict)), after });
    }

    pub(super) fn regain_link(&mut self, node: NodeId, actions: &mut Vec<Action>) {
        if self.unlinked.remove(&node) {
            actions.push(Action::Changed(node));
        }
        if !self.members.contains_key(&node) {
            self.announce_to(node, actions);
        }
    }

    pub(super) fn leave(&mut self, actions: &mut Vec<Action>) {
        let bytes = Frame::Leave(*self.identity()).encode();
        for member in self.members.values() {
            actions.push(Action::Send { to: member.node, address: member.address, bytes: bytes.clone() });
        }
        self.left = true;
    }
}
