//! The deployed apps on this node: which of them it hosts, how it gets them, and what it says of itself.
//!
//! One task looks at what is deployed, at the other nodes and at the load of this one, each time something changes and
//! ten times a second, and does what [`Placement`] decides. Starting and stopping an app is a task of its own, one at a
//! time for each app.

mod announce;
mod deploy;
mod dev;
mod drain;
mod start;

use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, BTreeSet},
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use fnmesh_mesh::{
    Ask, Handle, Member,
    deployments::{Content, Deployment, Replicas, Retry},
    membership::{App, Load, Profile},
    placement::{self, Decision, Placement, Site, View},
};
use fnmesh_runtime::Demand;
use tokio::{
    sync::{Mutex, RwLock, mpsc},
    task::JoinSet,
    time::{MissedTickBehavior, interval},
};

use deploy::Progress;
pub(crate) use deploy::{Command, Order, Reply};
use drain::Drain;

use crate::app::Host;

/// How often load is looked at.
const TICK: Duration = Duration::from_millis(100);
/// How many ticks pass until apps that are not here are looked at again though nothing has changed.
const ALL_EVERY: u32 = 10;
/// How long a node that stops hosting an app goes on serving it after it has said so: peers send calls until they know.
const WITHDRAWN: Duration = Duration::from_millis(1_500);

/// How long after a change of a deployment nodes act on it ...
const NEW: Duration = Duration::from_secs(10);
/// ... once there has been reason for so long, in which they hear of each other.
const PROMPT: Duration = Duration::from_millis(300);

/// A version: its number and the hash of its content.
type Version = (u64, [u8; 32]);

/// This node's part in what is deployed. Lives on the control thread.
pub(crate) struct Hosting {
    host: Rc<Host>,
    mesh: Handle,
    http: SocketAddr,
    /// Where bundles are unpacked: below `APP/HASH`.
    directory: PathBuf,
    apps: RefCell<BTreeMap<Arc<str>, Hosted>>,
    view: RefCell<(Arc<Vec<Member>>, Rc<View>)>,
    /// What was announced last, and for which apps of the runtime.
    announced: RefCell<Profile>,
    serves: RefCell<Vec<App>>,
    /// What the runtime serves is to be read again.
    is_stale: Cell<bool>,
    config: placement::Config,
    /// The same for deployments that have just changed: who changes them waits.
    prompt: placement::Config,
    drain: Cell<Drain>,
    /// Held for writing while bundles are removed.
    bundles: RwLock<()>,
}

/// A deployed app as this node knows it.
#[derive(Default)]
struct Hosted {
    placement: Placement,
    /// What the runtime serves of it.
    serving: Option<Version>,
    /// What it served before: instances of it may still be at work.
    before: Option<Version>,
    /// What is being done about it.
    busy: Option<Busy>,
    /// Why it is not served here, if it could not be.
    failed: Option<Retry>,
    /// The revision that is known, and since when.
    known: Option<(u64, Instant)>,
    /// When a call was seen last, and the counter then.
    called: Option<(Instant, u64)>,
    /// Its bundle is being fetched, to be kept for others.
    is_copying: bool,
    /// Why it is not kept, if it could not be fetched.
    uncopied: Option<Retry>,
    /// Held while something is being done about it.
    turn: Rc<Mutex<()>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Busy {
    /// It is about to serve another version.
    Starting,
    /// It serves those who have not heard yet that it stops.
    Stopping,
}

impl Hosted {
    /// Whether it serves the app, or is about to.
    fn hosts(&self) -> bool {
        match self.busy {
            Some(busy) => busy == Busy::Starting,
            None => self.serving.is_some(),
        }
    }

    /// Whether the deployment has changed just now.
    fn is_new(&mut self, revision: u64, now: Instant) -> bool {
        if self.known.is_none_or(|(known, _)| known != revision) {
            self.known = Some((revision, now));
        }
        self.known.is_some_and(|(_, since)| now - since < NEW)
    }

    /// How long no call has come, given the counter now.
    fn idle(&mut self, demand: Demand, now: Instant) -> Duration {
        match self.called {
            Some((since, counter)) if counter == demand.counter && demand.calls == 0 => now - since,
            _ => {
                self.called = Some((now, demand.counter));
                Duration::ZERO
            }
        }
    }
}

impl Hosting {
    pub(crate) fn new(host: Rc<Host>, mesh: Handle, http: SocketAddr, directory: PathBuf) -> Rc<Self> {
        Rc::new(Self {
            host,
            mesh,
            http,
            directory,
            apps: RefCell::default(),
            view: RefCell::default(),
            announced: RefCell::default(),
            serves: RefCell::default(),
            is_stale: Cell::new(false),
            config: placement::Config::default(),
            prompt: placement::Config { patience: PROMPT, outage: PROMPT, ..placement::Config::default() },
            drain: Cell::new(Drain::Off),
            bundles: RwLock::default(),
        })
    }

    /// Hosts what it hosted before and then what placement decides, does what users and peers ask for, and tells the
    /// mesh, for as long as it is polled.
    pub(crate) async fn run(
        self: Rc<Self>,
        mut commands: mpsc::UnboundedReceiver<Command>,
        mut asks: mpsc::Receiver<Ask>,
    ) {
        let mut tasks = JoinSet::new();
        let mut changes = self.host.runtime.changes();
        let (mut members, mut deployments) = (self.mesh.member_changes(), self.mesh.deployments().changes());
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        changes.mark_changed();
        let mut has_old_bundles = true;
        tasks.spawn_local(Rc::clone(&self).resume());
        for number in 0_u32.. {
            tokio::select! {
                _ = ticks.tick() => {}
                Some(command) = commands.recv() => drop(tasks.spawn_local(Rc::clone(&self).obey(command))),
                Some(ask) = asks.recv() => self.asked(ask, &mut tasks),
            }
            while tasks.try_join_next().is_some() {}
            // What has changed is marked as seen before it is looked at.
            if changes.has_changed().unwrap_or(false) || self.is_stale.take() {
                changes.mark_unchanged();
                self.read_apps();
            }
            let [of_members, of_deployments] = [&mut members, &mut deployments].map(|it| {
                let has_changed = it.has_changed().unwrap_or(false);
                it.mark_unchanged();
                has_changed
            });
            has_old_bundles |= of_deployments;
            if has_old_bundles {
                // Later, if one is being packed or fetched.
                has_old_bundles = !self.clean_bundles();
            }
            let demand = self.host.runtime.demand();
            let all = of_members || of_deployments || number % ALL_EVERY == 0;
            self.look(all, &demand, &mut tasks);
            self.announce(&demand);
        }
    }

    /// Does what placement decides about the apps that are here, or about all.
    fn look(self: &Rc<Self>, all: bool, demand: &BTreeMap<String, Demand>, tasks: &mut JoinSet<()>) {
        let now = Instant::now();
        let registry = self.mesh.deployments().snapshot();
        let view = self.view();
        let loads = || demand.values().map(|demand| load(*demand));
        let busy = (placement::sum(loads()), placement::has_room(loads()));
        for (deployment, content) in registry.deployed() {
            let app = &deployment.app;
            if all {
                self.keep_copy(deployment, content, &view, tasks);
            }
            let is_here = self.apps.borrow().get(app).is_some_and(|hosted| hosted.serving.is_some());
            if !(all || is_here) || self.is_served_from_a_directory(app) {
                continue;
            }
            let demand = demand.get(&**app).copied().unwrap_or_default();
            let decision = self.decide(deployment, content, &view, (demand, busy), now);
            if decision != Decision::Stay {
                tracing::info!(target: "fnmesh::node", %app, ?decision, replicas = %deployment.replicas, "placement");
            }
            match decision {
                Decision::Stay => {}
                Decision::Host => self.start(deployment, tasks),
                Decision::Retire => self.stop(app, tasks),
                Decision::Ask(peer) => {
                    let (mesh, app) = (self.mesh.clone(), Arc::clone(app));
                    tasks.spawn_local(async move {
                        if let Err(reason) = mesh.ask_to_host(peer, Arc::clone(&app)).await {
                            tracing::warn!(target: "fnmesh::node", %app, %peer, reason, "node is not asked to host it");
                        }
                    });
                }
            }
        }
        let apps = self.apps.borrow();
        let is_gone = |app: &str| registry.get(app).is_none_or(|deployment| deployment.content.is_none());
        // While something is being done about it, the reason may not be recorded yet.
        let is_idle = |hosted: &Hosted| hosted.serving.is_some() && hosted.busy.is_none();
        let gone = apps.iter().filter(|(app, hosted)| is_idle(hosted) && is_gone(app));
        let gone: Vec<_> = gone.map(|(app, _)| Arc::clone(app)).collect();
        drop(apps);
        for app in &gone {
            tracing::info!(target: "fnmesh::node", %app, "app is not deployed any more");
            self.stop(app, tasks);
        }
    }

    fn decide(
        &self,
        deployment: &Deployment,
        content: &Content,
        view: &View,
        (demand, (load, has_room)): (Demand, (Load, bool)),
        now: Instant,
    ) -> Decision {
        let mut apps = self.apps.borrow_mut();
        let hosted = apps.entry(Arc::clone(&deployment.app)).or_default();
        let is_waiting = hosted.failed.is_some_and(|it| it.is_waiting(deployment.revision, now));
        if hosted.busy.is_some() || self.is_draining() {
            return Decision::Stay;
        }
        match &mut hosted.serving {
            Some((_, hash)) if *hash != content.hash => {
                return if is_waiting { Decision::Stay } else { Decision::Host };
            }
            // Deployed here and elsewhere at the same time, the same content has got another number.
            Some((version, _)) if *version != deployment.version => {
                *version = deployment.version;
                self.is_stale.set(true);
            }
            _ => {}
        }
        let own = Site {
            node: self.mesh.node(),
            has_room: has_room && !is_waiting,
            hosts: hosted.serving.is_some(),
            serves: hosted.serving.is_some(),
            load,
        };
        let demand = placement::Demand {
            is_saturated: demand.is_saturated,
            idle: hosted.idle(demand, now),
            calls: demand.calls,
            capacity: demand.capacity,
            begun: demand.counter,
        };
        let sites = view.sites(&deployment.app, own);
        let about = (own.node, &*deployment.app);
        let config = if hosted.is_new(deployment.revision, now) { &self.prompt } else { &self.config };
        match hosted.placement.decide(config, about, deployment.replicas, &sites, demand, now) {
            Decision::Host if is_waiting => Decision::Stay,
            decision => decision,
        }
    }

    fn asked(self: &Rc<Self>, ask: Ask, tasks: &mut JoinSet<()>) {
        match ask {
            Ask::Drain { on, peer } => {
                tracing::info!(target: "fnmesh::node", %peer, on, "asked to drain");
                let hosting = Rc::clone(self);
                tasks.spawn_local(async move { drop(hosting.drain(on, Progress::nowhere()).await) });
            }
            Ask::Host { app, peer } => {
                let registry = self.mesh.deployments().snapshot();
                let Some(deployment) = registry.get(&app).filter(|deployment| deployment.content.is_some()) else {
                    return;
                };
                let is_free = {
                    let mut apps = self.apps.borrow_mut();
                    let hosted = apps.entry(Arc::clone(&app)).or_default();
                    let has_failed = hosted.failed.is_some_and(|it| it.is_of(deployment.revision));
                    hosted.busy.is_none() && hosted.serving.is_none() && !has_failed
                };
                if is_free && !self.is_draining() && !self.is_served_from_a_directory(&app) {
                    tracing::info!(target: "fnmesh::node", %peer, %app, "asked to host an app");
                    self.start(deployment, tasks);
                }
            }
        }
    }

    /// The other nodes; made anew when something of them has changed.
    fn view(&self) -> Rc<View> {
        let members = self.mesh.members();
        let mut view = self.view.borrow_mut();
        if !Arc::ptr_eq(&view.0, &members) {
            let others = members.iter().filter(|member| !member.is_self && member.is_reachable);
            let profiles = others.filter_map(|member| Some((member.node, &member.record.as_ref()?.profile)));
            let deploys = |node| members.iter().any(|member| member.node == node && member.deploys);
            let new = Rc::new(View::of(profiles).without(|node| !deploys(node)));
            *view = (Arc::clone(&members), new);
        }
        Rc::clone(&view.1)
    }

    fn is_served_from_a_directory(&self, app: &str) -> bool {
        self.host.config.deploy_to.is_none() && self.host.names.borrow().contains_key(app)
    }

    fn turn(&self, app: &Arc<str>) -> Rc<Mutex<()>> {
        Rc::clone(&self.apps.borrow_mut().entry(Arc::clone(app)).or_default().turn)
    }

    fn change(&self, app: &Arc<str>, change: impl FnOnce(&mut Hosted)) {
        change(self.apps.borrow_mut().entry(Arc::clone(app)).or_default());
    }

    /// How many nodes are to serve an app, this one included if it takes calls.
    fn wanted(&self, replicas: Replicas) -> usize {
        let nodes = self.view().nodes().len() + usize::from(!self.is_draining());
        match replicas {
            Replicas::Auto => 1,
            Replicas::Count(count) => count.get().min(nodes),
            Replicas::All => nodes,
        }
    }
}

fn load(demand: Demand) -> Load {
    placement::load(demand.calls, demand.capacity, demand.is_saturated)
}

/// The names of these directories' entries; none if they are not there.
fn entries(directory: &Path) -> BTreeSet<PathBuf> {
    fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.path()).collect()
}
