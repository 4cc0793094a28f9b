#![allow(dead_code, reason = "each test binary uses a part of it")]

use std::{
    path::{Path, PathBuf},
    process::Output,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    thread,
};

use rustix::process::Signal;
use serde_json::Value;

use crate::support::{self, Node, PATIENCE, Program, output, post, wait_until};

/// Does `work` while `shop/add` is called all the time at these nodes, and a hundred calls longer; each call must be
/// answered by the right value.
pub(crate) fn under_load<T>(urls: &[String], work: impl FnOnce() -> T) -> T {
    let call = |caller: usize, _| {
        let answer = post(&urls[caller % urls.len()], "shop/add", "[1]", PATIENCE).unwrap();
        assert_eq!(answer, (200, "2".to_owned()));
    };
    while_calling(4, call, work)
}

/// Does `work` while so many threads do `call` all the time, and a hundred calls longer. It gets the number of the thread
/// and that of the call, and panics if it is not answered as it should be.
pub(crate) fn while_calling<T>(callers: usize, call: impl Fn(usize, usize) + Sync, work: impl FnOnce() -> T) -> T {
    let (over, answered) = (AtomicBool::new(false), AtomicUsize::new(0));
    thread::scope(|scope| {
        // If the work panics, too: the callers are waited for.
        let end = OnDrop(|| over.store(true, SeqCst));
        let caller = |caller: usize| {
            let (call, over, answered) = (&call, &over, &answered);
            scope.spawn(move || {
                for turn in 0.. {
                    if over.load(SeqCst) {
                        return;
                    }
                    call(caller, turn);
                    answered.fetch_add(1, SeqCst);
                }
            })
        };
        let callers: Vec<_> = (0..callers).map(caller).collect();
        let done = work();
        let before = answered.load(SeqCst);
        let is_over = || callers.iter().any(|caller| caller.is_finished());
        wait_until(|| answered.load(SeqCst) > before + 100 || is_over(), || "calls go on".to_owned());
        drop(end);
        callers.into_iter().for_each(|caller| caller.join().unwrap());
        done
    })
}

struct OnDrop<F: FnMut()>(F);

impl<F: FnMut()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

/// Nodes of one mesh. The first has made it, and is named n0.
pub(crate) struct Cluster {
    pub(crate) nodes: Vec<Node>,
    root: tempfile::TempDir,
}

impl Cluster {
    /// A mesh of one node.
    pub(crate) fn new(directories: &[PathBuf]) -> Self {
        Self::of(&Program::present(), directories)
    }

    /// The same, of this build.
    pub(crate) fn of(program: &Program, directories: &[PathBuf]) -> Self {
        let mut cluster = Self { nodes: Vec::new(), root: tempfile::tempdir().unwrap() };
        cluster.add(program, directories, &[]);
        cluster
    }

    /// One more node; its index, when all of its apps are loaded.
    pub(crate) fn join(&mut self, directories: &[PathBuf]) -> usize {
        self.join_of(&Program::present(), directories)
    }

    /// The same, of this build.
    pub(crate) fn join_of(&mut self, program: &Program, directories: &[PathBuf]) -> usize {
        let (address, token) = self.token(&[]);
        self.add(program, directories, &["--join", &address, "--token", &token])
    }

    fn add(&mut self, program: &Program, directories: &[PathBuf], options: &[&str]) -> usize {
        let index = self.nodes.len();
        let node = self.start_at(index, program, ["127.0.0.1:0"; 2], directories, options);
        self.nodes.push(node);
        index
    }

    /// Starts node `index`, for the first time or again.
    pub(crate) fn start(&self, index: usize, directories: &[PathBuf], options: &[&str]) -> Node {
        self.start_at(index, &Program::present(), ["127.0.0.1:0"; 2], directories, options)
    }

    fn start_at(
        &self,
        index: usize,
        program: &Program,
        [http, mesh]: [&str; 2],
        directories: &[PathBuf],
        options: &[&str],
    ) -> Node {
        let data = self.data(index);
        let mesh = ["--mesh", mesh, "--data", data.to_str().unwrap()];
        Node::settled_of(program.clone(), http, "serve", directories, &[&mesh[..], options].concat())
    }

    /// Stops node `index` by SIGTERM and starts it again.
    pub(crate) fn restart(&mut self, index: usize, directories: &[PathBuf]) {
        self.stop(index);
        self.nodes[index] = self.start(index, directories, &[]);
    }

    /// The same, with this build in place of what it was, at the addresses it had.
    pub(crate) fn replace(&mut self, index: usize, program: &Program, directories: &[PathBuf]) {
        let http = self.nodes[index].url.strip_prefix("http://").unwrap().to_owned();
        let nodes = self.nodes[index].get("/_/nodes");
        let own = nodes.as_array().unwrap().iter().find(|node| node["self"] == true);
        let mesh = own.unwrap()["address"].as_str().unwrap().to_owned();
        self.stop(index);
        self.nodes[index] = self.start_at(index, program, [&http, &mesh], directories, &[]);
    }

    fn stop(&mut self, index: usize) {
        self.nodes[index].signal(Signal::TERM);
        let ended = self.nodes[index].ended();
        assert!(ended.success(), "{}", self.nodes[index].stderr());
    }

    /// A command that goes to the control socket of node `index`, given by the program it runs.
    pub(crate) fn ask(&self, index: usize, arguments: &[&str]) -> Output {
        output(self.nodes[index].program.command().args(arguments).arg("--data").arg(self.data(index)))
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
        self.ask(0, &[&["token", command], options].concat())
    }

    /// Where the nodes' functions are called.
    pub(crate) fn urls(&self) -> Vec<String> {
        self.nodes.iter().map(|node| node.url.clone()).collect()
    }

    /// Waits until node `index` knows all nodes.
    pub(crate) fn wait_for_nodes(&self, index: usize) {
        let (node, count) = (&self.nodes[index], self.nodes.len());
        let known = || node.get("/_/nodes").as_array().unwrap().len();
        wait_until(|| known() == count, || format!("{count} nodes at node {index}: {}", node.stderr()));
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
