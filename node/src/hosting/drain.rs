//! How a node gives its calls to others.

use std::{collections::HashMap, rc::Rc, sync::Arc, time::Duration};

use fnmesh_mesh::{
    NodeId,
    membership::{Load, Status},
    placement::Site,
};
use serde_json::{Value, json};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep, sleep_until, timeout_at},
};

use super::{Hosting, TICK, WITHDRAWN, deploy::Progress};

/// How long other nodes may take to start the apps that are served here alone.
const HAND_OVER_PATIENCE: Duration = Duration::from_secs(30);
/// A node that was asked to take an app and does not say that it starts it is asked again after this long, or another.
const ASK_AGAIN: Duration = Duration::from_secs(3);
/// How long a peer may take to say in its record that it drains.
const OTHER_PATIENCE: Duration = Duration::from_secs(45);

/// How far a node is with draining.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Drain {
    /// It takes calls.
    Off,
    /// It takes calls, and others start the apps that it serves alone.
    HandingOver,
    /// It takes none of peers.
    On,
}

impl Hosting {
    pub(super) fn is_draining(&self) -> bool {
        self.drain.get() != Drain::Off
    }

    /// Gives all calls to others that others can take, or ends that; which apps nobody else serves.
    pub(super) async fn drain(self: Rc<Self>, on: bool, progress: Progress) -> Value {
        if !on {
            self.drain.set(Drain::Off);
            return json!({ "node": self.mesh.node(), "draining": false });
        }
        let kept = self.hand_over(Instant::now() + HAND_OVER_PATIENCE, &progress).await;
        // It may have been ended meanwhile.
        if self.drain.get() == Drain::HandingOver {
            self.drain.set(Drain::On);
            progress.tell("no new calls of other nodes");
            sleep(WITHDRAWN).await;
            let mut tasks = JoinSet::new();
            for app in self.hosted().into_iter().filter(|app| !kept.contains(app)) {
                self.stop(&app, &mut tasks);
            }
            tasks.join_all().await;
        }
        json!({ "node": self.mesh.node(), "draining": true, "kept": kept })
    }

    /// Gives the apps that only this node serves to others, before it ends; they have `patience` to start them.
    pub(crate) async fn leave(&self, patience: Duration) {
        let kept = self.hand_over(Instant::now() + patience, &Progress::nowhere()).await;
        if !kept.is_empty() && self.view().nodes().len() > 0 {
            tracing::warn!(target: "fnmesh::node", apps = ?kept, "no other node serves these apps when this one ends");
        }
    }

    /// Has other nodes start the apps that only this one serves, and waits for them until `deadline`; which apps nobody
    /// took. This node hosts no others from now on.
    async fn hand_over(&self, deadline: Instant, progress: &Progress) -> Vec<Arc<str>> {
        if !self.is_draining() {
            self.drain.set(Drain::HandingOver);
        }
        let moved = async {
            let mut asked = HashMap::new();
            loop {
                let mut is_hopeless = true;
                for app in self.alone() {
                    let is_due = asked.get(&app).is_none_or(|last: &Instant| last.elapsed() >= ASK_AGAIN);
                    let successor = self.successor(&app);
                    // Those that nobody can take are not waited for.
                    is_hopeless &= successor.is_none() && !self.is_starting(&app);
                    if let Some(peer) = successor.filter(|_| is_due && !self.is_starting(&app)) {
                        self.ask_to_take(peer, &app, progress).await;
                        asked.insert(app, Instant::now());
                    }
                }
                if is_hopeless {
                    return;
                }
                sleep(TICK).await;
            }
        };
        let _ = timeout_at(deadline, moved).await;
        self.alone()
    }

    async fn ask_to_take(&self, peer: NodeId, app: &Arc<str>, progress: &Progress) {
        progress.tell(format!("{app} moves to {}", self.name_of(peer)));
        if let Err(reason) = self.mesh.ask_to_host(peer, Arc::clone(app)).await {
            progress.tell(format!("{app} does not move to {}: {reason}", self.name_of(peer)));
        }
    }

    /// The deployed apps that are served here.
    fn hosted(&self) -> Vec<Arc<str>> {
        let apps = self.apps.borrow();
        apps.iter().filter(|(_, hosted)| hosted.hosts()).map(|(app, _)| Arc::clone(app)).collect()
    }

    /// The deployed apps that no other node serves.
    fn alone(&self) -> Vec<Arc<str>> {
        let view = self.view();
        self.hosted().into_iter().filter(|app| view.serving(app, 1).next().is_none()).collect()
    }

    fn is_starting(&self, app: &str) -> bool {
        self.others(app).iter().any(|site| site.hosts)
    }

    /// The node that is to serve an app in place of this one: the least busy that can.
    fn successor(&self, app: &str) -> Option<NodeId> {
        let others = self.others(app);
        let can = |site: &&Site| !site.hosts;
        let best =
            |sites: &mut dyn Iterator<Item = &Site>| sites.min_by_key(|site| (site.load, site.node)).map(|it| it.node);
        best(&mut others.iter().filter(can).filter(|site| site.has_room))
            .or_else(|| best(&mut others.iter().filter(can)))
    }

    fn others(&self, app: &str) -> Vec<Site> {
        let (node, load) = (self.mesh.node(), Load::default());
        let own = Site { node, has_room: false, hosts: true, serves: true, load };
        self.view().sites(app, own).into_iter().filter(|site| site.node != own.node).collect()
    }

    /// Has another node drain, and waits until it says so.
    pub(super) async fn drain_other(&self, node: NodeId, on: bool, progress: &Progress) -> Result<Value, String> {
        self.mesh.ask_to_drain(node, on).await.map_err(|reason| format!("{}: {reason}", self.name_of(node)))?;
        progress.tell(format!("{} has heard", self.name_of(node)));
        let wanted = if on { Status::Draining } else { Status::Serving };
        let deadline = sleep_until(Instant::now() + OTHER_PATIENCE);
        tokio::pin!(deadline);
        loop {
            let members = self.mesh.members();
            let record = members.iter().find(|member| member.node == node).and_then(|member| member.record.as_ref());
            match record {
                Some(record) if record.profile.status == wanted => {
                    let kept: Vec<_> = record.profile.apps.iter().map(|app| &app.name).collect();
                    return Ok(json!({ "node": node, "draining": on, "serves": kept }));
                }
                Some(_) => {}
                None => return Err(format!("{node} is gone")),
            }
            tokio::select! {
                () = sleep(TICK) => {}
                () = &mut deadline => {
                    return Err(format!("{} does not say that it drains within {OTHER_PATIENCE:?}", self.name_of(node)));
                }
            }
        }
    }
}
