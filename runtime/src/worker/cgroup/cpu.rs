//! The share of the cores in version 1: an instance counts as one process, however many it has.
//!
//! The groups are beside the processes of the node, not in its group as those of the other hierarchies: there, all
//! instances together would count as one process.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

use rustix::fs::FlockOperation;

use super::{Part, lock_one, write};

/// Where the groups of a node's instances are.
#[derive(Debug)]
pub(super) struct Shares {
    /// The group of this process.
    base: PathBuf,
    /// The node's name in it.
    name: String,
}

impl Shares {
    pub(super) fn new(base: PathBuf, name: String) -> Self {
        Self { base, name }
    }

    /// A group with nobody in it.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub(super) fn create(&self, number: u64) -> io::Result<Share> {
        let directory = self.base.join(format!("{}.{number}", self.name));
        // Until it is released nobody takes the new group for an old one.
        let _turn = lock_one(&self.base, FlockOperation::LockShared)?;
        fs::create_dir(&directory)?;
        let alive = lock_one(&directory, FlockOperation::LockExclusive)?;
        Ok(Share { directory, _alive: alive })
    }
}

/// The group of one instance.
#[derive(Debug)]
pub(super) struct Share {
    directory: PathBuf,
    /// Locked for as long as it is in use.
    _alive: File,
}

impl Share {
    #[cfg(test)]
    pub(super) fn at(directory: &Path) -> Self {
        Self { directory: directory.to_owned(), _alive: File::open(directory).unwrap() }
    }

    /// Moves a process into it, with all its threads; what it starts from then on is in it too.
    ///
    /// # Errors
    /// When the process is gone, or the kernel refuses.
    pub(super) fn add(&self, pid: u32) -> io::Result<()> {
        write(&self.directory, "cgroup.procs", &pid.to_string())
    }

    /// Changes what it counts.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub(super) fn set(&self, part: Part) -> io::Result<()> {
        // Of a process it is 1,024.
        let shares = match part {
            Part::Equal => "1024",
            Part::Small => "16",
        };
        write(&self.directory, "cpu.shares", shares)
    }

    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }
}
