//! Version 2: one hierarchy (Documentation/admin-guide/cgroup-v2.rst).

use std::{
    fs, io,
    path::{Path, PathBuf},
    process,
};

use super::{Bounds, Part, write};

const CONTROLLERS: &str = "+memory +pids";
/// Need not be there. Each group has the same share then: the node's own as much as all its instances together, and each
/// instance as much as another.
const SHARES: &str = "+cpu";
/// Of the instances of a node that is in no group, as its processes count one by one: of as many as 100 instances.
const MOST_WEIGHT: &str = "10000";
/// How names of [`Leaf`]s begin.
pub(super) const LEAF: &str = "node-of-fnmesh-";

/// Where this process is while groups with bounds are beside it: a group that has such in it can have no processes
/// of its own. Moves back on drop.
#[derive(Debug)]
pub(super) struct Leaf {
    base: PathBuf,
    directory: PathBuf,
}

impl Drop for Leaf {
    fn drop(&mut self) {
        // What cannot be undone does no harm to anybody who is in this group.
        let _ = fs::write(self.base.join("cgroup.subtree_control"), "-cpu");
        let _ = fs::write(self.base.join("cgroup.subtree_control"), "-memory -pids");
        let _ = fs::write(self.base.join("cgroup.procs"), process::id().to_string());
        let _ = fs::remove_dir(&self.directory);
    }
}

/// Makes it possible to bound groups in `base`, the group of this process.
pub(super) fn prepare(base: &Path) -> io::Result<Option<Leaf>> {
    // Only the root of the machine has no type, and it alone may have processes besides.
    if !base.join("cgroup.type").exists() {
        enable(base)?;
        return Ok(None);
    }
    let leaf = Leaf { base: base.to_owned(), directory: base.join(format!("{LEAF}{}", process::id())) };
    fs::create_dir(&leaf.directory).map_err(|error| refused(base, &error))?;
    write(&leaf.directory, "cgroup.procs", &process::id().to_string())?;
    enable(base).map_err(|error| refused(base, &error))?;
    Ok(Some(leaf))
}

/// Lets groups in `directory` have bounds, and shares of the cores where that is possible.
pub(super) fn enable(directory: &Path) -> io::Result<()> {
    write(directory, "cgroup.subtree_control", CONTROLLERS)?;
    let _ = fs::write(directory.join("cgroup.subtree_control"), SHARES);
    Ok(())
}

/// Makes the instances in `directory`, beside which the node's processes are in no group, count more than one process.
pub(super) fn outweigh(directory: &Path) {
    let _ = fs::write(directory.join("cpu.weight"), MOST_WEIGHT);
}

/// Whether groups in `directory` have shares of the cores.
pub(super) fn has_shares(directory: &Path) -> bool {
    let enabled = fs::read_to_string(directory.join("cgroup.subtree_control")).unwrap_or_default();
    enabled.split_ascii_whitespace().any(|controller| controller == "cpu")
}

/// Changes the share of the group in `directory`, if it has one.
pub(super) fn set_part(directory: &Path, part: Part) -> io::Result<()> {
    // 100 is the weight of a new group.
    let weight = match part {
        Part::Equal => "100",
        Part::Small => "2",
    };
    write(directory, "cpu.weight", weight)
}

pub(super) fn bound(directory: &Path, bounds: &Bounds) -> io::Result<()> {
    write(directory, "memory.max", &bounds.memory_bytes.to_string())?;
    // Only where the kernel counts swap, and can kill a group as a whole.
    let _ = fs::write(directory.join("memory.swap.max"), "0");
    let _ = fs::write(directory.join("memory.oom.group"), "1");
    write(directory, "pids.max", &bounds.processes.to_string())
}

fn refused(base: &Path, error: &io::Error) -> io::Error {
    let message = format!(
        "{} is not the node's own ({error}); start it as a service with Delegate=yes, or by \
         systemd-run --user --scope -p Delegate=yes",
        base.display()
    );
    io::Error::new(error.kind(), message)
}
