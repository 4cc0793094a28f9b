//! Temporary directories of workers: each has its own, which goes when the worker does.

use std::{
    fs::{self, DirBuilder, File},
    io,
    os::unix::fs::{DirBuilderExt, MetadataExt},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use rustix::fs::{FlockOperation, flock};

/// Where one node keeps the temporary directories of its workers. Removed on drop.
#[derive(Debug)]
pub(super) struct Root {
    directory: PathBuf,
    next: AtomicU64,
    /// Locked for as long as the node lives: by that others see that it does.
    _alive: File,
}

impl Root {
    /// Makes one in `parent`, and removes what nodes that are no more left there.
    pub(super) fn new(parent: &Path) -> io::Result<Arc<Self>> {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        private().recursive(true).create(parent)?;
        let parent = fs::canonicalize(parent)?;
        // Until it is released nobody takes a new directory for an old one.
        let turn = File::open(&parent)?;
        flock(&turn, FlockOperation::LockExclusive)?;
        for entry in fs::read_dir(&parent)?.flatten() {
            remove_if_left(&entry.path());
        }
        let directory = parent.join(format!("{}-{}", std::process::id(), COUNT.fetch_add(1, Relaxed)));
        private().create(&directory)?;
        let alive = File::open(&directory)?;
        flock(&alive, FlockOperation::LockExclusive)?;
        Ok(Arc::new(Self { directory, next: AtomicU64::new(0), _alive: alive }))
    }

    /// A directory for one worker.
    pub(super) fn directory(self: &Arc<Self>) -> io::Result<Temporary> {
        let path = self.directory.join(self.next.fetch_add(1, Relaxed).to_string());
        private().create(&path)?;
        Ok(Temporary { path, root: Arc::clone(self), _above: None })
    }
}

impl Drop for Root {
    fn drop(&mut self) {
        // Whatever stays is removed by the next node.
        let _ = fs::remove_dir_all(&self.directory);
    }
}

/// The temporary directory of one worker. Removed on drop, which may take long: drop it where blocking is allowed.
#[derive(Debug)]
pub(crate) struct Temporary {
    path: PathBuf,
    root: Arc<Root>,
    /// The one it lies in.
    _above: Option<Arc<Self>>,
}

impl Temporary {
    /// One in another, which stays as long as this one.
    pub(crate) fn below(above: &Arc<Self>) -> io::Result<Self> {
        let path = above.path.join(above.root.next.fetch_add(1, Relaxed).to_string());
        private().create(&path)?;
        Ok(Self { path, root: Arc::clone(&above.root), _above: Some(Arc::clone(above)) })
    }

    /// That of a node which has no other worker.
    #[cfg(test)]
    pub(crate) fn inside(parent: &Path) -> io::Result<Self> {
        Root::new(parent)?.directory()
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        // Whatever stays goes with the root, or is removed by the next node.
        let _ = fs::remove_dir_all(&self.path);
    }
}

/// What is on the disk below `directory`, in bytes, as far as `limit`: beyond it nobody has to know.
/// An entry counts for at least a block, so that many empty files count too.
pub(crate) fn used_bytes(directory: &Path, limit: u64) -> u64 {
    const ENTRY: u64 = 4096;
    let mut used = 0;
    let mut open = vec![directory.to_owned()];
    while let Some(next) = open.pop() {
        for entry in fs::read_dir(next).into_iter().flatten().flatten() {
            let Ok(metadata) = entry.metadata() else { continue };
            used += ENTRY.max(512 * metadata.blocks());
            if metadata.is_dir() {
                open.push(entry.path());
            }
            if used > limit {
                return used;
            }
        }
    }
    used
}

/// Files that these processes have open though no directory holds them any more, in bytes.
pub(crate) fn unlinked_bytes(pids: &[u32]) -> u64 {
    let mut found: Vec<(u64, u64, u64)> = Vec::new();
    for pid in pids {
        for descriptor in fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten() {
            let Ok(metadata) = fs::metadata(descriptor.path()) else { continue };
            if metadata.is_file() && metadata.nlink() == 0 {
                found.push((metadata.dev(), metadata.ino(), 512 * metadata.blocks()));
            }
        }
    }
    found.sort_unstable();
    found.dedup_by_key(|(device, inode, _)| (*device, *inode));
    found.iter().map(|(_, _, bytes)| bytes).sum()
}

fn private() -> DirBuilder {
    let mut builder = DirBuilder::new();
    builder.mode(0o700);
    builder
}

/// Removes a node's directory unless the node lives.
fn remove_if_left(directory: &Path) {
    let Ok(opened) = File::open(directory) else { return };
    if flock(&opened, FlockOperation::NonBlockingLockExclusive).is_ok() {
        // It may hold what we may not remove: then it stays.
        let _ = fs::remove_dir_all(directory);
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn directories_go_with_their_owner() {
        let parent = tempfile::tempdir().unwrap();
        let root = Root::new(parent.path()).unwrap();
        let [first, second] = [root.directory().unwrap(), root.directory().unwrap()];
        assert_ne!(first.path(), second.path());
        assert_eq!(fs::metadata(first.path()).unwrap().permissions().mode() & 0o777, 0o700);
        fs::write(first.path().join("file"), "text").unwrap();
        let path = first.path().to_owned();
        drop(first);
        assert!(!path.exists() && second.path().exists());
        drop((root, second));
        assert_eq!(fs::read_dir(parent.path()).unwrap().count(), 0);
    }

    #[test]
    fn new_node_removes_only_what_dead_nodes_left() {
        let parent = tempfile::tempdir().unwrap();
        let alive = Root::new(parent.path()).unwrap();
        let left = parent.path().join("1-0");
        fs::create_dir_all(left.join("0")).unwrap();
        let other = Root::new(parent.path()).unwrap();
        assert!(!left.exists());
        assert!(alive.directory().is_ok() && other.directory().is_ok());
    }

    #[test]
    fn contents_are_counted_up_to_the_limit() {
        let parent = tempfile::tempdir().unwrap();
        fs::create_dir(parent.path().join("a")).unwrap();
        fs::write(parent.path().join("a/b"), vec![1; 100_000]).unwrap();
        let used = used_bytes(parent.path(), u64::MAX);
        assert!((100_000..300_000).contains(&used), "{used}");
        assert!(used_bytes(parent.path(), 4096) > 4096);
    }

    #[test]
    fn open_files_without_a_name_are_counted_once() {
        let parent = tempfile::tempdir().unwrap();
        let before = unlinked_bytes(&[std::process::id()]);
        let path = parent.path().join("file");
        fs::write(&path, vec![1; 1 << 20]).unwrap();
        let held = [File::open(&path).unwrap(), File::open(&path).unwrap()];
        fs::remove_file(&path).unwrap();
        let counted = unlinked_bytes(&[std::process::id()]) - before;
        assert!(((1 << 20)..(2 << 20)).contains(&counted), "{counted}");
        drop(held);
    }
}
