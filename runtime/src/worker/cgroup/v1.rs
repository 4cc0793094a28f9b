//! Version 1: a hierarchy for each controller (Documentation/admin-guide/cgroup-v1).

use std::{fs, io};

use super::{Bounds, Directories, write};

/// Makes bounds of the node's group hold for those in it.
pub(super) fn prepare(directories: &Directories) -> io::Result<()> {
    // The only way there is on newer kernels, which may have no such file.
    let _ = fs::write(directories.memory.join("memory.use_hierarchy"), "1");
    Ok(())
}

pub(super) fn bound(directories: &Directories, bounds: &Bounds) -> io::Result<()> {
    write(&directories.memory, "memory.limit_in_bytes", &bounds.memory_bytes.to_string())?;
    // Memory and swap together; only where the kernel counts swap.
    let _ = fs::write(directories.memory.join("memory.memsw.limit_in_bytes"), bounds.memory_bytes.to_string());
    write(&directories.pids, "pids.max", &bounds.processes.to_string())
}
