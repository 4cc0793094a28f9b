//! Control groups: hard bounds on the memory and the processes of an instance, one share of the cores for each instance,
//! and one end for all its processes.
//!
//! Every node has a group of its own beside or below it, and in that one group for each instance. Writing to a
//! group can take 8 ms: all of this blocks, and is called where blocking is allowed.

mod cpu;
mod find;
mod remove;
mod v1;
mod v2;

use std::{
    fs::{self, File},
    io,
    num::NonZeroU32,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    thread,
};

use cpu::{Share, Shares};
use remove::{pids, remove, remove_empty, remove_left};
use rustix::fs::{FlockOperation, flock};

use crate::{app::App, config::Config};

/// How names of groups of nodes begin.
const PREFIX: &str = "fnmesh-";
/// Processes and threads of an instance besides one for each call it may have.
const PROCESSES: u32 = 512;

/// How much of the cores an instance has while they are short.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Part {
    /// As much as any other.
    #[default]
    Equal,
    /// About a fiftieth of that.
    Small,
}

/// What one instance may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Bounds {
    /// Memory of all its processes.
    pub(crate) memory_bytes: u64,
    /// Its processes and threads.
    pub(crate) processes: u64,
    /// Its temporary files.
    pub(crate) temporary_bytes: u64,
}

impl Bounds {
    /// What the manifest of an app says, or what holds for apps that say nothing.
    pub(crate) fn new(config: &Config, app: &App) -> Self {
        let manifest = &app.manifest;
        let of_languages = [manifest.python.concurrency, manifest.node.concurrency].into_iter().flatten();
        let concurrency = of_languages.fold(manifest.concurrency, NonZeroU32::max);
        Self {
            memory_bytes: manifest.memory.map_or(config.max_memory_bytes, |limit| limit.as_u64()),
            processes: manifest.processes.unwrap_or_else(|| concurrency.saturating_add(PROCESSES)).get().into(),
            temporary_bytes: manifest.tmp.as_u64(),
        }
    }
}

/// Where the files of a group are: the same directory for both in version 2.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Directories {
    memory: PathBuf,
    pids: PathBuf,
}

impl Directories {
    fn join(&self, name: &str) -> Self {
        Self { memory: self.memory.join(name), pids: self.pids.join(name) }
    }

    fn each(&self) -> impl Iterator<Item = &Path> {
        let second = (self.pids != self.memory).then_some(self.pids.as_path());
        std::iter::once(self.memory.as_path()).chain(second)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Version {
    One,
    Two,
}

/// The group of this node. Removed on drop.
#[derive(Debug)]
pub(crate) struct Cgroups {
    version: Version,
    directories: Directories,
    /// In version 1, where the machine has it; in version 2 the group of an instance has a share by itself.
    shares: Option<Shares>,
    next: AtomicU64,
    /// Where this process moved to so that groups with bounds may be beside it.
    leaf: Option<v2::Leaf>,
    /// Locked for as long as the node lives: by that others see that it does.
    _alive: Vec<File>,
}

impl Cgroups {
    /// The group of this process's node, made if it is not there.
    ///
    /// # Errors
    /// When groups cannot be made here; says why.
    pub(crate) fn of_this_process() -> io::Result<Arc<Self>> {
        static MADE: Mutex<Weak<Cgroups>> = Mutex::new(Weak::new());
        let mut made = MADE.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(there) = made.upgrade() {
            return Ok(there);
        }
        let new = Arc::new(Self::new()?);
        *made = Arc::downgrade(&new);
        Ok(new)
    }

    fn new() -> io::Result<Self> {
        let (version, base, cpu, leaf) = match find::find()? {
            find::Found::One { bounds, cpu } => (Version::One, bounds, cpu, None),
            find::Found::Two(base) => {
                let leaf = v2::prepare(&base)?;
                (Version::Two, Directories { memory: base.clone(), pids: base }, None, leaf)
            }
        };
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let name = format!("{PREFIX}{}-{}", std::process::id(), COUNT.fetch_add(1, Relaxed));
        // Until it is released nobody takes a new group for an old one.
        let turn = lock(&base, FlockOperation::LockShared)?;
        let directories = base.join(&name);
        make(&directories)?;
        let alive = lock(&directories, FlockOperation::LockExclusive)?;
        drop(turn);
        let shares = cpu.as_ref().map(|base| Shares::new(base.clone(), name));
        let mut groups = Self { version, directories, shares, next: AtomicU64::new(0), leaf, _alive: alive };
        // Tried out here: whoever may make directories may not always set bounds.
        groups.prepare()?;
        let tried = groups.create(&Bounds { memory_bytes: 1 << 30, processes: 64, temporary_bytes: 0 })?;
        if tried.share.is_none() {
            groups.shares = None;
        }
        drop(tried);
        // It may take a while, and nothing waits for it: what is not removed now, the next node removes.
        let clean_up = move || base.each().chain(cpu.as_deref()).for_each(remove_left);
        let _ = thread::Builder::new().name("fnmesh-cgroups".to_owned()).spawn(clean_up);
        Ok(groups)
    }

    fn prepare(&self) -> io::Result<()> {
        match self.version {
            Version::One => v1::prepare(&self.directories),
            Version::Two => {
                v2::enable(&self.directories.memory)?;
                if self.leaf.is_none() {
                    v2::outweigh(&self.directories.memory);
                }
                Ok(())
            }
        }
    }

    /// `v1`, `v2`, and whether instances have a share of the cores each.
    pub(crate) fn describe(&self) -> String {
        let (version, has_shares) = match self.version {
            Version::One => ("v1", self.shares.is_some()),
            Version::Two => ("v2", v2::has_shares(&self.directories.memory)),
        };
        if has_shares { format!("{version} with cpu") } else { version.to_owned() }
    }

    /// A group for one instance.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub(crate) fn create(&self, bounds: &Bounds) -> io::Result<Cgroup> {
        let number = self.next.fetch_add(1, Relaxed);
        let directories = self.directories.join(&number.to_string());
        make(&directories)?;
        let mut group = Cgroup { version: self.version, directories, share: None, part: Mutex::default() };
        group.share = self.shares.as_ref().and_then(|shares| shares.create(number).ok());
        match self.version {
            Version::One => v1::bound(&group.directories, bounds)?,
            Version::Two => v2::bound(&group.directories.memory, bounds)?,
        }
        Ok(group)
    }
}

impl Drop for Cgroups {
    fn drop(&mut self) {
        remove(&self.directories);
    }
}

/// The group of one instance. Dropped, its processes are killed and it is removed.
#[derive(Debug)]
pub(crate) struct Cgroup {
    version: Version,
    directories: Directories,
    share: Option<Share>,
    part: Mutex<Part>,
}

impl Cgroup {
    /// Moves a process into it, with all its threads; what it starts from then on is in it too.
    ///
    /// # Errors
    /// When the process is gone, or the kernel refuses.
    pub(crate) fn add(&self, pid: u32) -> io::Result<()> {
        if let Some(share) = &self.share {
            // The bounds matter more.
            let _ = share.add(pid);
        }
        self.directories.each().try_for_each(|directory| fs::write(directory.join("cgroup.procs"), pid.to_string()))
    }

    /// Whether this is the part of the cores it has.
    pub(crate) fn has(&self, part: Part) -> bool {
        *self.part() == part
    }

    /// Gives it this part of the cores. Without the controller `cpu` it has none of its own, and nothing changes.
    pub(crate) fn give(&self, part: Part) {
        let mut present = self.part();
        *present = part;
        // Where the kernel refuses, its bounds must do.
        let _ = match (self.version, &self.share) {
            (Version::One, Some(share)) => share.set(part),
            (Version::One, None) => Ok(()),
            (Version::Two, _) => v2::set_part(&self.directories.memory, part),
        };
    }

    fn part(&self) -> MutexGuard<'_, Part> {
        self.part.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One whose files are all here, and do nothing.
    #[cfg(test)]
    pub(crate) fn at(directory: &Path) -> Self {
        let directories = Directories { memory: directory.to_owned(), pids: directory.to_owned() };
        Self { version: Version::One, directories, share: Some(Share::at(directory)), part: Mutex::default() }
    }

    /// Its processes.
    pub(crate) fn pids(&self) -> Vec<u32> {
        pids(&self.directories.pids)
    }

    /// Whether the kernel has killed a process of it because it was out of memory.
    pub(crate) fn was_out_of_memory(&self) -> bool {
        let file = match self.version {
            Version::One => "memory.oom_control",
            Version::Two => "memory.events",
        };
        count(&self.directories.memory.join(file), "oom_kill") > 0
    }

    /// Whether it was refused another process because it had as many as it may.
    pub(crate) fn was_full(&self) -> bool {
        count(&self.directories.pids.join("pids.events"), "max") > 0
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        remove(&self.directories);
        if let Some(share) = &self.share {
            remove_empty(share.directory());
        }
    }
}

fn make(directories: &Directories) -> io::Result<()> {
    for directory in directories.each() {
        fs::create_dir(directory)
            .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", directory.display())))?;
    }
    Ok(())
}

/// Writes to a file of a group, and says which one it was if that fails.
fn write(directory: &Path, file: &str, value: &str) -> io::Result<()> {
    let path = directory.join(file);
    fs::write(&path, value).map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))
}

/// The number after `name` in a file of such lines; 0 where there is none.
fn count(file: &Path, name: &str) -> u64 {
    let text = fs::read_to_string(file).unwrap_or_default();
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    value.and_then(|value| value.parse().ok()).unwrap_or(0)
}

/// Locks a group, in each hierarchy: nodes that share one of them may be apart in the other.
fn lock(directories: &Directories, operation: FlockOperation) -> io::Result<Vec<File>> {
    directories.each().map(|directory| lock_one(directory, operation)).collect()
}

fn lock_one(directory: &Path, operation: FlockOperation) -> io::Result<File> {
    let opened = File::open(directory)?;
    flock(&opened, operation)?;
    Ok(opened)
}

#[cfg(test)]
mod tests {
    use super::{remove::unlocked, *};

    #[test]
    fn groups_of_living_nodes_stay() {
        let root = tempfile::tempdir().unwrap();
        let base = |name: &str| root.path().join(name);
        // Two nodes in different groups of memory and the same of pids: neither finds the other's in its own memory.
        let [first, second] = ["first", "second"].map(|name| Directories { memory: base(name), pids: base("pids") });
        for directories in [&first, &second] {
            fs::create_dir_all(&directories.memory).unwrap();
            fs::create_dir_all(&directories.pids).unwrap();
        }
        let alive = first.join("fnmesh-1-0");
        make(&alive).unwrap();
        let held = lock(&alive, FlockOperation::LockExclusive).unwrap();
        second.each().for_each(remove_left);
        assert!(alive.each().all(Path::exists));
        assert!(unlocked(&alive.memory).is_none() && unlocked(&alive.pids).is_none());
        drop(held);
        assert!(unlocked(&alive.memory).is_some() && unlocked(&alive.pids).is_some());
    }

    #[test]
    fn parts_are_weights_in_either_version() {
        let root = tempfile::tempdir().unwrap();
        let read = |file| fs::read_to_string(root.path().join(file)).unwrap();
        for (version, file, small, equal) in
            [(Version::One, "cpu.shares", "16", "1024"), (Version::Two, "cpu.weight", "2", "100")]
        {
            let mut group = Cgroup::at(root.path());
            group.version = version;
            assert!(group.has(Part::Equal));
            group.give(Part::Small);
            assert!(group.has(Part::Small) && read(file) == small);
            group.give(Part::Equal);
            assert!(group.has(Part::Equal) && read(file) == equal);
        }
    }

    #[test]
    fn events_are_counted_by_name() {
        let root = tempfile::tempdir().unwrap();
        let file = root.path().join("memory.events");
        fs::write(&file, "low 0\noom 3\noom_kill 2\n").unwrap();
        assert_eq!([count(&file, "oom_kill"), count(&file, "oom"), count(&file, "max")], [2, 3, 0]);
    }
}
