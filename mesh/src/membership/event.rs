use std::{net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use foca::{Notification, OwnedNotification};

use super::{
    frame::Frame,
    identity::Identity,
    record::{Profile, Record, Stamp},
    sync::Snapshot,
};
use crate::NodeId;

/// What happened to a node.
#[derive(Clone, Debug)]
pub enum Event {
    /// It is to join the mesh through one of these members; what they answer does the rest. They are tried again while
    /// no member is known.
    Join(Vec<(NodeId, SocketAddr)>),
    /// A membership message came over an authenticated link.
    Received {
        /// Who sent it, as the link knows.
        from: NodeId,
        /// The message.
        bytes: Bytes,
    },
    /// A timer of [`Action::Schedule`] is due.
    Timer(Timer),
    /// The link to a peer died and there is no other to it: nothing came back in time, or it was refused. The driver
    /// keeps dialling it while it is a member. To close an idle link is not to lose it.
    LinkLost(NodeId),
    /// There is a link to this peer again, and it answers.
    LinkBack(NodeId),
    /// What [`Action::Fetch`] asked for.
    Record {
        /// Who gave it.
        from: NodeId,
        /// The newest record that one has.
        record: Arc<Record>,
    },
    /// What [`Action::Fetch`] asked for cannot be had there.
    FetchFailed {
        /// Whose record.
        of: NodeId,
        /// Who was asked.
        from: NodeId,
    },
    /// What [`Action::FetchSnapshot`] asked for. If it cannot be had nothing needs to be said: the next comparison
    /// asks again.
    Snapshot {
        /// Who gave it.
        from: NodeId,
        /// The answer.
        snapshot: Box<Snapshot>,
    },
    /// What this node says of itself from now on; nothing happens if that is what it said before.
    Local(Box<Profile>),
    /// This node listens at another address from now on.
    Moved(SocketAddr),
    /// This node is about to end. All later events are ignored.
    Leave,
}

/// What is to be done about an [`Event`].
#[derive(Clone, Debug)]
pub enum Action {
    /// Send a message, at most once and in any order.
    Send {
        /// To whom.
        to: NodeId,
        /// Where that node listens.
        address: SocketAddr,
        /// The message.
        bytes: Bytes,
    },
    /// Give back [`Event::Timer`] after a while.
    Schedule {
        /// What to give back.
        timer: Timer,
        /// When.
        after: Duration,
    },
    /// Ask a member for a record it knows ([`super::Membership::record`]) and give back [`Event::Record`] or
    /// [`Event::FetchFailed`], one of them, within some seconds.
    Fetch {
        /// Whose record.
        of: NodeId,
        /// The one that is wanted; what is newer will do.
        stamp: Stamp,
        /// Whom to ask.
        from: NodeId,
        /// Where that node listens.
        address: SocketAddr,
    },
    /// Ask a member for all it knows ([`super::Membership::snapshot`]) and give back [`Event::Snapshot`].
    FetchSnapshot {
        /// Whom to ask.
        from: NodeId,
        /// Where that node listens.
        address: SocketAddr,
        /// Whether records are wanted too, not their stamps only.
        with_records: bool,
    },
    /// Look at [`super::Membership::routable`] of this node again: whether calls may go there, or to what, has changed.
    Changed(NodeId),
    /// For logs and metrics: a member is there.
    Up(NodeId),
    /// A member listens at another address than before.
    Moved(NodeId, SocketAddr),
    /// For logs and metrics: a member is dead, as far as the mesh can tell.
    Down(NodeId),
    /// For logs and metrics: a member has left as it said it would.
    Left(NodeId),
}

/// Something to be reminded of.
#[derive(Clone, Debug)]
pub struct Timer(pub(super) Kind);

#[derive(Clone, Debug)]
pub(super) enum Kind {
    /// foca's.
    Swim(foca::Timer<Identity>),
    /// The own record may change again.
    Publish,
    /// Compare views with somebody.
    Sync,
    /// See whether the record of this member came.
    Missing(Identity),
    /// Try the dead again.
    Heal,
}

/// What foca tells.
pub(super) struct Sink<'a> {
    actions: &'a mut Vec<Action>,
    notices: Vec<OwnedNotification<Identity>>,
    token: Option<foca::TimerToken>,
}

impl<'a> Sink<'a> {
    pub(super) fn new(actions: &'a mut Vec<Action>) -> Self {
        Self { actions, notices: Vec::new(), token: None }
    }

    /// What changed, and the newest token of a timer.
    pub(super) fn into_parts(self) -> (Vec<OwnedNotification<Identity>>, Option<foca::TimerToken>) {
        (self.notices, self.token)
    }
}

impl foca::Runtime<Identity> for Sink<'_> {
    fn notify(&mut self, notification: Notification<'_, Identity>) {
        self.notices.push(notification.to_owned());
    }

    fn send_to(&mut self, to: Identity, data: &[u8]) {
        let bytes = Frame::Swim(data).encode();
        self.actions.push(Action::Send { to: to.node, address: to.address, bytes });
    }

    fn submit_after(&mut self, event: foca::Timer<Identity>, after: Duration) {
        if let foca::Timer::ProbeRandomMember(token) = event {
            self.token = Some(token);
        }
        self.actions.push(Action::Schedule { timer: Timer(Kind::Swim(event)), after });
    }
}
