//! How a zygote makes another process out of itself.

mod orphan;

use std::{
    io,
    os::fd::{AsRawFd, OwnedFd},
    sync::atomic::{AtomicBool, Ordering},
    thread::sleep,
    time::{Duration, Instant},
};

use pyo3::{ffi, prelude::*};
use rustix::{
    io::Errno,
    pipe::{PipeFlags, pipe_with},
    process::{Pid, Signal, WaitOptions, getppid, set_parent_process_death_signal, setsid, waitpid},
};

use crate::core::{die, quit};

/// How long a thread may still be seen that has been waited for: the system wakes who waits a little before it is gone.
const LAST_STEPS: Duration = Duration::from_millis(100);
/// Between two looks whether it is.
const LOOK: Duration = Duration::from_micros(200);

/// The fork that is going on makes an instance, which is no fork of a worker as user code makes them.
static MAKES_INSTANCE: AtomicBool = AtomicBool::new(false);

/// In which process [`fork`] returned.
pub(crate) enum Side {
    /// In the zygote; this is the new one.
    Zygote(i32),
    /// In the new one, a child of `node` by now.
    Instance,
}

/// Makes a process like this one whose parent is `node`, the parent of this one.
///
/// As after `os.fork()`, the hooks of `os.register_at_fork` run in both. A process in between ends at once, so that its
/// child becomes one of the node, which adopts orphans; the new one does not return before that.
pub(crate) fn fork(py: Python<'_>, node: Option<Pid>) -> io::Result<Side> {
    let (gate, closed) = pipe_with(PipeFlags::CLOEXEC)?;
    MAKES_INSTANCE.store(true, Ordering::Relaxed);
    let forked = with_hooks(py, || {
        let mut pid = 0;
        // SAFETY: the GIL is held and this is the only thread.
        let middle = unsafe { orphan::fork(&mut pid) };
        // Before another call sets it.
        let error = io::Error::last_os_error();
        match Pid::from_raw(middle) {
            None => {}
            Some(_) if middle < 0 => return Err(io::Error::from_raw_os_error(-middle)),
            Some(middle) => wait_for(middle),
        }
        drop(closed);
        if pid < 0 { Err(error) } else { Ok(pid) }
    });
    MAKES_INSTANCE.store(false, Ordering::Relaxed);
    match forked? {
        0 => {
            wait_for_end_of_file(&gate);
            belong_to(node);
            Ok(Side::Instance)
        }
        pid => Ok(Side::Zygote(pid)),
    }
}

/// Whether this process has one thread when it has forked: some libraries end theirs before, by `os.register_at_fork()`
/// or `pthread_atfork()`, and start them again later.
pub(crate) fn threads_step_aside(py: Python<'_>, threads: impl Fn() -> usize) -> bool {
    let mut left = 0;
    let forked = with_hooks(py, || {
        // SAFETY: the child only ends.
        let child = match unsafe { libc::fork() } {
            0 => quit(0),
            -1 => return Err(io::Error::last_os_error()),
            child => child,
        };
        left = settled(&threads);
        Pid::from_raw(child).into_iter().for_each(wait_for);
        Ok(child)
    });
    forked.is_ok() && left == 1
}

/// How many threads there are once those that are about to end are gone.
fn settled(threads: impl Fn() -> usize) -> usize {
    let end = Instant::now() + LAST_STEPS;
    loop {
        let left = threads();
        if left <= 1 || Instant::now() >= end {
            return left;
        }
        sleep(LOOK);
    }
}

/// Whether the hooks that run now do so for an instance.
pub(crate) fn makes_instance() -> bool {
    MAKES_INSTANCE.load(Ordering::Relaxed)
}

/// Forks with what Python has to do before and after it. `fork` returns 0 in the child.
fn with_hooks(_: Python<'_>, fork: impl FnOnce() -> io::Result<i32>) -> io::Result<i32> {
    // SAFETY: the GIL is held, and each of the three hooks runs where it belongs.
    unsafe {
        ffi::PyOS_BeforeFork();
        let result = fork();
        match result {
            Ok(0) => ffi::PyOS_AfterFork_Child(),
            _ => ffi::PyOS_AfterFork_Parent(),
        }
        result
    }
}

fn wait_for(child: Pid) {
    // An app that ignores SIGCHLD leaves nothing to wait for once the child is gone.
    while matches!(waitpid(Some(child), WaitOptions::empty()), Err(Errno::INTR)) {}
}

fn wait_for_end_of_file(gate: &OwnedFd) {
    // Nothing is ever written to it.
    while rustix::io::read(gate, &mut [0; 1]) == Err(Errno::INTR) {}
}

/// A session of its own, and the end with the node, as for every worker.
fn belong_to(node: Option<Pid>) {
    if setsid().is_err() || set_parent_process_death_signal(Some(Signal::KILL)).is_err() {
        die("cannot leave the zygote's session");
    }
    // The node is gone, or adopts no orphans.
    if getppid() != node {
        quit(0);
    }
}

/// Closes a descriptor that something that is never used again thinks it owns.
pub(crate) fn close(fd: &impl AsRawFd) {
    // SAFETY: nobody uses the descriptor after this, by the contract above; a wrong number only fails.
    unsafe { libc::close(fd.as_raw_fd()) };
}
