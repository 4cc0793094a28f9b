//! Deploys apps on this machine and finds their functions.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    io,
    path::Path,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::SeqCst},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use fnmesh_invoke::{AppState, AppStatus, Error, Failure, Function, Language, nearest};
use serde_json::json;
use tokio::{
    sync::{oneshot, watch},
    time::{sleep, timeout},
};
use tokio_util::task::{AbortOnDropHandle, TaskTracker};

use crate::{
    app::App,
    catalog::{Catalog, Entry, Owned, Version},
    config::Config,
    deps::Dependencies,
    inspect::{Describe, Inspected},
    instance::{Penalty, life::Start, stock, zygote},
    local::Local,
    pool::{
        Pool,
        supervise::{PATIENCE, retired, supervise},
    },
    threads::Threads,
    worker::{
        node, orphans,
        process::{Launch, become_subreaper},
        python,
        sandbox::{Levels, Mode, Sandbox},
    },
};

/// How often it is seen whether the last calls of a removed app have ended.
const REMOVAL_LOOK: Duration = Duration::from_millis(50);

/// How busy an app is on this machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Demand {
    /// Calls that run and wait.
    pub calls: usize,
    /// Calls that its instances can run at a time.
    pub capacity: usize,
    /// Whether calls wait, in line or for a core, in a pool that can have no more instances.
    pub is_saturated: bool,
    /// Grows with each call, and changes when instances go.
    pub counter: u64,
}

/// Runs apps on this machine. Clones are handles to the same runtime.
#[derive(Clone)]
pub struct Runtime {
    shared: Arc<Shared>,
}

/// What calling threads share with the control thread.
pub(crate) struct Shared {
    pub(crate) config: Arc<Config>,
    sandbox: Arc<Sandbox>,
    pub(crate) draining: AtomicBool,
    /// Processes whose parent died become children of this one.
    adopts_orphans: bool,
    catalog: ArcSwap<Catalog>,
    /// Grows with each change of the catalog, just after it.
    generation: AtomicU64,
    /// Marked at every change of the catalog.
    changed: watch::Sender<()>,
    threads: Arc<Threads>,
    pools: AtomicU32,
    tasks: TaskTracker,
    reaper: OnceLock<AbortOnDropHandle<()>>,
    /// Spare Node workers, once there is a Node app.
    stock: Mutex<Option<stock::Handle>>,
    /// Held while an app is being deployed.
    deploying: Mutex<BTreeMap<String, Arc<tokio::sync::Mutex<()>>>>,
}

impl Runtime {
    /// A runtime without apps. Blocks for some milliseconds, to find out how workers can be confined.
    ///
    /// From then on processes whose parent died become children of this one, as long as it lives.
    pub fn new(config: Config) -> Self {
        let adopted = become_subreaper();
        if let Err(error) = &adopted {
            tracing::warn!(target: "fnmesh::runtime", %error, "processes that apps leave behind will not be noticed");
        }
        let threads = Arc::new(Threads::new(config.threads));
        let sandbox = Arc::new(Sandbox::new(config.sandbox, &config.cache_dir.join("tmp")));
        let shared = Shared {
            sandbox,
            config: Arc::new(config),
            draining: AtomicBool::new(false),
            adopts_orphans: adopted.is_ok(),
            catalog: ArcSwap::default(),
            generation: AtomicU64::new(0),
            changed: watch::Sender::new(()),
            threads,
            pools: AtomicU32::new(0),
            tasks: TaskTracker::new(),
            reaper: OnceLock::new(),
            stock: Mutex::default(),
            deploying: Mutex::default(),
        };
        Self { shared: Arc::new(shared) }
    }

    /// How far workers are confined.
    pub fn levels(&self) -> Levels {
        self.shared.sandbox.levels().clone()
    }

    /// Changes when an app comes, goes or serves another version.
    pub fn changes(&self) -> watch::Receiver<()> {
        self.shared.changed.subscribe()
    }

    /// The invoker of calling thread `index`; call once on each, inside its `LocalSet`.
    ///
    /// # Panics
    /// If `index` is not below [`Config::threads`], or was attached before.
    pub fn attach(&self, index: usize) -> Local {
        let inbox = self.shared.threads.inbox(index).expect("each thread attaches once, with its own index");
        Local::new(Arc::clone(&self.shared), inbox)
    }

    /// Says that an app is going to be deployed: until then its calls wait instead of being unknown.
    pub fn expect(&self, name: &str, directory: &Path) {
        self.shared.update(|catalog| {
            catalog.entry(name.to_owned()).or_insert_with(|| {
                let directory = directory.display().to_string();
                Arc::new(Entry { directory, state: AppState::Loading, serving: None })
            });
        });
    }

    /// Starts an app, or replaces the version of it that serves; resolves when all its languages have a
    /// ready instance. Until then, and if that fails, the version before it serves on.
    ///
    /// Call it in the tokio runtime of a thread that lives as long as the node: workers end with it.
    ///
    /// # Errors
    /// What the app's code raised while it was loaded. Calls get it too, unless an older version serves.
    pub async fn deploy(&self, app: App, dependencies: &Dependencies) -> Result<(), Failure> {
        self.expect(&app.name, &app.directory);
        let deployed = self.host(&app, dependencies).await;
        if let Err(failure) = &deployed {
            self.deploy_failed(&app.name, &app.directory, failure.clone());
        }
        deployed
    }

    /// As [`Self::deploy`], but an app that no version of serves stays as unknown as it is until it does: its calls can
    /// run elsewhere.
    ///
    /// # Errors
    /// What the app's code raised while it was loaded.
    pub async fn host(&self, app: &App, dependencies: &Dependencies) -> Result<(), Failure> {
        let turn = Arc::clone(
            self.shared.deploying.lock().unwrap_or_else(PoisonError::into_inner).entry(app.name.clone()).or_default(),
        );
        let _turn = turn.lock().await;
        self.shared.reap_orphans();
        for warning in &app.warnings {
            tracing::warn!(target: "fnmesh::runtime", app = app.name, warning, "app has a part that is not served");
        }
        let loaded = self.shared.start(app, dependencies).await?;
        self.shared.serve(app, loaded);
        Ok(())
    }

    /// Says why an app cannot be deployed. Calls get it, unless an older version serves.
    pub fn deploy_failed(&self, name: &str, directory: &Path, failure: Failure) {
        self.shared.update(|catalog| {
            let directory = directory.display().to_string();
            let entry = Entry::failed(catalog.get(name).map(|it| &**it), directory, failure.clone());
            catalog.insert(name.to_owned(), Arc::new(entry));
        });
    }

    /// Stops an app; calls that run or wait end first. Call it where [`Self::deploy`] was called.
    pub fn remove(&self, name: &str) {
        let mut removed = None;
        self.shared.update(|catalog| removed = catalog.remove(name));
        let Some(version) = removed.and_then(|entry| entry.serving.clone()) else { return };
        let shared = Arc::clone(&self.shared);
        self.shared.tasks.spawn(async move {
            // Retired, the pool would refuse those that wait.
            while version.is_busy() && !shared.draining.load(SeqCst) {
                sleep(REMOVAL_LOOK).await;
            }
            version.retire(PATIENCE);
        });
    }

    /// How busy each app that serves is.
    pub fn demand(&self) -> BTreeMap<String, Demand> {
        let catalog = self.shared.catalog.load();
        let serving = catalog.iter().filter_map(|(name, entry)| Some((name, entry.serving.as_ref()?)));
        serving.map(|(name, version)| (name.clone(), version.demand())).collect()
    }

    /// Every app, sorted by name.
    pub fn apps(&self) -> Vec<AppStatus> {
        self.shared.apps()
    }

    /// Takes no new calls, gives those in flight at most `patience`, and stops all workers, running
    /// their finalize hooks.
    pub async fn drain(&self, patience: Duration) {
        self.shared.draining.store(true, SeqCst);
        for entry in self.shared.catalog.load().values() {
            if let Some(version) = &entry.serving {
                version.retire(patience);
            }
        }
        // With the last pool's, this was the last handle.
        self.shared.stock().take();
        self.shared.tasks.close();
        self.shared.tasks.wait().await;
    }
}

impl Shared {
    fn reap_orphans(&self) {
        if self.config.reap_orphans {
            let held = self.sandbox.cgroups.is_some();
            self.reaper.get_or_init(|| AbortOnDropHandle::new(tokio::spawn(orphans::reap(held))));
        }
    }

    /// As [`fnmesh_invoke::Invoke::resolve`].
    pub(crate) async fn resolve(&self, app: &str, name: &str) -> Result<Arc<Function>, Error> {
        if let Some(found) = self.find(app, name) {
            return found;
        }
        let mut changed = self.changed.subscribe();
        let loaded = async {
            loop {
                if let Some(found) = self.find(app, name) {
                    return found;
                }
                changed.changed().await.map_err(|_| Error::Draining)?;
            }
        };
        timeout(self.config.start_timeout, loaded).await.unwrap_or_else(|_| {
            let reason = format!("app {app:?} is still starting after {:?}", self.config.start_timeout);
            Err(Error::Throttled { reason, retry_after: Duration::from_secs(1), rate: false })
        })
    }

    /// Another number after each change of the catalog.
    pub(crate) fn generation(&self) -> u64 {
        self.generation.load(SeqCst)
    }

    /// `None` while the app is being loaded for the first time.
    fn find(&self, app: &str, name: &str) -> Option<Result<Arc<Function>, Error>> {
        let catalog = self.catalog.load();
        let Some(entry) = catalog.get(app) else {
            return Some(Err(unknown(&catalog, app, name)));
        };
        match (&entry.serving, &entry.state) {
            (Some(version), _) => Some(version.find(app, name)),
            (None, AppState::Failed { error }) => Some(Err(Error::start_failed(app, error.clone()))),
            (None, _) => None,
        }
    }

    pub(crate) fn apps(&self) -> Vec<AppStatus> {
        self.catalog.load().iter().map(|(name, entry)| entry.status(name)).collect()
    }

    fn update(&self, mut change: impl FnMut(&mut Catalog)) {
        // Changes come from the control thread only, so reading and storing need not be one step.
        let mut catalog = Catalog::clone(&self.catalog.load());
        change(&mut catalog);
        self.catalog.store(Arc::new(catalog));
        self.generation.fetch_add(1, SeqCst);
        self.changed.send_replace(());
    }

    /// Starts a pool for each language of the app; on failure none of them stays.
    async fn start(&self, app: &App, dependencies: &Dependencies) -> Result<Vec<(Owned, Vec<Inspected>)>, Failure> {
        let mut starting = Vec::new();
        for language in app.languages() {
            let launch = self.launch(app, dependencies, language).map_err(|error| Failure {
                kind: "SpawnError".to_owned(),
                message: format!("cannot prepare a {language} worker: {error}"),
                stack: String::new(),
            })?;
            starting.push(self.start_pool(app, language, launch));
        }
        let mut loaded = Vec::new();
        let mut failed = None;
        for (owned, first) in starting {
            match first.await {
                Ok(Ok(inspected)) => loaded.push((owned, inspected)),
                Ok(Err(failure)) => failed = Some(failure),
                Err(_) => failed = Some(Failure { kind: "Stopped".to_owned(), ..Failure::default() }),
            }
        }
        failed.map_or(Ok(loaded), Err)
    }

    fn launch(&self, app: &App, dependencies: &Dependencies, language: Language) -> io::Result<Launch> {
        let mut env = self.config.worker_env.clone();
        if self.config.sandbox != Mode::Off {
            // The node's is not a worker's.
            env.retain(|(name, _)| name != "TMPDIR");
        }
        env.push(("PYTHONDONTWRITEBYTECODE".into(), "1".into()));
        env.extend(app.env.iter().map(|(name, value)| (OsString::from(name), OsString::from(value))));
        match language {
            Language::Python => {
                let python = dependencies.python.clone().ok_or(io::ErrorKind::NotFound)?;
                python::launch(&self.config, &self.sandbox, app, python, env)
            }
            Language::Node => {
                let node = dependencies.node.clone().ok_or(io::ErrorKind::NotFound)?;
                node::launch(&self.config, &self.sandbox, app, node, env)
            }
        }
    }

    fn stock(&self) -> MutexGuard<'_, Option<stock::Handle>> {
        self.stock.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn open_stock(&self) -> stock::Handle {
        let open = || {
            let (handle, requests) = stock::Handle::new();
            self.tasks.spawn(stock::run(requests, 1 + self.config.threads));
            handle
        };
        self.stock().get_or_insert_with(open).clone()
    }

    fn start_pool(
        &self,
        app: &App,
        language: Language,
        launch: Launch,
    ) -> (Owned, oneshot::Receiver<Result<Vec<Inspected>, Failure>>) {
        let id = self.pools.fetch_add(1, SeqCst);
        let bounds = app.manifest.bounds(language);
        let max_queue_bytes = self.config.max_queue_bytes;
        let pool = Arc::new(Pool::new(id, app.name.as_str().into(), language, bounds, max_queue_bytes));
        self.threads.open(&pool);
        let can_fork = language == Language::Python && app.manifest.fork && self.adopts_orphans;
        let (zygote, requests) = can_fork.then(zygote::Handle::new).unzip();
        let launch = Arc::new(launch);
        let stock = (language == Language::Node).then(|| {
            // Some threads of a blank worker never enter its app's rules.
            let module = self.config.node_module.as_deref().filter(|_| self.config.sandbox != Mode::Strict);
            let blank = module.and_then(|module| node::blank(&launch, module));
            (self.open_stock(), blank.map_or_else(|| Arc::clone(&launch), Arc::new))
        });
        let start = Arc::new(Start {
            config: Arc::clone(&self.config),
            pool: Arc::clone(&pool),
            threads: Arc::clone(&self.threads),
            launch,
            zygote,
            stock,
            load: load_frame(app, language, bounds.concurrency, self.config.max_reply_bytes),
            describe: Describe { hints: app.hints.clone() },
            names: OnceLock::new(),
            penalty: Penalty::default(),
        });
        let (retire, retire_signal) = watch::channel(None);
        let (first, loaded) = oneshot::channel();
        if let Some(requests) = requests {
            self.tasks.spawn(zygote::run(Arc::clone(&start), requests, retired(retire_signal.clone())));
        }
        self.tasks.spawn(supervise(start, retire_signal, first));
        (Owned { pool, threads: Arc::clone(&self.threads), retire }, loaded)
    }

    /// Swaps in the new version and lets the old one end.
    fn serve(&self, app: &App, loaded: Vec<(Owned, Vec<Inspected>)>) {
        let found = loaded.iter().flat_map(|(_, inspected)| inspected).map(|it| (it.module.as_str(), it.name.as_str()));
        for key in app.manifest.unmatched(found) {
            tracing::warn!(target: "fnmesh::runtime", app = app.name, key, "manifest has settings for a function that is not there");
        }
        let previous = self.catalog.load().get(&app.name).and_then(|entry| entry.serving.clone());
        let version = Arc::new(Version::new(app, loaded, previous.as_deref()));
        self.update(|catalog| {
            let directory = app.directory.display().to_string();
            let entry = Entry { directory, state: AppState::Ready, serving: Some(Arc::clone(&version)) };
            catalog.insert(app.name.clone(), Arc::new(entry));
        });
        if let Some(previous) = previous {
            previous.retire(PATIENCE);
        }
    }
}

fn unknown(catalog: &Catalog, app: &str, name: &str) -> Error {
    let function = format!("{app}/{name}");
    let statuses: Vec<_> = catalog.iter().map(|(name, entry)| entry.status(name)).collect();
    let ids: Vec<_> = statuses
        .iter()
        .flat_map(|status| &status.functions)
        .filter(|function| function.public)
        .map(|function| function.id.to_string())
        .collect();
    let nearest = nearest(&function, ids.iter().map(String::as_str));
    Error::UnknownFunction { function, nearest }
}

/// Body of the load frame: `docs/worker-protocol.md`.
fn load_frame(app: &App, language: Language, concurrency: usize, max_reply_bytes: usize) -> Vec<u8> {
    let modules: Vec<_> = app
        .modules
        .iter()
        .filter(|module| module.language == language)
        .map(|module| {
            let settings: BTreeMap<_, _> = module
                .settings
                .iter()
                .map(|(name, it)| (name, json!({ "callback": it.callback, "http": it.http })))
                .collect();
            json!({ "name": module.name, "file": module.file, "settings": settings })
        })
        .collect();
    let load = json!({
        "protocol": 1,
        "app": app.name,
        "directory": app.directory,
        "max_reply_bytes": max_reply_bytes,
        "concurrency": concurrency,
        "modules": modules,
        "sources": if language == Language::Node { json!(app.sources) } else { json!({}) },
    });
    serde_json::to_vec(&load).expect("strings always serialize into memory")
}
