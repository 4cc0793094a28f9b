//! An app that attacks, an app that is called meanwhile, and what must be true afterwards.

use std::{
    collections::BTreeSet,
    fs, io,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::support::{Apps, Node, PATIENCE, post, wait_until};

const CANARY: &str = "def sing(n: int) -> int:\n    return n + 1\n";
/// 50 calls a second.
const CANARY_PERIOD: Duration = Duration::from_millis(20);
/// Far more than a canary's call takes on a busy machine: how much longer it takes than without an attack is measured
/// by `loadtest/attacks`.
const CANARY_PATIENCE: Duration = Duration::from_secs(10);
/// Longer than it takes to make a control group.
const SETTLE: Duration = Duration::from_millis(50);
const MAX_GROWTH_BYTES: u64 = 64 << 20;

/// A node with an app `attacker` and the canary.
pub(crate) struct Attack {
    pub(crate) node: Node,
    pub(crate) apps: Apps,
    canary: Option<Canary>,
    before: Footprint,
}

impl Attack {
    /// `files` are the attacker's; a `fnmesh.toml` among them sets its limits.
    pub(crate) fn prepare(files: &[(&str, &str)]) -> Self {
        Self::with_options(files, &[])
    }

    pub(crate) fn with_options(files: &[(&str, &str)], options: &[&str]) -> Self {
        let apps = Apps::new(&[("canary/canary.py", CANARY)]);
        for (file, content) in files {
            apps.write(&format!("attacker/{file}"), content);
        }
        apps.write("attacker/.env", &format!("ATTACK={}\n", apps.path("").display()));
        let node = Node::settled("serve", &[apps.path("canary"), apps.path("attacker")], options);
        let mut attack = Self { node, apps, canary: None, before: Footprint::default() };
        if files.iter().any(|(file, _)| file.ends_with("js")) {
            // A spare worker comes a while after the first one.
            wait_until(|| attack.node.standbys().len() == 2, || "no spare worker".to_owned());
        }
        // What is made at the first call is no leak.
        assert_eq!(attack.post("canary/sing", "[1]").unwrap(), (200, "2".to_owned()));
        wait_until(|| attack.is_settled(), || "the node does not settle".to_owned());
        attack.canary = Some(Canary::start(&attack.node.url));
        attack
    }

    /// Calls a function of the attacker: status and body.
    pub(crate) fn call(&self, function: &str, arguments: &str) -> (u16, String) {
        self.post(&format!("attacker/{function}"), arguments).unwrap()
    }

    /// Calls it and expects this status, and these words in the answer.
    pub(crate) fn expect(&self, function: &str, arguments: &str, status: u16, words: &str) {
        let answer = self.call(function, arguments);
        assert!(answer.0 == status && answer.1.contains(words), "{function}: {status} {words:?}, not {answer:?}");
    }

    /// Whether a level of the sandbox is on here.
    pub(crate) fn has(&self, level: &str) -> bool {
        self.health()["sandbox"][level]["on"] == true
    }

    /// What that level says of itself.
    pub(crate) fn detail(&self, level: &str) -> Option<String> {
        self.health()["sandbox"][level]["detail"].as_str().map(str::to_owned)
    }

    /// How much the instance of an app counts where cores are short, as its control group says it.
    pub(crate) fn part(&self, app: &str) -> u64 {
        let apps = self.node.apps();
        let app = apps.as_array().unwrap().iter().find(|found| found["name"] == app).unwrap();
        let pid = app["pools"][0]["instances"][0]["pid"].as_u64().unwrap();
        let groups = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
        let mut parts = groups.lines().filter_map(|group| {
            let (controllers, path) = group.split_once(':')?.1.split_once(':')?;
            let file = if controllers.is_empty() { "cpu.weight" } else { "cpu.shares" };
            fs::read_to_string(format!("/sys/fs/cgroup/{controllers}{path}/{file}")).ok()
        });
        parts.next().unwrap().trim().parse().unwrap()
    }

    pub(crate) fn pid(&self) -> u64 {
        self.health()["pid"].as_u64().unwrap()
    }

    /// The worker of the other app.
    pub(crate) fn canary_pid(&self) -> u64 {
        let apps = self.node.apps();
        let canary = apps.as_array().unwrap().iter().find(|app| app["name"] == "canary").unwrap();
        canary["pools"][0]["instances"][0]["pid"].as_u64().unwrap()
    }

    /// Checks that nobody was hurt: `function` of the attacker answers again, the canary sang all the time, and
    /// nothing is left of the attack.
    pub(crate) fn finish(mut self, function: &str, arguments: &str) {
        wait_until(
            || self.call(function, arguments).0 == 200,
            || format!("{function} answers {:?}", self.call(function, arguments)),
        );
        let songs = self.canary.take().unwrap().stop();
        assert!(songs > 0);
        let before = &self.before;
        wait_until(|| self.footprint().fits(before), || format!("{before:?} was {:?}", self.footprint()));
        wait_until(|| self.strangers().is_empty(), || format!("left behind: {:?}", self.strangers()));
    }

    fn health(&self) -> Value {
        self.node.get("/_/health")
    }

    fn post(&self, path: &str, body: &str) -> io::Result<(u16, String)> {
        post(&self.node.url, path, body, PATIENCE)
    }

    /// Whether nothing has changed since this was called last: a zygote moves to another control group when its fork
    /// takes calls already.
    fn is_settled(&mut self) -> bool {
        thread::sleep(SETTLE);
        let now = self.footprint();
        let before = std::mem::replace(&mut self.before, now);
        Footprint { memory: 0, ..before } == Footprint { memory: 0, ..self.before }
    }

    fn footprint(&self) -> Footprint {
        let pid = self.pid();
        Footprint {
            memory: self.health()["memory_bytes"].as_u64().unwrap(),
            files: fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count(),
            children: children(pid),
            groups: groups(pid),
            temporaries: entries(&self.node.cache().join("tmp")).iter().map(|node| entries(node).len()).sum(),
        }
    }

    /// Processes that run in the attacker's environment and that the node does not know of.
    fn strangers(&self) -> BTreeSet<u32> {
        let known: BTreeSet<u32> = self.node.workers().into_iter().chain(self.node.standbys()).collect();
        let marker = format!("ATTACK={}", self.apps.path("").display());
        let mut found = BTreeSet::new();
        for process in entries(Path::new("/proc")) {
            let Some(pid) = process.file_name().and_then(|name| name.to_str()?.parse().ok()) else { continue };
            let environment = fs::read(process.join("environ")).unwrap_or_default();
            if environment.split(|&byte| byte == 0).any(|variable| variable == marker.as_bytes()) {
                found.insert(pid);
            }
        }
        found.difference(&known).copied().collect()
    }
}

/// What a node holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Footprint {
    memory: u64,
    files: usize,
    children: usize,
    groups: usize,
    temporaries: usize,
}

impl Footprint {
    fn fits(&self, before: &Self) -> bool {
        self.memory <= before.memory + MAX_GROWTH_BYTES
            && self.files <= before.files
            && self.children <= before.children
            && self.groups <= before.groups
            && self.temporaries <= before.temporaries
    }
}

/// Processes whose parent is `pid`, zombies too.
fn children(pid: u64) -> usize {
    let tasks = entries(&PathBuf::from(format!("/proc/{pid}/task")));
    let lists = tasks.iter().map(|task| fs::read_to_string(task.join("children")).unwrap_or_default());
    lists.map(|list| list.split_ascii_whitespace().count()).sum()
}

/// Control groups of the instances of the node `pid`.
fn groups(pid: u64) -> usize {
    fn count(directory: &Path, start: &str, depth: usize) -> usize {
        let below: Vec<_> = entries(directory).into_iter().filter(|path| path.is_dir()).collect();
        if directory.file_name().is_some_and(|name| name.to_string_lossy().starts_with(start)) {
            return below.len();
        }
        if depth == 0 { 0 } else { below.iter().map(|path| count(path, start, depth - 1)).sum() }
    }
    count(Path::new("/sys/fs/cgroup"), &format!("fnmesh-{pid}-"), 6)
}

fn entries(directory: &Path) -> Vec<PathBuf> {
    fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.path()).collect()
}

/// Calls an app that has nothing to do with the attack.
struct Canary {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Result<usize, String>>,
}

impl Canary {
    fn start(url: &str) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (stopped, url) = (Arc::clone(&stop), url.to_owned());
        let thread = thread::spawn(move || {
            let mut songs = 0;
            while !stopped.load(SeqCst) {
                let begin = Instant::now();
                match post(&url, "canary/sing", &format!("[{songs}]"), CANARY_PATIENCE) {
                    Ok((200, body)) if body == (songs + 1).to_string() => songs += 1,
                    other => return Err(format!("after {songs} songs and {:?}: {other:?}", begin.elapsed())),
                }
                thread::sleep(CANARY_PERIOD.saturating_sub(begin.elapsed()));
            }
            Ok(songs)
        });
        Self { stop, thread }
    }

    /// How often it was answered, and never with an error.
    fn stop(self) -> usize {
        self.stop.store(true, SeqCst);
        self.thread.join().unwrap().unwrap_or_else(|error| panic!("the canary was hurt: {error}"))
    }
}
