//! Which processes belong to the same worker.

use std::fs;

use rustix::io::Errno;

/// A chain of parents is not longer.
const MAX_GENERATIONS: usize = 4096;

/// Tells the workers of a node apart.
pub(super) struct Kin {
    node: i32,
}

impl Kin {
    pub(super) fn of_this_process() -> Self {
        Self { node: std::process::id().cast_signed() }
    }

    /// Whether the thread `caller` of a worker may name the process or thread `target`.
    ///
    /// # Errors
    /// `ESRCH` when there is no such process, `EPERM` when it is another worker's, or none.
    pub(super) fn may_name(&self, caller: i32, target: i32) -> Result<(), Errno> {
        let target = process_of(target).ok_or(Errno::SRCH)?;
        let caller = process_of(caller).ok_or(Errno::SRCH)?;
        if target == caller || self.are_kin(caller, target) { Ok(()) } else { Err(Errno::PERM) }
    }

    /// Whether it may name all of a process group.
    ///
    /// # Errors
    /// As [`Self::may_name`].
    pub(super) fn may_name_group(&self, caller: i32, group: i32) -> Result<(), Errno> {
        let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
        let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
        let mut members = pids.filter(|&pid| stat(pid).is_some_and(|stat| stat.group == group)).peekable();
        members.peek().ok_or(Errno::SRCH)?;
        // One that has ended meanwhile is nobody's.
        members.try_for_each(|member| match self.may_name(caller, member) {
            Err(Errno::SRCH) => Ok(()),
            other => other,
        })
    }

    fn are_kin(&self, first: i32, second: i32) -> bool {
        if let (Some(first), Some(second)) = (self.worker_of(first), self.worker_of(second))
            && first == second
        {
            return true;
        }
        // One whose parent has ended is found by its control groups: who is in others than the node was put there by
        // it, with all of an instance.
        let [first, second, own] = [first, second, self.node].map(groups);
        first.is_some() && first == second && first != own
    }

    /// The child of the node that `pid` is or descends from.
    fn worker_of(&self, pid: i32) -> Option<i32> {
        let mut pid = pid;
        for _ in 0..MAX_GENERATIONS {
            match stat(pid)?.parent {
                parent if parent == self.node => return Some(pid),
                parent @ 2.. => pid = parent,
                _ => return None,
            }
        }
        None
    }
}

/// What of `/proc/PID/stat` matters here.
struct Stat {
    parent: i32,
    group: i32,
}

fn stat(pid: i32) -> Option<Stat> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field, a name in parentheses, may hold anything.
    let mut fields = text.rsplit_once(") ")?.1.split(' ').skip(1);
    Some(Stat { parent: fields.next()?.parse().ok()?, group: fields.next()?.parse().ok()? })
}

/// The process of a thread, which may be that process itself.
fn process_of(thread: i32) -> Option<i32> {
    let status = fs::read_to_string(format!("/proc/{thread}/status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix("Tgid:"))?.trim().parse().ok()
}

fn groups(pid: i32) -> Option<String> {
    fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()
}

#[cfg(test)]
mod tests {
    use std::{
        io::{BufRead, BufReader},
        os::unix::process::CommandExt,
        process::{Child, Command, Stdio},
    };

    use super::*;

    /// A shell in a session of its own, as workers have, with a child of its own.
    fn worker() -> (Child, i32) {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", "sleep 1000 >/dev/null & echo $!; wait"]).stdout(Stdio::piped());
        let mut shell = command.process_group(0).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(shell.stdout.take().unwrap()).read_line(&mut line).unwrap();
        (shell, line.trim().parse().unwrap())
    }

    #[test]
    fn workers_name_their_own_processes_and_no_others() {
        let kin = Kin::of_this_process();
        let [(mut first, its_child), (mut second, other_child)] = [worker(), worker()];
        let [one, two] = [&first, &second].map(|shell| shell.id().cast_signed());
        for (target, verdict) in [
            (one, Ok(())),
            (its_child, Ok(())),
            (two, Err(Errno::PERM)),
            (other_child, Err(Errno::PERM)),
            (kin.node, Err(Errno::PERM)),
            (rustix::thread::gettid().as_raw_pid(), Err(Errno::PERM)),
            (1, Err(Errno::PERM)),
            (i32::MAX, Err(Errno::SRCH)),
        ] {
            assert_eq!(kin.may_name(one, target), verdict, "{target}");
            assert_eq!(kin.may_name(its_child, target), verdict, "{target}, by a child");
        }
        assert_eq!(kin.may_name_group(its_child, one), Ok(()));
        assert_eq!(kin.may_name_group(one, two), Err(Errno::PERM));
        let own = rustix::process::getpgrp().as_raw_pid();
        assert_eq!(kin.may_name_group(one, own), Err(Errno::PERM));
        assert_eq!(kin.may_name_group(one, i32::MAX), Err(Errno::SRCH));
        for shell in [&mut first, &mut second] {
            let group = rustix::process::Pid::from_child(shell);
            rustix::process::kill_process_group(group, rustix::process::Signal::KILL).unwrap();
            shell.wait().unwrap();
        }
    }
}
