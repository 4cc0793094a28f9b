use std::{ffi::OsString, fs, path::PathBuf, time::Duration};

use crate::worker::sandbox;

/// What a [`crate::Runtime`] needs to know. Libraries never read the environment: the node fills this.
#[derive(Clone, Debug)]
pub struct Config {
    /// Gateway threads that will call [`crate::Runtime::attach`]; each gets a channel to each instance. Default 1.
    pub threads: usize,
    /// Where the Node worker's source is written. Default `.cache/fnmesh`.
    pub cache_dir: PathBuf,
    /// The Python worker core, `libfnmesh_python.so`.
    pub python_extension: PathBuf,
    /// What a Node worker that waits for any app confines itself with, `libfnmesh_nodejs.so`. Default none; then, and with
    /// [`sandbox::Mode::Strict`], spare workers wait for one app each.
    pub node_module: Option<PathBuf>,
    /// How workers are confined. Default [`sandbox::Mode::Auto`].
    pub sandbox: sandbox::Mode,
    /// Memory of one instance whose app sets no limit, in bytes. Default 1 GiB, or half of the machine's if that is less.
    pub max_memory_bytes: u64,
    /// Whether every child of this process that the runtime does not know was left behind by an app, and may be killed
    /// and waited for. Default false: a program may have children of its own.
    pub reap_orphans: bool,
    /// Environment that every worker starts with, below the app's own. Default empty.
    pub worker_env: Vec<(OsString, OsString)>,
    /// How long an instance may take to load its app. Default 30 s.
    pub start_timeout: Duration,
    /// How long a worker may take to give up a call that is past its deadline, before it is replaced;
    /// and again as long for the other calls it has, before it is killed. Default 1 s.
    pub grace: Duration,
    /// The largest answer, or item of a stream, in bytes. Default 64 MiB.
    pub max_reply_bytes: usize,
    /// The largest request body, in bytes. Default 6 MiB.
    pub max_body_bytes: usize,
    /// What the arguments of calls that wait for one pool may take together, in bytes; beyond that calls are refused
    /// with 503. How many may wait is in the app's manifest. Default 64 MiB.
    pub max_queue_bytes: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            threads: 1,
            cache_dir: PathBuf::from(".cache/fnmesh"),
            python_extension: PathBuf::from("libfnmesh_python.so"),
            node_module: None,
            sandbox: sandbox::Mode::Auto,
            max_memory_bytes: default_memory_bytes(),
            reap_orphans: false,
            worker_env: Vec::new(),
            start_timeout: Duration::from_secs(30),
            grace: Duration::from_secs(1),
            max_reply_bytes: 64 << 20,
            max_body_bytes: 6 << 20,
            max_queue_bytes: 64 << 20,
        }
    }
}

impl Config {
    /// What a worker may send as one frame: its largest answer, and the head and log lines around it.
    pub(crate) fn max_frame_bytes(&self) -> usize {
        self.max_reply_bytes + 64 * 1024
    }
}

/// 1 GiB, or half of the machine's memory (proc_meminfo(5)) if that is less.
fn default_memory_bytes() -> u64 {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let total = text.lines().find_map(|line| line.strip_prefix("MemTotal:")?.trim().strip_suffix("kB"));
    let total_kib: Option<u64> = total.and_then(|kib| kib.trim().parse().ok());
    total_kib.map_or(1 << 30, |kib| (kib * 1024 / 2).min(1 << 30))
}
