use std::{num::NonZeroUsize, path::PathBuf, time::Duration};

use fnmesh_runtime::deps::Tools;

/// What a node serves, and how.
#[derive(Clone, Debug)]
pub struct Config {
    /// Directories of functions. One that has none itself stands for its sub-directories that do. Default none.
    pub directories: Vec<PathBuf>,
    /// The HTTP side. Its number of threads and its body limit hold for `runtime` too.
    pub gateway: fnmesh_gateway::Config,
    /// The side that runs functions. Its Python extension is the first of `python_extensions` that exists.
    pub runtime: fnmesh_runtime::Config,
    /// Where the Python worker core may be, best first. Default none, which leaves Python apps failed.
    pub python_extensions: Vec<PathBuf>,
    /// Interpreters and package installers. Their cache holds for `runtime` too.
    pub tools: Tools,
    /// How long calls in flight may take when the node stops. Default 30 s.
    pub drain_timeout: Duration,
    /// Its place in a mesh. Default none: it serves its own functions alone.
    pub mesh: Option<fnmesh_mesh::Config>,
    /// Whether apps are deployed again when their files change. Default no.
    pub watch: bool,
    /// The number of nodes from which on the mesh is there, and gets the apps deployed to all of its nodes. Default
    /// none, and without a mesh: this node alone serves them, from their directories.
    pub deploy_to: Option<NonZeroUsize>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            directories: Vec::new(),
            gateway: fnmesh_gateway::Config::default(),
            runtime: fnmesh_runtime::Config::default(),
            python_extensions: Vec::new(),
            tools: Tools::default(),
            drain_timeout: Duration::from_secs(30),
            mesh: None,
            watch: false,
            deploy_to: None,
        }
    }
}

impl Config {
    /// Makes both sides agree, and picks the Python extension.
    pub(crate) fn settle(&mut self) {
        // The thread of the mesh calls functions, too: those that peers ask for.
        self.runtime.threads = self.gateway.threads.get() + usize::from(self.mesh.is_some());
        self.runtime.cache_dir.clone_from(&self.tools.cache_dir);
        self.runtime.max_body_bytes = self.gateway.max_body_bytes;
        if let Some(found) = self.python_extensions.iter().find(|path| path.is_file()) {
            self.runtime.python_extension.clone_from(found);
        }
    }
}
