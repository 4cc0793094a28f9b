//! Starts a worker process, and makes sure that it and what it started end with it.

use std::{
    ffi::OsString,
    fs, io,
    os::{
        fd::{AsRawFd, RawFd},
        unix::{net::UnixStream as StdUnixStream, process::ExitStatusExt},
    },
    path::PathBuf,
    process::{ExitStatus, Stdio},
};

use rustix::process::{Pid, Resource, Rlimit, Signal};
use tokio::process::{Child, ChildStderr, ChildStdout, Command};

/// How to start a worker of one app and language.
#[derive(Debug)]
pub(crate) struct Launch {
    /// The interpreter.
    pub(crate) program: PathBuf,
    /// Its arguments; the worker's own list of channels follows them.
    pub(crate) args: Vec<OsString>,
    /// Arguments after the list of channels.
    pub(crate) trailing_args: Vec<OsString>,
    /// All of its environment.
    pub(crate) env: Vec<(OsString, OsString)>,
    /// Its working directory: the app's.
    pub(crate) directory: PathBuf,
    /// Limit of resident memory, in bytes.
    pub(crate) max_memory_bytes: Option<u64>,
    /// Channels in all, the control channel included.
    pub(crate) channels: usize,
}

/// A running worker. Dropped, it is killed with all it started.
pub(crate) struct Process {
    child: Child,
    group: Pid,
    /// The node's ends of the channels, control channel first; non-blocking.
    pub(crate) channels: Vec<StdUnixStream>,
    /// What it writes past the worker's own capture.
    pub(crate) stdout: Option<ChildStdout>,
    /// The same for standard error.
    pub(crate) stderr: Option<ChildStderr>,
}

impl Process {
    /// Starts a worker. Call on a thread that lives as long as the node: the worker gets SIGKILL when it ends.
    pub(crate) fn start(launch: &Launch) -> io::Result<Self> {
        let (ours, theirs): (Vec<_>, Vec<_>) =
            (0..launch.channels).map(|_| StdUnixStream::pair()).collect::<io::Result<Vec<_>>>()?.into_iter().unzip();
        let inherited: Vec<RawFd> = theirs.iter().map(AsRawFd::as_raw_fd).collect();
        let list = inherited.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
        let mut command = Command::new(&launch.program);
        command
            .args(&launch.args)
            .arg(list)
            .args(&launch.trailing_args)
            .env_clear()
            .envs(launch.env.iter().map(|(name, value)| (name, value)))
            .current_dir(&launch.directory)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        let parent = rustix::process::getpid();
        // SAFETY: `prepare_child` makes only direct system calls: it neither allocates nor locks, so it
        // is sound between fork and exec of a process with other threads.
        unsafe { command.pre_exec(move || prepare_child(parent, &inherited)) };
        let mut child = command.spawn()?;
        drop(theirs);
        let pid =
            child.id().and_then(|id| Pid::from_raw(id.cast_signed())).ok_or_else(|| io::Error::other("no pid"))?;
        for stream in &ours {
            stream.set_nonblocking(true)?;
        }
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        Ok(Self { child, group: pid, channels: ours, stdout, stderr })
    }

    /// The worker's process id.
    pub(crate) fn pid(&self) -> u32 {
        self.group.as_raw_nonzero().get().cast_unsigned()
    }

    /// Waits for its end. Cancel safe.
    pub(crate) async fn wait(&mut self) -> String {
        let status = self.child.wait().await;
        self.kill();
        status.map_or_else(|error| format!("it cannot be waited for: {error}"), describe)
    }

    /// Kills it and everything in its process group. It must still be waited for.
    pub(crate) fn kill(&self) {
        // An empty group is what we want: the error says only that.
        let _ = rustix::process::kill_process_group(self.group, Signal::KILL);
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Resident memory of a process now, in bytes; `None` once it has ended.
pub(crate) fn memory_bytes(pid: u32) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/statm")).ok()?;
    let pages: u64 = text.split_ascii_whitespace().nth(1)?.parse().ok()?;
    Some(pages * rustix::param::page_size() as u64)
}

/// `killed by signal 11 (SIGSEGV)` or `exited with status 3`.
fn describe(status: ExitStatus) -> String {
    match (status.signal(), status.code()) {
        (Some(signal), _) => match signal_name(signal) {
            Some(name) => format!("its worker was killed by signal {signal} ({name})"),
            None => format!("its worker was killed by signal {signal}"),
        },
        (None, Some(code)) => format!("its worker exited with status {code}"),
        (None, None) => "its worker ended".to_owned(),
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
        _ => return None,
    })
}

/// Runs in the child between fork and exec.
fn prepare_child(parent: Pid, inherited: &[RawFd]) -> io::Result<()> {
    // A session of its own: no terminal signals, and one group to kill.
    rustix::process::setsid()?;
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    // The node may have died before the line above.
    if rustix::process::getppid() != Some(parent) {
        return Err(io::Error::from_raw_os_error(libc::ECHILD));
    }
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    rustix::process::setrlimit(Resource::Core, none)?;
    for &fd in inherited {
        // SAFETY: the descriptor is open: `Process::start` holds it until after the fork.
        if unsafe { libc::fcntl(fd, libc::F_SETFD, 0) } == -1 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}
