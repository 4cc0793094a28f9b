//! Processes that user code left behind: their parent is gone, so they are this process's children by now.
//!
//! Where cgroups hold an instance's processes together they end with it, and only have to be waited for. Where there
//! are none, nobody can tell whose they were: they end at once, with all they started.

use std::{
    collections::BTreeMap,
    fs,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process, waitid};
use tokio::{
    signal::unix::{SignalKind, signal},
    task::spawn_blocking,
    time::{sleep, timeout},
};

use super::known::is_known;

/// Before each look, however many children end.
const PAUSE: Duration = Duration::from_millis(20);
/// Between two looks when nobody has ended: an orphan that lives makes no signal.
const LOOK: Duration = Duration::from_millis(500);
/// Who is killed may have forked just before.
const MAX_ROUNDS: usize = 1000;
/// How long a list of all processes is new enough to count by.
const FRESH: Duration = Duration::from_millis(400);

/// Waits for orphans, and ends them if `held` says that no cgroup will; never resolves.
pub(crate) async fn reap(held: bool) {
    let mut ended = match signal(SignalKind::child()) {
        Ok(ended) => ended,
        Err(error) => {
            tracing::warn!(target: "fnmesh::runtime", %error, "processes that apps leave behind will not be waited for");
            return std::future::pending().await;
        }
    };
    loop {
        // A missed signal does no harm: the next look sees all.
        let _ = timeout(LOOK, ended.recv()).await;
        // Others end with it, and a new instance may be starting.
        sleep(PAUSE).await;
        // In a thread where blocking is allowed: there may be thousands.
        let swept = spawn_blocking(move || if held { collect(&orphans()) } else { end_all() });
        if let Err(panic) = swept.await {
            std::panic::resume_unwind(panic.into_panic());
        }
    }
}

/// How many processes `pid` has started, and these in turn, that still run.
pub(crate) fn descendants(pid: u32) -> usize {
    static LAST: Mutex<Option<(Instant, Parents)>> = Mutex::new(None);
    let mut last = LAST.lock().unwrap_or_else(PoisonError::into_inner);
    let now = Instant::now();
    let fresh = last.take().filter(|(at, _)| now.duration_since(*at) < FRESH);
    let (_, parents) = last.insert(fresh.unwrap_or_else(|| (now, parents())));
    below(parents, &[pid.cast_signed()]).len()
}

/// The parent of each process.
type Parents = BTreeMap<i32, i32>;

fn parents() -> Parents {
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let parent = |pid: i32| parent_of(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?);
    processes
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter_map(|pid| Some((pid, parent(pid)?)))
        .collect()
}

/// From `/proc/PID/stat`: the second field, a name in parentheses, may hold anything.
fn parent_of(stat: &str) -> Option<i32> {
    stat.rsplit_once(") ")?.1.split(' ').nth(1)?.parse().ok()
}

/// All processes below these.
fn below(parents: &Parents, roots: &[i32]) -> Vec<i32> {
    let mut found = Vec::new();
    let mut open = roots.to_vec();
    while let Some(next) = open.pop() {
        let children = parents.iter().filter(|(_, parent)| **parent == next).map(|(pid, _)| *pid);
        open.extend(children.clone());
        found.extend(children);
    }
    found
}

/// Children of this process that it did not start.
fn orphans() -> Vec<i32> {
    children().into_iter().filter(|pid| Pid::from_raw(*pid).is_some_and(|pid| !is_known(pid))).collect()
}

fn children() -> Vec<i32> {
    let tasks: Vec<_> = fs::read_dir("/proc/self/task").into_iter().flatten().flatten().collect();
    let lists: Option<Vec<String>> =
        tasks.iter().map(|task| fs::read_to_string(task.path().join("children")).ok()).collect();
    match lists {
        Some(lists) => {
            lists.iter().flat_map(|list| list.split_ascii_whitespace()).filter_map(|pid| pid.parse().ok()).collect()
        }
        // A kernel without such lists (CONFIG_PROC_CHILDREN).
        None => {
            let own = std::process::id().cast_signed();
            parents().into_iter().filter(|(_, parent)| *parent == own).map(|(pid, _)| pid).collect()
        }
    }
}

/// Waits for those that have ended.
fn collect(orphans: &[i32]) {
    for pid in orphans.iter().filter_map(|pid| Pid::from_raw(*pid)) {
        // Who still runs is waited for later.
        let _ = waitid(WaitId::Pid(pid), WaitIdOptions::EXITED | WaitIdOptions::NOHANG);
    }
}

/// Kills and waits until there is none.
fn end_all() {
    for _ in 0..MAX_ROUNDS {
        let orphans = orphans();
        if orphans.is_empty() {
            return;
        }
        for pid in below(&parents(), &orphans).into_iter().chain(orphans.iter().copied()).filter_map(Pid::from_raw) {
            // It may have ended meanwhile.
            let _ = kill_process(pid, Signal::KILL);
        }
        collect(&orphans);
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;
    use crate::worker::process::become_subreaper;

    #[test]
    fn parent_is_found_behind_any_name() {
        assert_eq!(parent_of("12 (a b) c) S 7 12 12 0"), Some(7));
        assert_eq!(parent_of("12 (x"), None);
    }

    #[test]
    fn all_below_a_process_are_found() {
        let parents = Parents::from([(2, 1), (3, 2), (4, 3), (5, 1), (6, 5)]);
        let mut found = below(&parents, &[2]);
        found.sort_unstable();
        assert_eq!(found, [3, 4]);
        assert_eq!(below(&parents, &[1]).len(), 5);
    }

    #[test]
    fn orphans_that_left_their_session_are_ended() {
        become_subreaper().unwrap();
        let output = Command::new("/bin/sh")
            .args(["-c", "setsid sh -c 'sleep 1000 & sleep 1000' >/dev/null 2>&1 & echo $!"])
            .output();
        let orphan: i32 = String::from_utf8(output.unwrap().stdout).unwrap().trim().parse().unwrap();
        assert!(orphans().contains(&orphan));
        end_all();
        assert_eq!((orphans(), children()), (Vec::new(), Vec::new()));
    }
}
