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
        let app = App::read(self.directory.path(), Some("shop")).unwrap();
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
        let function = self.local.resolve("shop", name).await?;
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
        self.runtime.apps()[0].pools.iter().flat_map(|pool| &pool.instances).map(|instance| instance.pid).collect()
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
    let executor = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    LocalSet::new().block_on(&executor, async {
        let cache = tempfile::tempdir().unwrap();
        let path = std::env::var_os("PATH");
        let config = Config {
            cache_dir: cache.path().to_owned(),
            python_extension: python_extension(),
            worker_env: path.iter().map(|path| ("PATH".into(), path.clone())).collect(),
            grace: Duration::from_millis(300),
            ..Config::default()
        };
        let tools = Tools { cache_dir: cache.path().to_owned(), path, ..Tools::default() };
        let runtime = Runtime::new(config);
        let local = runtime.attach(0);
        let fixture = Fixture { runtime: runtime.clone(), local, directory: tempfile::tempdir().unwrap(), tools };
        timeout(4 * PATIENCE, test(fixture)).await.expect("the test ends in time");
        timeout(PATIENCE, runtime.drain(Duration::ZERO)).await.expect("workers stop in time");
    });
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
