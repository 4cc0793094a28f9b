//! What a node looks after for itself: its certificate, its address, and the members it would join again by.

use std::{
    path::Path,
    time::{Duration, SystemTime},
};

use fnmesh_invoke::Invoke;
use tokio::sync::oneshot;

use super::{Driver, Input};
use crate::{address, identity::join::PeerAddress, known, membership::Event, renewal};

/// How often it is seen whether the certificate is to be renewed; it has ten days left then.
const RENEWAL_CHECK: Duration = Duration::from_secs(3600);
/// How often it is seen whether the machine still has the address that peers were told.
const ADDRESS_CHECK: Duration = Duration::from_secs(1);
/// New members are written down together with those that come within this time.
const KEEP_AFTER: Duration = Duration::from_secs(1);

impl<L: Invoke + Clone> Driver<L> {
    /// Gets a new certificate if it is time, or if somebody asks, and looks again in an hour.
    pub(super) fn renew(&mut self, asked: Option<oneshot::Sender<Result<(), String>>>) {
        if asked.is_none() {
            self.later(RENEWAL_CHECK, Input::Renew(None));
            if !self.identity.needs_renewal(SystemTime::now()) {
                return;
            }
        }
        let (identity, callers) = (self.identity.clone(), self.links.callers().clone());
        self.tasks.spawn_local(async move {
            let renewed = renewal::renew(&identity, &callers).await;
            if let Err(reason) = &renewed {
                let expires_in = identity.expires().duration_since(SystemTime::now()).unwrap_or_default();
                tracing::error!(target: "fnmesh::mesh", %reason, ?expires_in, "the certificate is not renewed");
            }
            if let Some(asked) = asked {
                let _ = asked.send(renewed);
            }
        });
    }

    /// Tells the members if this node is reached at another address than before.
    pub(super) fn check_address(&mut self) {
        self.later(ADDRESS_CHECK, Input::CheckAddress);
        let moved = {
            let membership = self.membership.borrow();
            address::moved(membership.identity().address, membership.members().map(|member| member.address))
        };
        if let Some(address) = moved {
            tracing::warn!(target: "fnmesh::mesh", %address, "this node is reached at another address from now on");
            self.handle(Event::Moved(address));
        }
    }

    pub(super) fn keep_soon(&mut self) {
        if !std::mem::replace(&mut self.is_keeping, true) {
            self.later(KEEP_AFTER, Input::Keep);
        }
    }

    pub(super) fn keep(&mut self) {
        self.is_keeping = false;
        let (directory, members) = (self.directory.clone(), known::of(&self.membership.borrow()));
        self.tasks.spawn_blocking(move || write(&directory, &members));
    }
}

pub(super) fn write(directory: &Path, members: &[PeerAddress]) {
    if let Err(error) = known::write(directory, members) {
        tracing::error!(target: "fnmesh::mesh", %error, "cannot keep the list of members");
    }
}
