//! A process that is this one's child, whoever forked it: waited for and killed by its file descriptor.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
    sync::{Mutex, PoisonError},
};

use rustix::{
    io::Errno,
    process::{
        Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, WaitIdStatus, kill_process_group, pidfd_open,
        pidfd_send_signal, waitid,
    },
};
use tokio::io::{Interest, unix::AsyncFd};

use super::known::{Expected, Known};

/// Killed and dropped before they had ended: waited for when the next child comes.
static ABANDONED: Mutex<Vec<OwnedFd>> = Mutex::new(Vec::new());

/// A child that leads a process group of its own. Dropped, it is killed with its group.
pub(crate) struct Child {
    pid: Pid,
    fd: AsyncFd<OwnedFd>,
    /// How it ended, once it was waited for; from then on its id is anybody's.
    end: Option<String>,
    known: Option<Known>,
}

impl Child {
    /// Takes over the child `pid`, which nobody else waits for.
    ///
    /// # Errors
    /// When the kernel is older than Linux 5.4, when there is no such child, or somebody has taken it over already.
    pub(crate) fn adopt(pid: Pid, expected: Expected) -> io::Result<Self> {
        sweep();
        let known = expected.found(pid).ok_or(io::ErrorKind::AlreadyExists)?;
        let fd = pidfd_open(pid, PidfdFlags::empty()).map_err(explain)?;
        look(&fd, WaitIdOptions::NOWAIT)?;
        // SAFETY: the `AsyncFd` owns the descriptor, which is open and stays the same, and is never taken out of it.
        let fd = unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) }?;
        Ok(Self { pid, fd, end: None, known: Some(known) })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.pid.as_raw_nonzero().get().cast_unsigned()
    }

    /// Whether it has not ended yet.
    pub(crate) fn is_running(&self) -> bool {
        self.end.is_none() && matches!(look(self.fd.get_ref(), WaitIdOptions::NOWAIT), Ok(None))
    }

    /// Waits for its end, kills what is left of its group, and says how it ended. Cancel safe.
    pub(crate) async fn wait(&mut self) -> String {
        loop {
            if let Some(end) = &self.end {
                return end.clone();
            }
            match self.fd.readable().await {
                Ok(mut ready) => ready.clear_ready(),
                Err(error) => return format!("it cannot be waited for: {error}"),
            }
            self.reap();
        }
    }

    /// Kills it and everything in its process group. It must still be waited for.
    pub(crate) fn kill(&self) {
        if self.end.is_none() {
            // A process that has ended, and an empty group, are what we want: the errors say only that.
            let _ = pidfd_send_signal(self.fd.get_ref(), Signal::KILL);
            let _ = kill_process_group(self.pid, Signal::KILL);
        }
    }

    /// Waits for it if it has ended.
    fn reap(&mut self) {
        // It stays a zombie while its group is killed: until then the id is not given to others.
        let ended = match look(self.fd.get_ref(), WaitIdOptions::NOWAIT) {
            Ok(None) => return,
            Ok(Some(_)) => {
                self.kill();
                look(self.fd.get_ref(), WaitIdOptions::empty())
            }
            Err(error) => Err(error),
        };
        self.end = Some(match ended {
            Ok(status) => describe(status.as_ref()),
            Err(error) => format!("it cannot be waited for: {error}"),
        });
        self.known = None;
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        self.kill();
        self.reap();
        if self.end.is_none()
            && let Ok(fd) = self.fd.get_ref().try_clone()
        {
            ABANDONED.lock().unwrap_or_else(PoisonError::into_inner).push(fd);
        }
    }
}

fn sweep() {
    let still_there = |fd: &OwnedFd| matches!(look(fd, WaitIdOptions::empty()), Ok(None));
    ABANDONED.lock().unwrap_or_else(PoisonError::into_inner).retain(still_there);
}

fn look(fd: &OwnedFd, options: WaitIdOptions) -> rustix::io::Result<Option<WaitIdStatus>> {
    waitid(WaitId::PidFd(fd.as_fd()), WaitIdOptions::EXITED | WaitIdOptions::NOHANG | options)
}

fn explain(error: Errno) -> io::Error {
    if error == Errno::NOSYS {
        return io::Error::new(
            io::ErrorKind::Unsupported,
            "this kernel has no pidfd_open: Linux 5.4 or newer is needed",
        );
    }
    error.into()
}

/// `killed by signal 11 (SIGSEGV)` or `exited with status 3`.
fn describe(status: Option<&WaitIdStatus>) -> String {
    let ends = status.map(|status| (status.terminating_signal(), status.exit_status()));
    match ends {
        Some((Some(signal), _)) => match signal_name(signal) {
            Some(name) => format!("its worker was killed by signal {signal} ({name})"),
            None => format!("its worker was killed by signal {signal}"),
        },
        Some((None, Some(code))) => format!("its worker exited with status {code}"),
        _ => "its worker ended".to_owned(),
    }
}

fn signal_name(signal: i32) -> Option<&'static str> {
    Some(match signal {
        libc::SIGABRT => "SIGABRT",
        libc::SIGALRM => "SIGALRM",
        libc::SIGBUS => "SIGBUS",
        libc::SIGFPE => "SIGFPE",
        libc::SIGHUP => "SIGHUP",
        libc::SIGILL => "SIGILL",
        libc::SIGINT => "SIGINT",
        libc::SIGKILL => "SIGKILL",
        libc::SIGPIPE => "SIGPIPE",
        libc::SIGQUIT => "SIGQUIT",
        libc::SIGSEGV => "SIGSEGV",
        libc::SIGSYS => "SIGSYS",
        libc::SIGTERM => "SIGTERM",
        libc::SIGTRAP => "SIGTRAP",
        libc::SIGXCPU => "SIGXCPU",
        libc::SIGXFSZ => "SIGXFSZ",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use std::{
        io::{BufRead, BufReader},
        os::unix::process::CommandExt,
        path::Path,
        process::{Command, Stdio},
        time::Duration,
    };

    use tokio::time::timeout;

    use super::*;
    use crate::worker::{known::is_known, process::become_subreaper};

    /// A shell that leads its own group, and the first line it prints.
    fn shell(script: &str) -> (Child, String) {
        let expected = Expected::new();
        let mut shell = command(script).spawn().unwrap();
        let child = Child::adopt(Pid::from_child(&shell), expected).unwrap();
        (child, first_line(&mut shell))
    }

    fn command(script: &str) -> Command {
        let mut shell = Command::new("/bin/sh");
        shell.args(["-c", script]).process_group(0).stdout(Stdio::piped());
        shell
    }

    fn first_line(shell: &mut std::process::Child) -> String {
        let mut line = String::new();
        BufReader::new(shell.stdout.take().unwrap()).read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    fn is_running(pid: impl std::fmt::Display) -> bool {
        Path::new(&format!("/proc/{pid}")).exists()
    }

    #[tokio::test]
    async fn says_how_it_ended_as_often_as_asked() {
        for (script, end) in [
            ("exit 3", "its worker exited with status 3"),
            ("kill -SEGV $$", "its worker was killed by signal 11 (SIGSEGV)"),
            ("kill -USR1 $$", "its worker was killed by signal 10"),
        ] {
            let (mut child, _) = shell(script);
            assert_eq!((child.wait().await, child.wait().await), (end.to_owned(), end.to_owned()));
            assert!(!is_running(child.pid()), "a zombie is left");
        }
    }

    #[tokio::test]
    async fn its_group_ends_with_it() {
        become_subreaper().unwrap();
        let (mut child, helper) = shell("sleep 1000 >/dev/null & echo $!");
        child.wait().await;
        // The helper is a child of this process by now.
        let mut helper = Child::adopt(Pid::from_raw(helper.parse().unwrap()).unwrap(), Expected::new()).unwrap();
        assert_eq!(helper.wait().await, "its worker was killed by signal 9 (SIGKILL)");
    }

    #[tokio::test]
    async fn process_that_another_one_forked_is_waited_for() {
        become_subreaper().unwrap();
        let expected = Expected::new();
        let mut middle = command("(sleep 0.05; exit 7) >/dev/null & echo $!").spawn().unwrap();
        let forked = Pid::from_raw(first_line(&mut middle).parse().unwrap()).unwrap();
        // Only then the other one is a child of this process.
        middle.wait().unwrap();
        let mut forked = Child::adopt(forked, expected).unwrap();
        assert!(is_known(forked.pid));
        assert_eq!(forked.wait().await, "its worker exited with status 7");
    }

    #[tokio::test]
    async fn what_is_no_child_or_somebody_has_already_is_not_adopted() {
        let (child, _) = shell("echo; exec sleep 1000");
        assert_eq!(Child::adopt(child.pid, Expected::new()).err().unwrap().kind(), io::ErrorKind::AlreadyExists);
        let init = Pid::from_raw(1).unwrap();
        assert_eq!(Child::adopt(init, Expected::new()).err().unwrap().raw_os_error(), Some(libc::ECHILD));
    }

    #[tokio::test]
    async fn dropped_child_is_killed_and_leaves_no_zombie() {
        let (child, _) = shell("echo; exec sleep 1000");
        let pid = child.pid();
        drop(child);
        let swept = async {
            while is_running(pid) {
                sweep();
                tokio::task::yield_now().await;
            }
        };
        timeout(Duration::from_secs(10), swept).await.expect("the process is waited for");
    }
}
