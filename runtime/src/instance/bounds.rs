//! What one instance may use: watched, and put into force where the system helps.

use std::{
    io,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{
    task::spawn_blocking,
    time::{Instant, sleep, sleep_until},
};

use crate::worker::{
    activity::Activity,
    cgroup::{Bounds, Cgroup, Cgroups, Part},
    orphans, process,
    sandbox::{Sandbox, Temporary, unlinked_bytes, used_bytes},
};

/// How fast memory and files can fill, in bytes a second: what is far below its limit is looked at less often.
const FASTEST_BYTES: u64 = 4 << 30;
const SHORTEST_LOOK: Duration = Duration::from_millis(20);
const LONGEST_LOOK: Duration = Duration::from_millis(500);
/// How often refused processes are looked at, and temporary files at least.
const LOOK: Duration = Duration::from_millis(250);
/// Of the time, at most one part in so many goes into counting files.
const COUNTING: u32 = 20;
/// How long an app has a small part of the cores that has started too many processes.
const PENALTY: Duration = Duration::from_secs(30);

/// Until when the instances of an app have a small part of the cores where these are short: one that started too many
/// processes disturbs others most while it multiplies, which is over before anybody notices, and the next one may do
/// the same.
#[derive(Debug, Default)]
pub(crate) struct Penalty(Mutex<Option<Instant>>);

impl Penalty {
    fn begin(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now() + PENALTY);
    }

    fn part(&self) -> Part {
        let end = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if end.is_some_and(|end| Instant::now() < end) { Part::Small } else { Part::Equal }
    }
}

/// What holds a worker and all it started. The last hold on a group lets go of it, which ends all that is in it.
#[derive(Clone, Default)]
pub(super) struct Hold {
    cgroup: Option<Arc<Cgroup>>,
    temporary: Option<Arc<Temporary>>,
}

impl Hold {
    /// Puts a worker into a group of its own, where there are groups. What it started before stays outside.
    pub(super) async fn take(sandbox: &Sandbox, bounds: &Bounds, pid: u32, temporary: Option<Arc<Temporary>>) -> Self {
        let cgroup = match &sandbox.cgroups {
            Some(cgroups) => new_group(cgroups, bounds, pid).await,
            None => None,
        };
        Self { cgroup, temporary }
    }

    /// Of what the worker forked, which is in the same group.
    pub(super) fn forked(&self, temporary: Option<Arc<Temporary>>) -> Self {
        Self { cgroup: self.cgroup.clone(), temporary }
    }

    /// Moves the worker to another group of its own, and leaves the one it was in to what it forked.
    pub(super) async fn leave(&mut self, sandbox: &Sandbox, bounds: &Bounds, pid: u32) {
        if let (Some(cgroups), Some(_)) = (&sandbox.cgroups, &self.cgroup)
            && let Some(new) = new_group(cgroups, bounds, pid).await
        {
            let old = self.cgroup.replace(new);
            unblocked(move || drop(old)).await;
        }
    }

    /// A temporary directory in this one's, for a process that may reach no other.
    pub(super) async fn temporary_below(&self) -> io::Result<Option<Arc<Temporary>>> {
        let Some(temporary) = self.temporary.clone() else { return Ok(None) };
        unblocked(move || Temporary::below(&temporary)).await.map(Arc::new).map(Some)
    }

    /// Resolves when the worker passed one of its bounds, with which. Until then it has the part of the cores that the
    /// penalty of its app leaves it.
    pub(super) async fn exceeded(&self, pid: u32, bounds: &Bounds, penalty: &Penalty) -> String {
        tokio::select! {
            reason = self.outgrown(pid, bounds.memory_bytes) => reason,
            reason = self.overfilled(pid, bounds.temporary_bytes) => reason,
            reason = self.multiplied(pid, bounds.processes, penalty) => reason,
        }
    }

    /// Why a worker ended, where that tells more than `reason`, which its status gave.
    pub(super) fn explain(&self, reason: String, bounds: &Bounds) -> String {
        match &self.cgroup {
            Some(cgroup) if reason.contains("SIGKILL") && cgroup.was_out_of_memory() => {
                let limit = bounds.memory_bytes >> 20;
                format!("its worker and what it started used more memory than its app's limit of {limit} MiB")
            }
            _ => reason,
        }
    }

    /// Ends all that the worker started, and removes its temporary files.
    pub(super) async fn release(self) {
        unblocked(move || drop(self)).await;
    }

    async fn outgrown(&self, pid: u32, limit: u64) -> String {
        if self.cgroup.is_some() {
            return std::future::pending().await;
        }
        loop {
            // Once it has ended there is nothing to see.
            let used = process::memory_bytes(pid).unwrap_or(0);
            if used > limit {
                let [used, limit] = [used, limit].map(|bytes| bytes >> 20);
                return format!("its worker used {used} MiB of memory, more than its app's limit of {limit} MiB");
            }
            sleep(until_next_look(limit - used)).await;
        }
    }

    async fn overfilled(&self, pid: u32, limit: u64) -> String {
        let Some(temporary) = &self.temporary else { return std::future::pending().await };
        // There is nothing at first, and it starts, from which that would take time.
        sleep(until_next_count(limit)).await;
        let (mut used, mut activity) = (0, Activity::default());
        loop {
            let begin = Instant::now();
            if activity.goes_on() {
                let (held, counted) = (self.clone(), Arc::clone(temporary));
                let count = move || {
                    let pids = match &held.cgroup {
                        Some(cgroup) => activity.look(|| cgroup.pids()),
                        None => vec![pid],
                    };
                    (used_bytes(counted.path(), limit) + unlinked_bytes(&pids), activity)
                };
                (used, activity) = unblocked(count).await;
            }
            if used > limit {
                let limit = limit >> 20;
                return format!("its worker wrote more temporary files than its app's limit of {limit} MiB");
            }
            sleep_until(begin + until_next_count(limit - used).max(begin.elapsed() * COUNTING)).await;
        }
    }

    async fn multiplied(&self, pid: u32, limit: u64, penalty: &Penalty) -> String {
        let mut activity = Activity::default();
        loop {
            self.give(penalty.part()).await;
            sleep(LOOK).await;
            if !activity.goes_on() {
                continue;
            }
            let too_many = match &self.cgroup {
                Some(cgroup) => {
                    activity.look(|| cgroup.pids());
                    cgroup.was_full()
                }
                None => {
                    sleep(LOOK).await;
                    // Only processes, and only those whose parent lives: the others are orphans, and end as such.
                    unblocked(move || orphans::descendants(pid) as u64).await > limit
                }
            };
            if too_many {
                break;
            }
        }
        penalty.begin();
        // It has to end, which takes time on the cores too.
        self.give(Part::Equal).await;
        format!("its worker started more processes and threads than its app's limit of {limit}")
    }

    async fn give(&self, part: Part) {
        if let Some(cgroup) = self.cgroup.clone().filter(|cgroup| !cgroup.has(part)) {
            unblocked(move || cgroup.give(part)).await;
        }
    }
}

/// A group with nothing but this process in it.
async fn new_group(cgroups: &Arc<Cgroups>, bounds: &Bounds, pid: u32) -> Option<Arc<Cgroup>> {
    let (cgroups, bounds) = (Arc::clone(cgroups), *bounds);
    let made = unblocked(move || {
        let cgroup = cgroups.create(&bounds)?;
        cgroup.add(pid).map(|()| cgroup)
    });
    match made.await {
        Ok(cgroup) => Some(Arc::new(cgroup)),
        Err(error) => {
            tracing::warn!(target: "fnmesh::runtime", pid, %error, "worker has no cgroup of its own");
            None
        }
    }
}

/// Does what blocks where that is allowed.
async fn unblocked<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    spawn_blocking(work).await.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))
}

/// When files with so much room left are to be counted again.
fn until_next_count(left: u64) -> Duration {
    until_next_look(left).min(LOOK)
}

/// When memory with so much room left can be full at the earliest.
fn until_next_look(left: u64) -> Duration {
    Duration::from_micros(left / (FASTEST_BYTES / 1_000_000)).clamp(SHORTEST_LOOK, LONGEST_LOOK)
}

#[cfg(test)]
mod tests {
    use tokio::time::timeout;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn instances_have_a_small_part_until_the_penalty_is_over() {
        let root = tempfile::tempdir().unwrap();
        let group = Arc::new(Cgroup::at(root.path()));
        let hold = Hold { cgroup: Some(Arc::clone(&group)), temporary: None };
        let bounds = Bounds { memory_bytes: 1 << 30, processes: 64, temporary_bytes: 0 };
        let penalty = Penalty::default();
        let events = root.path().join("pids.events");
        let shares = || std::fs::read_to_string(root.path().join("cpu.shares")).unwrap_or_default();
        let passes = async |time| timeout(time, hold.exceeded(1, &bounds, &penalty)).await.ok();

        assert_eq!((passes(LOOK * 3).await, shares().as_str()), (None, ""), "as it was made");
        std::fs::write(&events, "max 1\n").unwrap();
        let reason = passes(LOOK * 3).await.unwrap();
        assert!(reason.contains("more processes and threads than its app's limit of 64"), "{reason}");
        std::fs::write(&events, "max 0\n").unwrap();
        assert_eq!((passes(PENALTY - LOOK).await, shares().as_str()), (None, "16"));
        assert_eq!((passes(LOOK * 3).await, shares().as_str()), (None, "1024"));
    }

    #[tokio::test(start_paused = true)]
    async fn few_temporary_files_are_counted_soon() {
        let parent = tempfile::tempdir().unwrap();
        let temporary = Temporary::inside(parent.path()).unwrap();
        std::fs::write(temporary.path().join("file"), vec![1; 9 << 20]).unwrap();
        let hold = Hold { cgroup: None, temporary: Some(Arc::new(temporary)) };
        let passes = async |limit, time| timeout(time, hold.overfilled(std::process::id(), limit)).await.ok();

        let reason = passes(8 << 20, SHORTEST_LOOK + Duration::from_millis(1)).await.unwrap();
        assert!(reason.contains("more temporary files than its app's limit of 8 MiB"), "{reason}");
        assert_eq!(passes(512 << 20, LOOK * 4).await, None);
    }

    #[test]
    fn memory_near_its_limit_is_looked_at_more_often() {
        assert_eq!(until_next_look(0), SHORTEST_LOOK);
        let half_full = until_next_look(512 << 20);
        assert!((Duration::from_millis(120)..Duration::from_millis(130)).contains(&half_full), "{half_full:?}");
        assert_eq!(until_next_look(64 << 30), LONGEST_LOOK);
    }
}
