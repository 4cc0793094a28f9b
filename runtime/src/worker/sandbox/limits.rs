//! Resource limits and capabilities of a worker.

use std::{fs, io};

use rustix::process::{Resource, Rlimit, setrlimit};

/// Open files of one process.
const FILES: u64 = 4096;
/// The largest file a worker may write, in bytes, unless it may have more temporary files than that.
const FILE_BYTES: u64 = 1 << 30;
/// Processes and threads that all workers of a user may have beyond those there were, where no cgroup counts them.
const PROCESSES: u64 = 1024;

/// Capabilities that root's workers keep: those by which root reads and writes any file. What they reach is
/// Landlock's business. CHOWN, DAC_OVERRIDE, DAC_READ_SEARCH, FOWNER (capabilities(7)).
const KEPT: [u32; 4] = [0, 1, 2, 3];
/// No kernel has capabilities beyond this.
const LAST: u32 = 63;

/// Limits, ready to be entered between fork and exec.
#[derive(Debug)]
pub(super) struct Limits {
    values: [(Resource, Option<u64>); 4],
}

impl Limits {
    /// For a worker that may have `temporary_bytes` of temporary files; `counted` if a cgroup bounds its processes.
    pub(super) fn new(temporary_bytes: u64, counted: bool) -> Self {
        let uid = rustix::process::getuid();
        // The limit does not hold for root, and counts every process that the user has.
        let processes = (!counted && !uid.is_root()).then(|| tasks_of(uid.as_raw()) + PROCESSES);
        Self {
            values: [
                (Resource::Core, Some(0)),
                (Resource::Nofile, Some(FILES)),
                (Resource::Fsize, Some(FILE_BYTES.max(temporary_bytes))),
                (Resource::Nproc, processes),
            ],
        }
    }

    /// Only what every worker has.
    pub(super) fn least() -> Self {
        let none = |resource| (resource, None);
        Self {
            values: [(Resource::Core, Some(0)), none(Resource::Nofile), none(Resource::Fsize), none(Resource::Nproc)],
        }
    }

    /// Holds this process and all it starts to them. Async-signal-safe.
    pub(super) fn enter(&self) -> io::Result<()> {
        for (resource, value) in self.values {
            let Some(value) = value else { continue };
            let present = rustix::process::getrlimit(resource).maximum;
            let value = Some(present.map_or(value, |present| present.min(value)));
            setrlimit(resource, Rlimit { current: value, maximum: value })?;
        }
        Ok(())
    }
}

/// Processes and threads of a user.
fn tasks_of(uid: u32) -> u64 {
    let Ok(processes) = fs::read_dir("/proc") else { return 0 };
    let statuses = processes.flatten().filter_map(|process| fs::read_to_string(process.path().join("status")).ok());
    statuses.filter_map(|status| threads_of(&status, uid)).sum()
}

/// Threads of the process with this `/proc/PID/status`, if it is the user's.
fn threads_of(status: &str, uid: u32) -> Option<u64> {
    let value = |name| status.lines().find_map(|line| line.strip_prefix(name)).map(str::split_ascii_whitespace);
    let owner: u32 = value("Uid:")?.next()?.parse().ok()?;
    (owner == uid).then_some(value("Threads:")?.next()?.parse().ok()?)
}

#[repr(C)]
struct Header {
    version: u32,
    pid: i32,
}

#[repr(C)]
#[derive(Clone, Copy)]
struct Sets {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

/// Gives up every capability but [`KEPT`], also for programs that this process runs. Async-signal-safe.
pub(super) fn drop_capabilities() -> io::Result<()> {
    for capability in (0..=LAST).filter(|capability| !KEPT.contains(capability)) {
        // SAFETY: no memory is passed.
        let result = unsafe { libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0) };
        if result != 0 {
            let error = io::Error::last_os_error();
            // The one before was the kernel's last.
            if error.raw_os_error() == Some(libc::EINVAL) { break } else { return Err(error) }
        }
    }
    let kept = KEPT.iter().fold(0, |set, capability| set | 1 << capability);
    let header = Header { version: 0x2008_0522 /* _LINUX_CAPABILITY_VERSION_3 */, pid: 0 };
    let low = Sets { effective: kept, permitted: kept, inheritable: 0 };
    let sets = [low, Sets { effective: 0, permitted: 0, inheritable: 0 }];
    // SAFETY: version 3 takes a header and two sets, which these are (capget(2)).
    match unsafe { libc::syscall(libc::SYS_capset, &raw const header, &raw const sets) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Keeps this process and all it starts from gaining rights by running programs. Async-signal-safe.
pub(super) fn no_new_privileges() -> io::Result<()> {
    Ok(rustix::thread::set_no_new_privs(true)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_of_other_users_do_not_count() {
        let status = "Name:\tpython3\nUid:\t1000\t1000\t1000\t1000\nThreads:\t7\n";
        assert_eq!(threads_of(status, 1000), Some(7));
        assert_eq!(threads_of(status, 0), None);
        assert_eq!(threads_of("", 0), None);
    }

    #[test]
    fn own_processes_are_counted() {
        assert!(tasks_of(rustix::process::getuid().as_raw()) >= 1);
    }
}
