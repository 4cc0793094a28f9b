//! A node without its gateway, for tests of apps in real worker processes.

#![allow(dead_code, reason = "each test file uses a part of it")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::{
    fs,
    future::Future,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use fnmesh_invoke::{
    Deadline, Error, Failure, Function, Invocation, InvocationId, Invoke, Payload, PoolStatus, Reply, ReplyBody,
};
use fnmesh_runtime::{
    App, Config, Local, Runtime,
    deps::{Tools, install},
};
use tokio::{task::LocalSet, time::timeout};

pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// A node without its gateway: one runtime, one calling thread, one app.
pub(crate) struct Fixture {
    pub(crate) runtime: Runtime,
    pub(crate) local: Local,
    pub(crate) directory: tempfile::TempDir,
    tools: Tools,
}

impl Fixture {
    pub(crate) fn write(&self, files: &[(&str, &str)]) {
        for (name, text) in files {
            fs::write(self.directory.path().join(name), text).unwrap();
        }
    }

    pub(crate) async fn deploy(&self, files: &[(&str, &str)]) -> Result<(), Failure> {
        self.write(files);
        self.deploy_as("shop", self.directory.path()).await
    }

    pub(crate) async fn deploy_as(&self, name: &str, directory: &Path) -> Result<(), Failure> {
        let app = App::read(directory, Some(name)).unwrap();
        let dependencies = install(&app, &self.tools, &mut |_| {}).await.unwrap();
        self.runtime.deploy(app, &dependencies).await
    }

    pub(crate) async fn function(&self, name: &str) -> Arc<Function> {
        self.local.resolve("shop", name).await.unwrap()
    }

    pub(crate) async fn call(&self, name: &str, arguments: &str) -> Result<Reply, Error> {
        self.call_within(name, arguments, PATIENCE).await
    }

    pub(crate) async fn call_within(&self, name: &str, arguments: &str, budget: Duration) -> Result<Reply, Error> {
        self.call_of("shop", name, arguments, budget).await
    }

    pub(crate) async fn call_of(
        &self,
        app: &str,
        name: &str,
        arguments: &str,
        budget: Duration,
    ) -> Result<Reply, Error> {
        let function = self.local.resolve(app, name).await?;
        let invocation = Invocation {
            id: InvocationId::random(),
            function,
            payload: Payload::json(arguments.to_owned()),
            request: None,
            deadline: Deadline::after(Instant::now(), budget),
            hops: 0,
            traceparent: None,
            idempotency_key: None,
        };
        self.local.call(invocation).await
    }

    pub(crate) async fn json(&self, name: &str, arguments: &str) -> String {
        text(self.call(name, arguments).await.unwrap())
    }

    /// The only pool of the app.
    pub(crate) fn pool(&self) -> PoolStatus {
        self.runtime.apps().remove(0).pools.remove(0)
    }

    pub(crate) fn pids(&self) -> Vec<u32> {
        let apps = self.runtime.apps();
        let pools = apps.iter().flat_map(|app| &app.pools);
        pools.flat_map(|pool| &pool.instances).map(|instance| instance.pid).collect()
    }
}

pub(crate) fn text(reply: Reply) -> String {
    let ReplyBody::Full(payload) = reply.body else { panic!("a stream") };
    String::from_utf8(payload.body.to_vec()).unwrap()
}

pub(crate) fn python_extension() -> PathBuf {
    std::env::var_os("FNMESH_PYTHON_EXTENSION").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/debug/libfnmesh_python.so"),
        PathBuf::from,
    )
}

pub(crate) fn with_app<F: Future<Output = ()>>(test: impl FnOnce(Fixture) -> F) {
    with_app_in(|_| {}, test);
}

/// With another configuration.
pub(crate) fn with_app_in<F: Future<Output = ()>>(change: impl FnOnce(&mut Config), test: impl FnOnce(Fixture) -> F) {
    let executor = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    LocalSet::new().block_on(&executor, async {
        let cache = tempfile::tempdir().unwrap();
        let path = std::env::var_os("PATH");
        let mut config = Config {
            cache_dir: cache.path().to_owned(),
            python_extension: python_extension(),
            worker_env: path.iter().map(|path| ("PATH".into(), path.clone())).collect(),
            grace: Duration::from_millis(300),
            ..Config::default()
        };
        change(&mut config);
        let tools = Tools { cache_dir: cache.path().to_owned(), path, ..Tools::default() };
        let runtime = Runtime::new(config);
        let local = runtime.attach(0);
        let fixture = Fixture { runtime: runtime.clone(), local, directory: tempfile::tempdir().unwrap(), tools };
        timeout(4 * PATIENCE, test(fixture)).await.expect("the test ends in time");
        timeout(PATIENCE, runtime.drain(Duration::ZERO)).await.expect("workers stop in time");
    });
}

/// Child processes of this one that are no instances of an app.
fn spares(app: &Fixture) -> Vec<i32> {
    let instances = app.pids();
    let children = fs::read_dir("/proc").unwrap().filter_map(|entry| {
        let pid: u32 = entry.ok()?.file_name().to_str()?.parse().ok()?;
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // After the name, which may contain anything: state, parent.
        let parent: u32 = stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()?;
        (parent == std::process::id()).then_some(pid)
    });
    children.filter(|pid| !instances.contains(pid)).map(u32::cast_signed).collect()
}

pub(crate) async fn spare(app: &Fixture) -> i32 {
    until("there is a spare worker", || spares(app).len() == 1).await;
    spares(app)[0]
}

pub(crate) fn is_running(pid: u32) -> bool {
    Path::new(&format!("/proc/{pid}")).exists()
}

pub(crate) async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let waited = timeout(PATIENCE, async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    waited.await.unwrap_or_else(|_| panic!("{what}"));
}
