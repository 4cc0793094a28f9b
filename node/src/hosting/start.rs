//! How a deployed app comes to this node and goes.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::{self, BufReader},
    path::{Path, PathBuf},
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use fnmesh_invoke::Failure;
use fnmesh_mesh::{
    FetchError, NodeId,
    deployments::{Content, Deployment, Obstacle, Retry},
    placement::{self, View},
};
use fnmesh_runtime::{
    app::App,
    bundle::{self, Limits},
};
use tokio::{
    task::{self, JoinSet},
    time::{sleep, timeout},
};

use super::{Busy, Hosted, Hosting, WITHDRAWN, entries};
use crate::{app::failure, mesh};

/// How many nodes keep the bundle of an app, whoever serves it.
const COPIES: usize = 3;
/// How long a node that comes back waits for others to tell what was deployed meanwhile.
const NEWS_PATIENCE: Duration = Duration::from_secs(2);

impl Hosting {
    /// Serves again what this node served before it ended, but for what enough others serve by now.
    pub(super) async fn resume(self: Rc<Self>) {
        let before: Vec<_> = entries(&self.directory).iter().filter_map(|path| name(path)).collect();
        if before.is_empty() {
            return;
        }
        if self.mesh.members().len() > 1 || !self.mesh.is_founder() {
            let mut news = self.mesh.member_changes();
            let heard = async { while self.view().nodes().len() == 0 && news.changed().await.is_ok() {} };
            // Alone, it serves what it knows.
            let _ = timeout(NEWS_PATIENCE, heard).await;
        }
        let registry = self.mesh.deployments().snapshot();
        let mut tasks = JoinSet::new();
        for app in before {
            let deployment = registry.get(&app).filter(|deployment| deployment.content.is_some());
            let served = self.view().serving(&app, 0).count();
            match deployment {
                Some(deployment)
                    if served < self.wanted(deployment.replicas) && !self.is_served_from_a_directory(&app) =>
                {
                    self.start(deployment, &mut tasks);
                }
                _ => self.clean(&app),
            }
        }
        tasks.join_all().await;
    }

    /// Serves the app as it is deployed now, in a task.
    pub(super) fn start(self: &Rc<Self>, deployment: &Arc<Deployment>, tasks: &mut JoinSet<()>) {
        self.change(&deployment.app, |hosted| hosted.busy = Some(Busy::Starting));
        let (hosting, deployment) = (Rc::clone(self), Arc::clone(deployment));
        tasks.spawn_local(async move {
            let turn = hosting.turn(&deployment.app);
            let _turn = turn.lock().await;
            let _busy = hosting.keep_busy(&deployment.app);
            hosting.bring_up(&deployment).await;
        });
    }

    async fn bring_up(&self, deployment: &Deployment) {
        let Some(content) = &deployment.content else { return };
        let app = &deployment.app;
        let directory = self.place(app, &content.hash);
        let begin = Instant::now();
        let before = self.host.serving(app);
        let started = async {
            self.unpack(deployment, content).await?;
            self.serve(app, content, deployment.version).await.map_err(|failure| (Obstacle::NoStart, failure))
        };
        match started.await {
            Ok(()) => self.host.tell_serving(app, before.as_ref(), begin.elapsed()),
            Err((obstacle, error)) => {
                let last = self.apps.borrow().get(app).and_then(|hosted| hosted.failed);
                let failed = Retry::after(last, deployment.revision, obstacle, Instant::now());
                self.change(app, |hosted| hosted.failed = Some(failed));
                if failed.is_news() {
                    let is_elsewhere = self.view().serving(app, 0).next().is_some();
                    self.host.tell_failed(app, &directory, error, !is_elsewhere);
                }
            }
        }
    }

    /// Has the runtime serve what is unpacked.
    pub(super) async fn serve(&self, app: &Arc<str>, content: &Content, version: u64) -> Result<(), Failure> {
        let directory = self.place(app, &content.hash);
        let (place, name) = (directory.clone(), app.to_string());
        let read = task::spawn_blocking(move || App::read(&place, Some(&name))).await;
        let read = read.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))?;
        if read.hash != content.hash {
            // Somebody has changed it since: the next attempt unpacks it anew.
            let _ = fs::remove_dir_all(&directory);
            let message = format!("{} is not what was deployed; it is unpacked again", directory.display());
            return Err(failure("BundleError", message));
        }
        // Calls wait if nobody else can serve them, and run there if somebody can.
        if self.view().serving(app, 0).next().is_none() {
            self.host.runtime.expect(app, &directory);
        }
        let dependencies = self.host.install(&read).await?;
        let previous = self.apps.borrow().get(app).and_then(|hosted| hosted.serving);
        // Known by its number as soon as it serves.
        self.change(app, |hosted| (hosted.serving, hosted.before) = (Some((version, content.hash)), previous));
        let undo = Undo::new(|| self.change(app, |hosted| hosted.serving = previous));
        self.host.runtime.host(&read, &dependencies).await?;
        undo.leave();
        self.change(app, |hosted| hosted.failed = None);
        self.clean_versions(app);
        Ok(())
    }

    /// Fetches the bundle, in a task, if this node is one of those that are to keep it: so that the app can start
    /// elsewhere when those that serve it are gone.
    pub(super) fn keep_copy(
        self: &Rc<Self>,
        deployment: &Arc<Deployment>,
        content: &Content,
        view: &View,
        tasks: &mut JoinSet<()>,
    ) {
        let is_waiting = |retry: Retry| retry.is_waiting(deployment.revision, Instant::now());
        let is_busy = |hosted: &Hosted| hosted.is_copying || hosted.uncopied.is_some_and(is_waiting);
        if !self.keepers(&deployment.app, view).contains(&self.mesh.node())
            || self.mesh.bundles().contains(&content.bundle)
            || self.apps.borrow().get(&deployment.app).is_some_and(is_busy)
        {
            return;
        }
        self.change(&deployment.app, |hosted| hosted.is_copying = true);
        let (hosting, deployment, content) = (Rc::clone(self), Arc::clone(deployment), content.clone());
        tasks.spawn_local(async move {
            let turn = hosting.turn(&deployment.app);
            let turn = turn.lock().await;
            let fetched = hosting.fetch(&deployment, &content).await;
            drop(turn);
            hosting.change(&deployment.app, |hosted| {
                hosted.is_copying = false;
                hosted.uncopied = fetched.err().map(|error| {
                    let retry =
                        Retry::after(hosted.uncopied, deployment.revision, obstacle(&error), Instant::now());
                    if retry.is_news() {
                        tracing::warn!(target: "fnmesh::node", app = %deployment.app, %error, "no copy of a bundle yet");
                    }
                    retry
                });
            });
        });
    }

    /// The nodes that are to keep the bundle of an app.
    pub(super) fn keepers(&self, app: &str, view: &View) -> Vec<NodeId> {
        placement::first(app, view.nodes().chain([self.mesh.node()]), COPIES)
    }

    async fn fetch(&self, deployment: &Deployment, content: &Content) -> Result<PathBuf, FetchError> {
        let _bundles = self.bundles.read().await;
        let view = self.view();
        let mut peers: Vec<_> = view.serving(&deployment.app, deployment.version).collect();
        let others: Vec<_> = view.nodes().filter(|node| !peers.contains(node)).collect();
        // Where it was deployed it surely was.
        peers.extend(others.iter().filter(|node| **node == deployment.node));
        peers.extend(others.iter().filter(|node| **node != deployment.node));
        self.mesh.fetch_bundle(content, &peers, |_| {}).await
    }

    /// Sees to it that the content is unpacked here: from the bundle that is here, or from that of another node.
    async fn unpack(&self, deployment: &Deployment, content: &Content) -> Result<(), (Obstacle, Failure)> {
        let place = self.place(&deployment.app, &content.hash);
        if place.is_dir() {
            return Ok(());
        }
        let failed = |reason: String| failure("BundleError", reason);
        let fetched = self.fetch(deployment, content).await;
        let bundle = fetched.map_err(|error| (obstacle(&error), failed(error.to_string())))?;
        unpack(bundle, place).await.map_err(|error| (Obstacle::NoStart, failed(error)))
    }

    /// The same for what was packed here.
    pub(super) async fn unpack_own(&self, app: &str, content: &Content) -> Result<(), String> {
        let place = self.place(app, &content.hash);
        if place.is_dir() { Ok(()) } else { unpack(self.mesh.bundles().path(&content.bundle), place).await }
    }

    /// Stops to serve an app, in a task; its calls end first.
    pub(super) fn stop(self: &Rc<Self>, app: &Arc<str>, tasks: &mut JoinSet<()>) {
        self.change(app, |hosted| hosted.busy = Some(Busy::Stopping));
        let (hosting, app) = (Rc::clone(self), Arc::clone(app));
        tasks.spawn_local(async move {
            let turn = hosting.turn(&app);
            let _turn = turn.lock().await;
            // The announcement goes out with the next tick.
            sleep(WITHDRAWN).await;
            hosting.host.remove(&app);
            hosting
                .change(&app, |hosted| *hosted = super::Hosted { turn: Rc::clone(&hosted.turn), ..Default::default() });
            hosting.clean(&app);
        });
    }

    /// Nothing else is done about an app until the returned guard is dropped.
    pub(super) fn keep_busy(&self, app: &Arc<str>) -> impl Drop + use<'_> {
        self.change(app, |hosted| hosted.busy = Some(Busy::Starting));
        let app = Arc::clone(app);
        Undo::new(move || self.change(&app, |hosted| hosted.busy = None))
    }

    /// Where the content of an app is unpacked.
    pub(super) fn place(&self, app: &str, hash: &[u8; 32]) -> PathBuf {
        self.directory.join(app).join(mesh::short(hash))
    }

    /// Removes what is unpacked of versions that are over.
    fn clean_versions(&self, app: &Arc<str>) {
        let apps = self.apps.borrow();
        let Some(hosted) = apps.get(app) else { return };
        let known = [hosted.serving, hosted.before].into_iter().flatten();
        let kept: BTreeSet<_> = known.map(|(_, hash)| self.place(app, &hash)).collect();
        for path in entries(&self.directory.join(&**app)).difference(&kept) {
            remove(path);
        }
    }

    fn clean(&self, app: &str) {
        remove(&self.directory.join(app));
    }

    /// Removes bundles that nobody will ask for; whether it could, as none is being packed or fetched.
    pub(super) fn clean_bundles(&self) -> bool {
        let Ok(_alone) = self.bundles.try_write() else { return false };
        let registry = self.mesh.deployments().snapshot();
        let kept: BTreeSet<_> = registry.deployed().map(|(_, content)| content.bundle).collect();
        if let Err(error) = self.mesh.bundles().retain(&kept) {
            tracing::warn!(target: "fnmesh::node", %error, "cannot remove old bundles");
        }
        true
    }
}

/// Undoes something when dropped, on an error or because its task ends early, unless it is to stay.
struct Undo<F: FnOnce()>(Option<F>);

impl<F: FnOnce()> Undo<F> {
    fn new(undo: F) -> Self {
        Self(Some(undo))
    }

    fn leave(mut self) {
        self.0 = None;
    }
}

impl<F: FnOnce()> Drop for Undo<F> {
    fn drop(&mut self) {
        if let Some(undo) = self.0.take() {
            undo();
        }
    }
}

async fn unpack(bundle: PathBuf, place: PathBuf) -> Result<(), String> {
    let unpack = move || {
        let failed = |path: &Path, error: io::Error| format!("{}: {error}", path.display());
        fs::create_dir_all(place.parent().unwrap_or(&place)).map_err(|error| failed(&place, error))?;
        let file = File::open(&bundle).map_err(|error| failed(&bundle, error))?;
        bundle::unpack(BufReader::new(file), &place, Limits::default()).map_err(|error| error.to_string())
    };
    task::spawn_blocking(unpack).await.unwrap_or_else(|error| Err(error.to_string()))
}

fn obstacle(error: &FetchError) -> Obstacle {
    match error {
        FetchError::Nobody { .. } => Obstacle::NoBundle,
        FetchError::Disk { .. } => Obstacle::NoStart,
    }
}

fn remove(path: &Path) {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::warn!(target: "fnmesh::node", path = %path.display(), %error, "cannot remove what is not served any more");
        }
        _ => {}
    }
}

fn name(path: &Path) -> Option<Arc<str>> {
    Some(path.file_name()?.to_str()?.into())
}
