//! What the loading of an app left in the process that a fork would break.

use std::{
    collections::BTreeSet,
    fs,
    os::fd::{BorrowedFd, RawFd},
};

use pyo3::prelude::*;
use rustix::{
    fs::{FileType, OFlags, fcntl_getfl, fstat},
    io::Errno,
    process::{WaitId, WaitIdOptions, waitid},
};

use crate::fork::threads_step_aside;

/// Devices without a state.
const PLAIN_DEVICES: [&str; 4] = ["/dev/null", "/dev/zero", "/dev/random", "/dev/urandom"];

/// The open files before the app was loaded.
pub(crate) struct Before {
    files: BTreeSet<RawFd>,
}

impl Before {
    /// As it is now.
    pub(crate) fn look() -> Self {
        Self { files: open_files().into_iter().map(|(fd, _)| fd).collect() }
    }

    /// Why the app that was loaded since cannot be forked, if so: what it "did" at import.
    pub(crate) fn reason(&self, py: Python<'_>) -> Option<String> {
        let threads = threads();
        if threads == 0 {
            return Some("/proc does not show its threads".to_owned());
        }
        if threads > 1 && !threads_step_aside(py, self::threads) {
            return Some(format!("it started {}", if threads == 2 { "a thread" } else { "threads" }));
        }
        // ECHILD means that there is none.
        let any_child = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        if !matches!(waitid(WaitId::All, any_child), Err(Errno::CHILD)) {
            return Some("it started a process".to_owned());
        }
        let opened = open_files().into_iter().filter(|(fd, _)| !self.files.contains(fd));
        let file = opened.filter_map(|(_, kind)| kind).next().map(|kind| format!("it opened {kind}"));
        file.or_else(shared_memory).or_else(|| exit_work(py))
    }
}

fn threads() -> usize {
    fs::read_dir("/proc/self/task").map_or(0, Iterator::count)
}

/// Writable memory that all forks would share: locks of `multiprocessing`, devices.
fn shared_memory() -> Option<String> {
    let maps = fs::read_to_string("/proc/self/maps").ok()?;
    // address, permissions, offset, device, inode, path
    let shared =
        maps.lines().find(|line| line.split(' ').nth(1).is_some_and(|it| it.contains('w') && it.ends_with('s')))?;
    Some(format!("it maps shared memory ({})", shared.split_ascii_whitespace().skip(5).collect::<Vec<_>>().join(" ")))
}

fn exit_work(py: Python<'_>) -> Option<String> {
    let work = py.import("fnmesh._load").and_then(|load| load.call_method0("exit_work")?.extract::<Option<String>>());
    work.ok()?.map(|work| format!("it made something that {work} cleans up at exit"))
}

/// The open descriptors, those that processes cannot share with what they are.
fn open_files() -> Vec<(RawFd, Option<String>)> {
    let Ok(entries) = fs::read_dir("/proc/self/fd") else { return Vec::new() };
    let numbers: Vec<RawFd> = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect();
    // The listing's own descriptor is closed by now.
    numbers.into_iter().filter_map(|fd| describe(fd).map(|kind| (fd, kind))).collect()
}

/// `None` if it is not open.
fn describe(fd: RawFd) -> Option<Option<String>> {
    // SAFETY: only asked what it is; a number that is not open is an error.
    let file = unsafe { BorrowedFd::borrow_raw(fd) };
    let mode = fstat(file).ok()?.st_mode;
    let path = fs::read_link(format!("/proc/self/fd/{fd}")).unwrap_or_default();
    let path = path.display();
    Some(match FileType::from_raw_mode(mode) {
        FileType::Socket => Some("a socket".to_owned()),
        FileType::Fifo => Some("a pipe".to_owned()),
        // Appended to by all, or without a position.
        FileType::RegularFile if fcntl_getfl(file).is_ok_and(|flags| flags.contains(OFlags::APPEND)) => None,
        FileType::Directory => None,
        FileType::RegularFile => Some(format!("the file {path}")),
        FileType::CharacterDevice if PLAIN_DEVICES.contains(&&*path.to_string()) => None,
        _ => Some(path.to_string()),
    })
}
