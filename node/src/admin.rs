//! What the node itself adds to `/_/health` and `/_/metrics`.

use std::{
    fmt::Write as _,
    fs, process,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use fnmesh_gateway::{Control, Load};
use fnmesh_mesh::Handle;
use fnmesh_runtime::{OwnTurns, sandbox::Levels, take_turns};
use serde_json::{Value, json};

use crate::mesh;

/// The node as its operator sees it.
#[derive(Debug)]
pub(crate) struct Admin {
    threads: usize,
    sandbox: Levels,
    mesh: Option<Handle>,
    started: Duration,
}

impl Admin {
    /// A node that starts now.
    pub(crate) fn new(threads: usize, sandbox: Levels, mesh: Option<Handle>) -> Self {
        Self { threads, sandbox, mesh, started: SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default() }
    }
}

impl Control for Admin {
    fn health(&self) -> Value {
        json!({
            "pid": process::id(),
            "threads": self.threads,
            "memory_bytes": memory_bytes(),
            "isolation": "process",
            "sandbox": self.sandbox,
        })
    }

    fn take_turns(&self, load: Load) -> bool {
        take_turns(match load {
            Load::Little => OwnTurns::First,
            Load::Long => OwnTurns::Soon,
            Load::Many => OwnTurns::Batched,
        })
    }

    fn resource(&self, path: &str) -> Option<Value> {
        let mesh = self.mesh.as_ref()?;
        match path {
            "nodes" => Some(mesh::nodes(mesh)),
            "routes" => Some(mesh::routes(mesh)),
            "deployments" => Some(mesh::deployments(mesh)),
            _ => None,
        }
    }

    fn metrics(&self, out: &mut String) {
        gauge(out, "process_start_time_seconds", "When the node started, in Unix time.", self.started.as_secs_f64());
        if let Some(bytes) = memory_bytes() {
            gauge(out, "process_resident_memory_bytes", "Memory of the node, without its workers.", bytes as f64);
        }
        if let Some(count) = open_files() {
            gauge(out, "process_open_fds", "Files and sockets the node has open.", count as f64);
        }
        let version = env!("CARGO_PKG_VERSION");
        gauge(
            out,
            &format!("fnmesh_build_info{{version=\"{version}\"}}"),
            "Always 1; its label says which build runs.",
            1.0,
        );
    }
}

/// Appends one gauge in Prometheus' text format.
fn gauge(out: &mut String, series: &str, help: &str, value: f64) {
    let name = series.split('{').next().unwrap_or(series);
    // Writing to a String cannot fail.
    let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} gauge\n{series} {value}");
}

/// Resident memory of this process (proc_pid_status(5)).
fn memory_bytes() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

/// Open descriptors of this process, without the one that counts them.
fn open_files() -> Option<usize> {
    Some(fs::read_dir("/proc/self/fd").ok()?.count() - 1)
}

#[cfg(test)]
mod tests {
    use fnmesh_runtime::{Config, Runtime, sandbox::Mode};

    use super::*;

    fn admin() -> Admin {
        Admin::new(2, Runtime::new(Config { sandbox: Mode::Off, ..Config::default() }).levels(), None)
    }

    #[test]
    fn metrics_are_described_and_typed() {
        let mut out = String::new();
        admin().metrics(&mut out);
        assert!(out.contains("# TYPE process_resident_memory_bytes gauge\nprocess_resident_memory_bytes "), "{out}");
        assert!(out.contains("# TYPE fnmesh_build_info gauge\nfnmesh_build_info{version=\""), "{out}");
    }

    #[test]
    fn health_knows_the_process() {
        let health = admin().health();
        assert_eq!(health["pid"], process::id());
        assert_eq!(health["sandbox"]["mode"], "off");
        assert_eq!(health["sandbox"]["landlock"]["on"], false);
        assert!(health["memory_bytes"].as_u64().unwrap() > 0);
    }
}
