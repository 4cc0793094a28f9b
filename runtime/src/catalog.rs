//! The apps a node serves, and how a name becomes a function. No I/O.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

use fnmesh_invoke::{AppState, AppStatus, Error, Failure, Function, FunctionId, Limits, Target, nearest};
use tokio::sync::watch;

use crate::{
    app::{App, Module},
    inspect::Inspected,
    manifest::FunctionSettings,
    pool::Pool,
    runtime::Demand,
    threads::Threads,
};

/// All apps by name. Replaced as a whole, so that callers read it without a lock.
pub(crate) type Catalog = BTreeMap<String, Arc<Entry>>;

/// One app.
#[derive(Clone)]
pub(crate) struct Entry {
    pub(crate) directory: String,
    pub(crate) state: AppState,
    pub(crate) serving: Option<Arc<Version>>,
}

impl Entry {
    /// The same app after its newest version failed: the last good one goes on serving.
    pub(crate) fn failed(previous: Option<&Self>, directory: String, error: Failure) -> Self {
        let serving = previous.and_then(|entry| entry.serving.clone());
        let state = if serving.is_some() { AppState::Stale { error } } else { AppState::Failed { error } };
        Self { directory, state, serving }
    }

    pub(crate) fn status(&self, name: &str) -> AppStatus {
        let serving = self.serving.as_deref();
        AppStatus {
            name: name.to_owned(),
            directory: self.directory.clone(),
            version: serving.map(|version| version.name.clone()).unwrap_or_default(),
            hash: serving.map(|version| version.hash).unwrap_or_default(),
            state: self.state.clone(),
            pools: serving.map(|version| version.pools.iter().map(|it| it.pool.status()).collect()).unwrap_or_default(),
            functions: serving.map(|version| version.functions.clone()).unwrap_or_default(),
        }
    }
}

/// A pool, and how to end it. Dropped, it ends at once.
pub(crate) struct Owned {
    pub(crate) pool: Arc<Pool>,
    pub(crate) threads: Arc<Threads>,
    pub(crate) retire: watch::Sender<Option<Duration>>,
}

impl Owned {
    /// Starts no more calls, and gives those in flight at most `patience`.
    pub(crate) fn retire(&self, patience: Duration) {
        self.threads.close(&self.pool);
        self.retire.send_replace(Some(patience));
    }
}

impl Drop for Owned {
    fn drop(&mut self) {
        self.threads.close(&self.pool);
    }
}

/// What one deployment of an app serves.
pub(crate) struct Version {
    pub(crate) name: String,
    pub(crate) hash: [u8; 32],
    pub(crate) pools: Vec<Owned>,
    /// Sorted by name.
    functions: Vec<Arc<Function>>,
    names: HashMap<String, Name>,
}

/// What a name stands for.
enum Name {
    One(Arc<Function>),
    /// Functions of several modules: the names that tell them apart.
    Many(Vec<String>),
}

impl Version {
    /// Names the functions that the first instance of each pool reported. Counters go on from `previous`.
    pub(crate) fn new(app: &App, loaded: Vec<(Owned, Vec<Inspected>)>, previous: Option<&Self>) -> Self {
        let mut short: HashMap<&str, usize> = HashMap::new();
        let mut qualified: HashMap<String, usize> = HashMap::new();
        for it in loaded.iter().flat_map(|(_, inspected)| inspected) {
            *short.entry(&it.name).or_default() += 1;
            *qualified.entry(format!("{}.{}", it.module, it.name)).or_default() += 1;
        }
        let app_name: Arc<str> = app.name.as_str().into();
        let mut functions = Vec::new();
        for (owned, inspected) in &loaded {
            owned.pool.set_gates(inspected.iter().map(|it| settings(app, owned, it).concurrency.map(Into::into)));
            for (index, it) in inspected.iter().enumerate() {
                let long = format!("{}.{}", it.module, it.name);
                let name = match (short[it.name.as_str()], qualified[&long]) {
                    (1, _) => it.name.clone(),
                    (_, 1) => long,
                    // `text.py` and `text.js` in one app: only the file tells them apart.
                    _ => format!("{}.{}", it.file, it.name),
                };
                let id = FunctionId { app: Arc::clone(&app_name), name: name.into() };
                functions.push((describe(app, owned, id, index, it, previous), it.name.clone()));
            }
        }
        functions.sort_by(|a, b| a.0.id.cmp(&b.0.id));
        let names = names(&functions);
        let functions = functions.into_iter().map(|(function, _)| function).collect();
        Self {
            name: app.version.clone(),
            hash: app.hash,
            pools: loaded.into_iter().map(|(owned, _)| owned).collect(),
            functions,
            names,
        }
    }

    /// Starts no more calls, and gives those in flight at most `patience`.
    pub(crate) fn retire(&self, patience: Duration) {
        for owned in &self.pools {
            owned.retire(patience);
        }
    }

    /// Whether calls run or wait.
    pub(crate) fn is_busy(&self) -> bool {
        self.pools.iter().any(|owned| owned.pool.occupancy().0 > 0)
    }

    pub(crate) fn demand(&self) -> Demand {
        self.pools.iter().fold(Demand::default(), |sum, Owned { pool, .. }| {
            let (calls, capacity) = pool.occupancy();
            Demand {
                calls: sum.calls + calls,
                capacity: sum.capacity + capacity,
                is_saturated: sum.is_saturated || pool.is_saturated(),
                counter: sum.counter.wrapping_add(pool.calls()),
            }
        })
    }

    /// The function of this name.
    ///
    /// # Errors
    /// [`Error::UnknownFunction`], or [`Error::InvalidInput`] for a name that fits several.
    pub(crate) fn find(&self, app: &str, name: &str) -> Result<Arc<Function>, Error> {
        match self.names.get(name) {
            Some(Name::One(function)) => Ok(Arc::clone(function)),
            Some(Name::Many(candidates)) => Err(Error::invalid(format!(
                "{app}/{name} is defined in several modules; call {}",
                candidates.iter().map(|it| format!("{app}/{it}")).collect::<Vec<_>>().join(" or ")
            ))),
            None => {
                let public = self.functions.iter().filter(|function| function.public);
                let found = nearest(name, public.map(|function| &*function.id.name));
                let nearest = found.into_iter().map(|it| format!("{app}/{it}")).collect();
                Err(Error::UnknownFunction { function: format!("{app}/{name}"), nearest })
            }
        }
    }
}

fn names(functions: &[(Arc<Function>, String)]) -> HashMap<String, Name> {
    let mut names: HashMap<String, Name> = HashMap::new();
    for (function, short) in functions {
        let long = format!("{}.{short}", function.module);
        let mut keys = vec![short.clone(), long, format!("{}.{short}", function.file)];
        keys.dedup();
        for key in keys {
            names
                .entry(key)
                .and_modify(|found| {
                    let own = function.id.name.to_string();
                    match found {
                        Name::One(other) => *found = Name::Many(vec![other.id.name.to_string(), own]),
                        Name::Many(candidates) => candidates.push(own),
                    }
                })
                .or_insert_with(|| Name::One(Arc::clone(function)));
        }
    }
    names
}

fn describe(
    app: &App,
    owned: &Owned,
    id: FunctionId,
    index: usize,
    inspected: &Inspected,
    previous: Option<&Version>,
) -> Arc<Function> {
    let settings = settings(app, owned, inspected);
    let stats = previous
        .and_then(|version| version.functions.iter().find(|function| function.id == id))
        .map(|function| Arc::clone(&function.stats))
        .unwrap_or_default();
    Arc::new(Function {
        id,
        module: inspected.module.clone(),
        file: inspected.file.clone(),
        language: owned.pool.language,
        signature: inspected.signature.clone(),
        limits: Limits {
            timeout: settings.timeout.unwrap_or(app.manifest.timeout),
            concurrency: settings.concurrency.map(Into::into),
        },
        public: settings.public.unwrap_or(app.manifest.public),
        target: Target {
            pool: owned.pool.id,
            index: u16::try_from(index).expect("a worker reports at most 65,536 functions"),
        },
        stats,
    })
}

/// What the manifest says of a function.
fn settings(app: &App, owned: &Owned, inspected: &Inspected) -> FunctionSettings {
    let same = |module: &&Module| module.file == inspected.file && module.language == owned.pool.language;
    let module = app.modules.iter().find(same);
    module.and_then(|module| module.settings.get(&inspected.name)).cloned().unwrap_or_default()
}
