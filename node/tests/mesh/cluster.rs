use std::{
    path::{Path, PathBuf},
    process::Output,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    thread,
};

use rustix::process::Signal;
use serde_json::Value;

use crate::support::{self, Node, PATIENCE, fnmesh, output, post, wait_until};

/// Does `work` while `shop/add` is called all the time at these nodes, and a hundred calls longer; each call must be
/// answered by the right value.
pub(crate) fn under_load<T>(urls: &[String], work: impl FnOnce() -> T) -> T {
    let (over, answered) = (AtomicBool::new(false), AtomicUsize::new(0));
    thread::scope(|scope| {
        let caller = |index: usize| {
            let (url, over, answered) = (&urls[index % urls.len()], &over, &answered);
            scope.spawn(move || {
                while !over.load(SeqCst) {
                    let answer = post(url, "shop/add", "[1]", PATIENCE).unwrap();
                    assert_eq!(answer, (200, "2".to_owned()));
                    answered.fetch_add(1, SeqCst);
                }
            })
        };
        let callers: Vec<_> = (0..4).map(caller).collect();
        let done = work();
        let before = answered.load(SeqCst);
        let is_over = || callers.iter().any(|caller| caller.is_finished());
        wait_until(|| answered.load(SeqCst) > before + 100 || is_over(), || "calls go on".to_owned());
        over.store(true, SeqCst);
        callers.into_iter().for_each(|caller| caller.join().unwrap());
        done
    })
}

/// Nodes of one mesh. The first has made it, and is named n0.
pub(crate) struct Cluster {
    pub(crate) nodes: Vec<Node>,
    root: tempfile::TempDir,
}

impl Cluster {
    /// A mesh of one node.
    pub(crate) fn new(directories: &[PathBuf]) -> Self {
        let mut cluster = Self { nodes: Vec::new(), root: tempfile::tempdir().unwrap() };
        cluster.add(directories, &[]);
        cluster
    }

    /// One more node; its index, when all of its apps are loaded.
    pub(crate) fn join(&mut self, directories: &[PathBuf]) -> usize {
        let (address, token) = self.token(&[]);
        self.add(directories, &["--join", &address, "--token", &token])
    }

    fn add(&mut self, directories: &[PathBuf], options: &[&str]) -> usize {
        let index = self.nodes.len();
        let node = self.start(index, directories, options);
        self.nodes.push(node);
        index
    }

    /// Starts node `index`, for the first time or again.
    pub(crate) fn start(&self, index: usize, directories: &[PathBuf], options: &[&str]) -> Node {
        let data = self.data(index);
        let mesh = ["--mesh", "127.0.0.1:0", "--data", data.to_str().unwrap()];
        Node::settled("serve", directories, &[&mesh[..], options].concat())
    }

    /// Stops node `index` by SIGTERM and starts it again.
    pub(crate) fn restart(&mut self, index: usize, directories: &[PathBuf]) {
        self.nodes[index].signal(Signal::TERM);
        let ended = self.nodes[index].ended();
        assert!(ended.success(), "{}", self.nodes[index].stderr());
        self.nodes[index] = self.start(index, directories, &[]);
    }

    /// A command that goes to the control socket of node `index`.
    pub(crate) fn ask(&self, index: usize, arguments: &[&str]) -> Output {
        output(fnmesh().args(arguments).arg("--data").arg(self.data(index)))
    }

    /// `fnmesh deploy` at node `index`; what it says as JSON.
    pub(crate) fn deploy(&self, index: usize, directory: &Path, options: &[&str]) -> Value {
        let deployed = self.ask(index, &[&["deploy", directory.to_str().unwrap(), "--json"], options].concat());
        assert!(deployed.status.success(), "{}{}", support::stderr(&deployed), support::stdout(&deployed));
        serde_json::from_slice(&deployed.stdout).unwrap()
    }

    pub(crate) fn data(&self, index: usize) -> PathBuf {
        self.root.path().join(format!("n{index}"))
    }

    /// A new token of the first node, and where to join with it.
    pub(crate) fn token(&self, options: &[&str]) -> (String, String) {
        let created = self.token_command("create", &[options, &["--json"]].concat());
        assert!(created.status.success(), "{}", support::stderr(&created));
        let created: Value = serde_json::from_slice(&created.stdout).unwrap();
        let text = |member: &str| created[member].as_str().unwrap().to_owned();
        (text("address"), text("token"))
    }

    /// `fnmesh token` on the first node.
    pub(crate) fn token_command(&self, command: &str, options: &[&str]) -> Output {
        output(fnmesh().args(["token", command]).args(options).arg("--data").arg(self.data(0)))
    }

    /// Waits until node `index` knows `count` nodes that serve `app`.
    pub(crate) fn wait_for_routes(&self, index: usize, app: &str, count: usize) {
        let routes = || self.nodes[index].get("/_/routes");
        let served_by = |routes: &Value| {
            let all = routes.as_array().unwrap().iter().filter(|route| route["app"] == app);
            all.map(|route| route["nodes"].as_array().unwrap().len()).sum::<usize>()
        };
        wait_until(|| served_by(&routes()) == count, || format!("{count} routes of {app}: {}", routes()));
    }

    /// The node among `candidates` that has a call in flight, as soon as one has.
    pub(crate) fn busy(&self, candidates: &[usize]) -> usize {
        let mut busy = None;
        let is_busy = |index: &usize| {
            let apps = self.nodes[*index].apps();
            let pools = apps.as_array().unwrap().iter().flat_map(|app| app["pools"].as_array().unwrap());
            pools.map(|pool| pool["in_flight"].as_u64().unwrap()).sum::<u64>() > 0
        };
        wait_until(
            || {
                busy = candidates.iter().copied().find(is_busy);
                busy.is_some()
            },
            || "a node with a call in flight".to_owned(),
        );
        busy.unwrap()
    }
}
