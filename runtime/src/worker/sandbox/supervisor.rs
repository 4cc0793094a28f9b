//! Decides system calls of workers that name a process, which a filter cannot judge: a worker may name its own ones and
//! no others. The kernel asks for each such call, and the caller waits for the answer (`seccomp_unotify(2)`).

use std::{
    collections::BTreeMap,
    io::{self, IoSlice, IoSliceMut},
    mem::MaybeUninit,
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd},
        unix::net::UnixStream,
    },
    sync::{Arc, Mutex, PoisonError},
    thread,
};

use rustix::{
    buffer::spare_capacity,
    event::{EventfdFlags, epoll, eventfd},
    io::Errno,
    net::{
        RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
        recvmsg, sendmsg,
    },
};
use seccompiler::BpfProgram;

use super::{kin::Kin, seccomp, seccomp::Target};

/// The kernel says when nobody is left who may ask, so that the descriptor can be closed.
const OLDEST: (u32, u32) = (5, 9);
/// Its answers are seldom urgent, and who asks without end shall not have the time of others.
const NICE: i32 = 10;

/// The thread that answers for all workers of a node, until it is dropped.
pub(super) struct Supervisor {
    program: Arc<BpfProgram>,
    desk: Arc<Desk>,
}

/// Where questions come in.
struct Desk {
    poll: OwnedFd,
    /// Readable when the thread is to end.
    stop: OwnedFd,
    listeners: Mutex<BTreeMap<RawFd, OwnedFd>>,
}

impl Supervisor {
    /// Starts it for what `program` asks about.
    ///
    /// # Errors
    /// When the kernel is too old, or refuses.
    pub(super) fn start(program: BpfProgram) -> io::Result<Self> {
        let release = rustix::system::uname().release().to_string_lossy().into_owned();
        if version(&release).is_none_or(|version| version < OLDEST) {
            let (major, minor) = OLDEST;
            return Err(io::Error::other(format!("Linux {major}.{minor} or newer is needed for questions")));
        }
        let desk = Arc::new(Desk::new()?);
        let answering = Arc::clone(&desk);
        thread::Builder::new().name("fnmesh-seccomp".to_owned()).spawn(move || answering.serve())?;
        Ok(Self { program: Arc::new(program), desk })
    }

    /// What a worker enters, and what the node does once it has.
    ///
    /// # Errors
    /// When there are no descriptors left.
    pub(super) fn hire(&self) -> io::Result<(Asking, Handover)> {
        let (ours, theirs) = UnixStream::pair()?;
        ours.set_nonblocking(true)?;
        Ok((
            Asking { program: Arc::clone(&self.program), socket: theirs },
            Handover { socket: ours, desk: Arc::clone(&self.desk) },
        ))
    }
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        // It cannot be full: it is written once.
        let _ = rustix::io::write(&self.desk.stop, &1u64.to_ne_bytes());
    }
}

/// What a worker does between fork and exec so that its calls are asked about.
pub(super) struct Asking {
    program: Arc<BpfProgram>,
    socket: UnixStream,
}

impl Asking {
    /// Installs the filter for this process and all it starts, and sends the node what the kernel asks by. Needs
    /// no_new_privs. Async-signal-safe.
    pub(super) fn enter(&self) -> io::Result<()> {
        let listener = seccomp::install_asking(&self.program)?;
        let descriptors = [listener.as_fd()];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        control.push(SendAncillaryMessage::ScmRights(&descriptors));
        sendmsg(&self.socket, &[IoSlice::new(&[0])], &mut control, SendFlags::NOSIGNAL)?;
        Ok(())
    }
}

/// The node's side of [`Asking`].
#[must_use]
pub(crate) struct Handover {
    socket: UnixStream,
    desk: Arc<Desk>,
}

impl Handover {
    /// Takes what the worker has sent before its exec, and answers from now on.
    ///
    /// # Errors
    /// When nothing was sent, or no more can be watched.
    pub(crate) fn complete(self) -> io::Result<()> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut byte = [0];
        recvmsg(&self.socket, &mut [IoSliceMut::new(&mut byte)], &mut control, RecvFlags::CMSG_CLOEXEC)?;
        let mut listeners = control.drain().filter_map(|message| match message {
            RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
            _ => None,
        });
        self.desk.watch(listeners.next().ok_or(io::ErrorKind::UnexpectedEof)?)
    }
}

impl Desk {
    fn new() -> io::Result<Self> {
        let poll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let stop = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        epoll::add(&poll, &stop, epoll::EventData::new_u64(token(&stop)), epoll::EventFlags::IN)?;
        Ok(Self { poll, stop, listeners: Mutex::default() })
    }

    fn watch(&self, listener: OwnedFd) -> io::Result<()> {
        // Known before it is watched: it may be at its end at once.
        let mut listeners = self.listeners.lock().unwrap_or_else(PoisonError::into_inner);
        epoll::add(&self.poll, &listener, epoll::EventData::new_u64(token(&listener)), epoll::EventFlags::IN)?;
        listeners.insert(listener.as_raw_fd(), listener);
        Ok(())
    }

    fn serve(&self) {
        // Where that is refused it is as nice as the node.
        let _ = rustix::process::nice(NICE);
        let kin = Kin::of_this_process();
        let mut events = Vec::with_capacity(64);
        loop {
            events.clear();
            match epoll::wait(&self.poll, spare_capacity(&mut events), None) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => {
                    tracing::error!(target: "fnmesh::runtime", %error, "system calls of workers that name processes are refused from now on");
                    self.listeners.lock().unwrap_or_else(PoisonError::into_inner).clear();
                    return;
                }
            }
            for &epoll::Event { flags, data } in &events {
                if data.u64() == token(&self.stop) {
                    return;
                }
                self.attend(data.u64(), flags.contains(epoll::EventFlags::IN), &kin);
            }
        }
    }

    fn attend(&self, token: u64, asks: bool, kin: &Kin) {
        let Ok(descriptor) = RawFd::try_from(token) else { return };
        let mut listeners = self.listeners.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(listener) = listeners.get(&descriptor) else { return };
        if !asks {
            // Nobody is left who could ask.
            listeners.remove(&descriptor);
            return;
        }
        // Only this thread removes any, and it does not while it uses this one.
        // SAFETY: the descriptor stays open: its owner is in `listeners` until this thread removes it.
        let listener = unsafe { BorrowedFd::borrow_raw(listener.as_raw_fd()) };
        drop(listeners);
        answer(listener, kin);
    }
}

fn token(descriptor: &OwnedFd) -> u64 {
    u64::from(descriptor.as_raw_fd().cast_unsigned())
}

/// Answers one question, if its caller still waits for it.
fn answer(listener: BorrowedFd<'_>, kin: &Kin) {
    // SAFETY: all zero is a value of this struct of integers, and the one that the kernel demands.
    let mut question: libc::seccomp_notif = unsafe { std::mem::zeroed() };
    // SAFETY: the kernel writes one `seccomp_notif` to `question`.
    if unsafe { libc::ioctl(listener.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_RECV, &raw mut question) } != 0 {
        return;
    }
    let verdict = decide(kin, question.pid.cast_signed(), &question.data);
    let mut answer = libc::seccomp_notif_resp { id: question.id, val: 0, error: 0, flags: 0 };
    match verdict {
        // What it names is in registers, which nobody can change meanwhile.
        Ok(()) => answer.flags = libc::SECCOMP_USER_NOTIF_FLAG_CONTINUE as u32,
        Err(error) => answer.error = -error.raw_os_error(),
    }
    // Where the caller was killed meanwhile it fails, and nobody waits.
    // SAFETY: the kernel reads one `seccomp_notif_resp` from `answer`.
    unsafe { libc::ioctl(listener.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_SEND, &raw const answer) };
}

/// Whether the thread `caller` may make that call.
fn decide(kin: &Kin, caller: i32, call: &libc::seccomp_data) -> Result<(), Errno> {
    match seccomp::target(i64::from(call.nr), &call.args) {
        Target::Caller => Ok(()),
        Target::Process(pid) => kin.may_name(caller, pid),
        Target::Group(group) => kin.may_name_group(caller, group),
        Target::Anybody => Err(Errno::PERM),
    }
}

/// Of a release such as `6.1.0-56-amd64`.
fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|digit: char| !digit.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernels_are_told_apart_by_their_release() {
        assert_eq!(version("6.1.0-56-amd64"), Some((6, 1)));
        assert_eq!(version("5.10-rc1"), Some((5, 10)));
        assert!(version("5.9") >= Some(OLDEST) && version("5.8.99") < Some(OLDEST));
        assert_eq!(version("unknown"), None);
    }
}
