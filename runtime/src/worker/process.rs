//! Starts a worker process, and makes sure that it and what it started end with it.

use std::{
    ffi::OsString,
    fs,
    io::{self, PipeWriter},
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, RawFd},
        unix::{fs::MetadataExt as _, net::UnixStream as StdUnixStream, process::CommandExt},
    },
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::Arc,
    time::SystemTime,
};

use rustix::process::{Pid, Signal};
use tokio::net::unix::pipe;

use super::{
    cgroup::Bounds,
    child::Child,
    known::Expected,
    sandbox::{Access, Confinement, Entry, Handover, Open, Sandbox, Temporary},
    turns::Turns,
};

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
    /// Which directory that is: the sandbox opens the one that was there when the worker started.
    pub(crate) identity: DirectoryIdentity,
    /// What it may use.
    pub(crate) bounds: Bounds,
    /// Which files it may reach; `None` where it is started for no app in particular, and told later.
    pub(crate) access: Option<Access>,
    /// What it is confined by.
    pub(crate) sandbox: Arc<Sandbox>,
}

/// Tells a directory from another one that takes its path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct DirectoryIdentity {
    device: u64,
    inode: u64,
    /// Inodes are used again; not all file systems know it.
    created: Option<SystemTime>,
}

impl DirectoryIdentity {
    /// The directory that has this path now.
    ///
    /// # Errors
    /// When there is none.
    pub(crate) fn of(directory: &Path) -> io::Result<Self> {
        let metadata = fs::metadata(directory)?;
        Ok(Self { device: metadata.dev(), inode: metadata.ino(), created: metadata.created().ok() })
    }
}

impl Launch {
    /// Whether a worker started like this is as good as one started like `other`.
    pub(crate) fn is_like(&self, other: &Self) -> bool {
        let Self { program, args, trailing_args, env, directory, identity, bounds, access, sandbox } = self;
        (program, args, trailing_args) == (&other.program, &other.args, &other.trailing_args)
            && (env, directory, identity) == (&other.env, &other.directory, &other.identity)
            && (bounds, access) == (&other.bounds, &other.access)
            && Arc::ptr_eq(sandbox, &other.sandbox)
    }
}

/// The node's ends of what joins it with a worker.
pub(crate) struct Ends {
    /// The channels, control channel first; non-blocking.
    pub(crate) channels: Vec<StdUnixStream>,
    /// What it writes past the worker's own capture.
    pub(crate) stdout: pipe::Receiver,
    /// The same for standard error.
    pub(crate) stderr: pipe::Receiver,
}

/// The worker's ends of the same.
pub(crate) struct WorkerEnds {
    channels: Vec<StdUnixStream>,
    stdout: PipeWriter,
    stderr: PipeWriter,
}

impl Ends {
    /// Both ends of `channels` channels and two pipes.
    pub(crate) fn new(channels: usize) -> io::Result<(Self, WorkerEnds)> {
        let (ours, theirs): (Vec<_>, Vec<_>) =
            (0..channels).map(|_| StdUnixStream::pair()).collect::<io::Result<Vec<_>>>()?.into_iter().unzip();
        for stream in &ours {
            stream.set_nonblocking(true)?;
        }
        let [(stdout, its_stdout), (stderr, its_stderr)] = [io::pipe()?, io::pipe()?];
        let [stdout, stderr] = [stdout, stderr].map(|pipe| pipe::Receiver::from_owned_fd(pipe.into()));
        let worker = WorkerEnds { channels: theirs, stdout: its_stdout, stderr: its_stderr };
        Ok((Self { channels: ours, stdout: stdout?, stderr: stderr? }, worker))
    }
}

impl WorkerEnds {
    /// In the order in which a `fork` frame passes them.
    pub(crate) fn descriptors(&self) -> Vec<BorrowedFd<'_>> {
        let pipes = [self.stdout.as_fd(), self.stderr.as_fd()];
        pipes.into_iter().chain(self.channels.iter().map(AsFd::as_fd)).collect()
    }
}

/// A running worker. Dropped, it is killed with all it started.
pub(crate) struct Process {
    child: Child,
    /// Its temporary directory.
    pub(crate) temporary: Option<Arc<Temporary>>,
    /// What is left to do before it may load an app.
    pub(crate) open: Option<Open>,
}

impl Process {
    /// Starts a worker. Call on a thread that lives as long as the node: the worker gets SIGKILL when it ends.
    pub(crate) fn start(launch: &Launch, channels: usize) -> io::Result<(Self, Ends)> {
        let (ends, theirs) = Ends::new(channels)?;
        let inherited: Vec<RawFd> = theirs.channels.iter().map(AsRawFd::as_raw_fd).collect();
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
            .stdout(theirs.stdout)
            .stderr(theirs.stderr);
        let Confinement { entry, handover, temporary, open } =
            launch.sandbox.prepare(launch.access.as_ref(), &launch.bounds)?;
        if let Some(temporary) = &temporary {
            command.env("TMPDIR", temporary.path());
            // What the app itself says wins.
            command.envs(launch.env.iter().filter(|(name, _)| name == "TMPDIR").map(|(name, value)| (name, value)));
        }
        let parent = rustix::process::getpid();
        // SAFETY: `prepare_child` makes only direct system calls: it neither allocates nor locks, so it
        // is sound between fork and exec of a process with other threads.
        unsafe { command.pre_exec(move || prepare_child(parent, &inherited, &entry)) };
        let child = spawn(&mut command)?;
        handover.map_or(Ok(()), Handover::complete)?;
        kill_first(child.pid());
        Ok((Self { child, temporary: temporary.map(Arc::new), open }, ends))
    }

    /// Takes over a worker that another one forked, and that became a child of this process.
    ///
    /// # Errors
    /// When there is no such child, or it is known already.
    pub(crate) fn adopt(pid: i32, expected: Expected, temporary: Option<Arc<Temporary>>) -> io::Result<Self> {
        let pid = Pid::from_raw(pid).ok_or(io::ErrorKind::InvalidInput)?;
        Ok(Self { child: Child::adopt(pid, expected)?, temporary, open: None })
    }

    /// Whether it has not ended yet.
    pub(crate) fn is_running(&self) -> bool {
        self.child.is_running()
    }

    /// The worker's process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.pid()
    }

    /// Waits for its end, and says how it came. Cancel safe.
    pub(crate) async fn wait(&mut self) -> String {
        self.child.wait().await
    }

    /// Kills it and everything in its process group. It must still be waited for.
    pub(crate) fn kill(&self) {
        self.child.kill();
    }
}

/// Makes this process the one that what workers leave behind becomes a child of, and that may wait for it.
pub(crate) fn become_subreaper() -> io::Result<()> {
    Ok(rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?)
}

fn spawn(command: &mut Command) -> io::Result<Child> {
    let expected = Expected::new();
    let mut child = command.spawn()?;
    let adopted = Pid::from_raw(child.id().cast_signed())
        .ok_or_else(|| io::Error::other("no pid"))
        .and_then(|pid| Child::adopt(pid, expected));
    if adopted.is_err() {
        child.kill()?;
        child.wait()?;
    }
    adopted
}

/// Makes a worker the one to die when the machine runs out of memory, not the node. Children inherit it.
fn kill_first(pid: u32) {
    const WORSE: i32 = 500;
    let own: Option<i32> =
        fs::read_to_string("/proc/self/oom_score_adj").ok().and_then(|text| text.trim().parse().ok());
    let score = own.unwrap_or(0).saturating_add(WORSE).min(1000);
    // A worker that has ended already needs none.
    let _ = fs::write(format!("/proc/{pid}/oom_score_adj"), score.to_string());
}

/// Resident memory of a process now, in bytes; `None` once it has ended.
pub(crate) fn memory_bytes(pid: u32) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/statm")).ok()?;
    let pages: u64 = text.split_ascii_whitespace().nth(1)?.parse().ok()?;
    Some(pages * rustix::param::page_size() as u64)
}

/// Runs in the child between fork and exec.
fn prepare_child(parent: Pid, inherited: &[RawFd], entry: &Entry) -> io::Result<()> {
    // A session of its own: no terminal signals, and one group to kill.
    rustix::process::setsid()?;
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    // The node may have died before the line above.
    if rustix::process::getppid() != Some(parent) {
        return Err(io::Error::from_raw_os_error(libc::ECHILD));
    }
    // Whatever those of the thread that starts it are; where the kernel refuses it keeps them.
    let _ = Turns::default().take();
    for &fd in inherited {
        // SAFETY: the descriptor is open: `Process::start` holds it until after the fork.
        if unsafe { libc::fcntl(fd, libc::F_SETFD, 0) } == -1 {
            return Err(io::Error::last_os_error());
        }
    }
    entry.enter()
}
