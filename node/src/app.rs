//! One app on this node: deployed at the start, and again when its files change.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    future,
    path::{Path, PathBuf},
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use fnmesh_invoke::{AppState, AppStatus, Failure, FunctionId, Language};
use fnmesh_runtime::{
    Runtime,
    app::{App, AppError},
    deps::{self, Dependencies, Progress},
};
use tokio::{sync::Notify, task, time};

use crate::{
    config::Config,
    discover::Found,
    event::{Event, Observer},
    hosting::Hosting,
    report,
    watch::Watcher,
};

/// How often a directory that went away is looked for.
const LOOK_AGAIN: Duration = Duration::from_millis(200);

/// What all apps of a node share; lives on its control thread.
pub(crate) struct Host {
    pub(crate) config: Config,
    pub(crate) runtime: Runtime,
    pub(crate) observer: Observer,
    pub(crate) watcher: Option<RefCell<Watcher>>,
    /// Which directory has which name.
    pub(crate) names: RefCell<BTreeMap<String, PathBuf>>,
    /// Apps whose first deployment has not ended.
    pub(crate) unsettled: Cell<usize>,
}

impl Host {
    fn tell(&self, event: &Event) {
        (self.observer)(event);
    }

    fn settle_one(&self) {
        let left = self.unsettled.get() - 1;
        self.unsettled.set(left);
        if left == 0 {
            self.tell(&Event::Settled { apps: self.runtime.apps() });
        }
    }

    fn status(&self, name: &str) -> Option<AppStatus> {
        self.runtime.apps().into_iter().find(|app| app.name == name)
    }

    /// Installs what an app needs, and has the runtime serve it.
    async fn start(&self, app: App) -> Result<(), Failure> {
        let dependencies = self.install(&app).await?;
        self.runtime.deploy(app, &dependencies).await
    }

    /// Installs what an app needs.
    pub(crate) async fn install(&self, app: &App) -> Result<Dependencies, Failure> {
        self.check_extension(app)?;
        let mut tell = |progress| self.tell_progress(&app.name, progress);
        Ok(deps::install(app, &self.config.tools, &mut tell).await?)
    }

    fn check_extension(&self, app: &App) -> Result<(), Failure> {
        let config = &self.config;
        if !app.languages().contains(&Language::Python) || config.runtime.python_extension.is_file() {
            return Ok(());
        }
        let places: Vec<_> = config.python_extensions.iter().map(|path| path.display().to_string()).collect();
        let message = format!(
            "the Python worker extension is missing; looked for {}. Name it with --python-extension FILE",
            places.join(" and ")
        );
        Err(failure("MissingExtension", message))
    }

    fn tell_progress(&self, app: &str, progress: Progress) {
        let step = match progress {
            Progress::Started { what } => format!("installing {what}"),
            Progress::Line { text } => text,
            Progress::Finished { what, elapsed } => format!("installed {what} in {}", report::elapsed(elapsed)),
        };
        self.tell(&Event::Installing { app: app.to_owned(), step });
    }

    /// Tells that another version of an app serves; `before` is what served until then.
    pub(crate) fn tell_serving(&self, name: &str, before: Option<&AppStatus>, elapsed: Duration) {
        let Some(app) = self.status(name) else { return };
        let elapsed_ms = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX);
        self.tell(&match before {
            None => Event::Ready { app, elapsed_ms },
            Some(before) => {
                let (added, removed) = (missing(&app, before), missing(before, &app));
                Event::Reloaded { app, elapsed_ms, added, removed }
            }
        });
    }

    /// Tells that an app does not start. Its calls are answered so where no older version serves, unless they can run
    /// elsewhere.
    pub(crate) fn tell_failed(&self, name: &str, directory: &Path, error: Failure, is_elsewhere: bool) {
        if !is_elsewhere {
            self.runtime.deploy_failed(name, directory, error.clone());
        }
        let serving = self.serving(name).map(|app| app.version);
        let directory = directory.display().to_string();
        self.tell(&Event::Failed { app: name.to_owned(), directory, error, serving });
    }

    /// Serves an app no longer; its calls end first.
    pub(crate) fn remove(&self, name: &str) {
        self.runtime.remove(name);
        self.tell(&Event::Removed { app: name.to_owned() });
    }

    /// The app, if a version of it serves.
    pub(crate) fn serving(&self, name: &str) -> Option<AppStatus> {
        self.status(name).filter(is_serving)
    }
}

/// Deploys an app, on this node or by `mesh` on all, and then each change of it, for as long as the node serves.
pub(crate) async fn keep(host: Rc<Host>, mesh: Option<Rc<Hosting>>, found: Found, changed: Arc<Notify>) {
    if let Some((mesh, nodes)) = mesh.as_ref().zip(host.config.deploy_to) {
        mesh.gather(nodes).await;
    }
    let app = Hosted { name: RefCell::new(found.name), directory: found.directory, changed, host, mesh };
    let mut read = found.read;
    let mut settled = false;
    loop {
        let attempted = read.as_ref().ok().map(|app| app.version.clone());
        let newer = tokio::select! {
            () = app.deploy(read) => None,
            // The version that is starting, perhaps for ever, is of no use any more.
            newer = app.next(attempted.as_deref()) => Some(newer),
        };
        if newer.is_none() && !std::mem::replace(&mut settled, true) {
            app.host.settle_one();
        }
        read = match newer {
            Some(newer) => newer,
            None => app.next(attempted.as_deref()).await,
        };
    }
}

/// An app in its directory.
struct Hosted {
    host: Rc<Host>,
    /// Where it is deployed to, if this node does not serve it from its directory.
    mesh: Option<Rc<Hosting>>,
    name: RefCell<String>,
    directory: PathBuf,
    changed: Arc<Notify>,
}

impl Hosted {
    async fn deploy(&self, read: Result<App, AppError>) {
        let begin = Instant::now();
        let before = self.host.serving(&self.name());
        let deployed = match read.map_err(Failure::from) {
            Ok(app) => match self.rename(&app.name).await {
                Ok(()) => match &self.mesh {
                    Some(mesh) => mesh.deploy_everywhere(&self.directory).await,
                    None => self.host.start(app).await.map(|()| false),
                },
                Err(failure) => Err(failure),
            },
            Err(failure) => Err(failure),
        };
        match deployed {
            Ok(true) => {}
            Ok(false) => self.host.tell_serving(&self.name(), before.as_ref(), begin.elapsed()),
            Err(failure) => {
                // What the mesh serves is as good as before.
                let is_elsewhere = self.mesh.is_some() && before.is_some();
                self.host.tell_failed(&self.name(), &self.directory, failure, is_elsewhere);
            }
        }
    }

    /// Takes the name that the manifest gives now.
    async fn rename(&self, name: &str) -> Result<(), Failure> {
        if *self.name.borrow() == name {
            return Ok(());
        }
        if let Some(other) = self.host.names.borrow().get(name) {
            let message = format!("{} is named {name:?} already; set another `name` in fnmesh.toml", other.display());
            return Err(failure("SameName", message));
        }
        let old = self.name.replace(name.to_owned());
        self.host.names.borrow_mut().remove(&old);
        self.host.names.borrow_mut().insert(name.to_owned(), self.directory.clone());
        match &self.mesh {
            Some(mesh) => mesh.forget(&old).await,
            None => self.host.runtime.remove(&old),
        }
        Ok(())
    }

    fn name(&self) -> String {
        self.name.borrow().clone()
    }

    /// Waits for another version than `attempted`; without a watcher there never is one.
    async fn next(&self, attempted: Option<&str>) -> Result<App, AppError> {
        if self.host.watcher.is_none() {
            return future::pending().await;
        }
        loop {
            self.changed.notified().await;
            self.wait_for_directory().await;
            self.watch();
            let directory = self.directory.clone();
            let read = task::spawn_blocking(move || App::read(&directory, None)).await;
            let read = read.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()));
            let same = read.as_ref().is_ok_and(|app| attempted == Some(&app.version));
            // A directory that goes away while it is read is looked for again.
            let gone = read.is_err() && !self.directory.is_dir();
            if gone {
                self.changed.notify_one();
            } else if !same {
                return read;
            }
        }
    }

    async fn wait_for_directory(&self) {
        if self.directory.is_dir() {
            return;
        }
        let directory = self.directory.display().to_string();
        self.host.tell(&Event::DirectoryGone { app: self.name(), directory: directory.clone() });
        while !self.directory.is_dir() {
            time::sleep(LOOK_AGAIN).await;
        }
        self.host.tell(&Event::DirectoryBack { app: self.name(), directory });
    }

    fn watch(&self) {
        let Some(watcher) = &self.host.watcher else { return };
        if let Err(error) = watcher.borrow_mut().watch(&self.directory) {
            let (app, directory) = (self.name(), self.directory.display());
            tracing::warn!(target: "fnmesh::node", %app, %directory, %error, "some changes will not be noticed");
        }
    }
}

fn is_serving(app: &AppStatus) -> bool {
    matches!(app.state, AppState::Ready | AppState::Stale { .. })
}

/// Functions of `of` that `other` does not have.
fn missing(of: &AppStatus, other: &AppStatus) -> Vec<String> {
    let known = |id: &FunctionId| other.functions.iter().any(|function| function.id == *id);
    of.functions.iter().map(|function| &function.id).filter(|id| !known(id)).map(ToString::to_string).collect()
}

pub(crate) fn failure(kind: &str, message: String) -> Failure {
    Failure { kind: kind.to_owned(), message, stack: String::new() }
}

/// The name that each directory has.
pub(crate) fn names<'a>(found: impl Iterator<Item = (&'a str, &'a Path)>) -> BTreeMap<String, PathBuf> {
    found.map(|(name, directory)| (name.to_owned(), directory.to_owned())).collect()
}
