//! The end of groups: their processes are killed, then they are removed.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use rustix::{
    fs::{FlockOperation, flock},
    process::{Pid, Signal, kill_process},
};

use super::{Directories, PREFIX, v2};

/// How long killed processes may take to end.
const KILL_TIMEOUT: Duration = Duration::from_secs(5);
const KILL_POLL: Duration = Duration::from_millis(1);

/// The processes of a group.
pub(super) fn pids(directory: &Path) -> Vec<u32> {
    let text = fs::read_to_string(directory.join("cgroup.procs")).unwrap_or_default();
    text.lines().filter_map(|line| line.parse().ok()).collect()
}

fn kill(directories: &Directories) {
    let deadline = Instant::now() + KILL_TIMEOUT;
    // From Linux 5.14 in version 2: all at once.
    let _ = fs::write(directories.pids.join("cgroup.kill"), "1");
    // Nothing can be forked any more: whoever is in it now is the last.
    let _ = fs::write(directories.pids.join("pids.max"), "0");
    loop {
        let left = pids(&directories.pids);
        if left.is_empty() || Instant::now() > deadline {
            return;
        }
        for pid in left.into_iter().filter_map(|pid| Pid::from_raw(pid.cast_signed())) {
            // It may have ended meanwhile.
            let _ = kill_process(pid, Signal::KILL);
        }
        thread::sleep(KILL_POLL);
    }
}

/// Removes a group, those in it, and their processes.
pub(super) fn remove(directories: &Directories) {
    for entry in fs::read_dir(&directories.memory).into_iter().flatten().flatten() {
        if let (true, Some(name)) = (entry.path().is_dir(), entry.file_name().to_str()) {
            remove(&directories.join(name));
        }
    }
    kill(directories);
    directories.each().for_each(remove_empty);
}

/// Removes a group whose processes were killed: the kernel lets go of the last one a moment after it ended.
pub(super) fn remove_empty(directory: &Path) {
    let deadline = Instant::now() + KILL_TIMEOUT;
    while fs::remove_dir(directory).is_err_and(|error| error.kind() == io::ErrorKind::ResourceBusy)
        && Instant::now() < deadline
    {
        thread::sleep(KILL_POLL);
    }
}

/// Removes groups of nodes that are no more from one hierarchy, unless somebody else is at it.
pub(super) fn remove_left(base: &Path) {
    for (group, _lock) in left(base).unwrap_or_default() {
        remove(&Directories { memory: group.clone(), pids: group });
    }
}

/// Groups whose lock nobody holds. Their locks are held from now on: nobody else removes them.
fn left(base: &Path) -> io::Result<Vec<(PathBuf, File)>> {
    let turn = File::open(base)?;
    flock(&turn, FlockOperation::NonBlockingLockExclusive)?;
    let mut left = Vec::new();
    for entry in fs::read_dir(base)?.flatten() {
        let (name, path) = (entry.file_name(), entry.path());
        let Some(name) = name.to_str() else { continue };
        if name.starts_with(v2::LEAF) {
            // Refused while a process is in it.
            let _ = fs::remove_dir(&path);
        }
        if name.starts_with(PREFIX) {
            left.extend(unlocked(&path).map(|lock| (path, lock)));
        }
    }
    Ok(left)
}

/// The lock of a node's group, if nobody holds it. A group that cannot be asked is somebody's.
pub(super) fn unlocked(group: &Path) -> Option<File> {
    let opened = File::open(group).ok()?;
    flock(&opened, FlockOperation::NonBlockingLockExclusive).is_ok().then_some(opened)
}
