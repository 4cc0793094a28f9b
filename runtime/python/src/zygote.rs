//! A process that has the app loaded and forks instances of it.

use std::{
    io::{self, IoSliceMut},
    mem::MaybeUninit,
    os::fd::{AsRawFd, OwnedFd},
    time::{Duration, Instant},
};

use pyo3::prelude::*;
use rustix::{
    event::{PollFd, PollFlags, poll},
    io::Errno,
    net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg},
    process::getppid,
};

use crate::{
    core::{Core, die, quit},
    encode::write_string,
    failure::Failure,
    fork::{Side, close, fork},
    frame::{self, BodyFormat, Decoded, Header, Kind},
    load::Loaded,
    parse::{Reader, Scratch},
    runners::CallKey,
};

/// The channel that descriptors come on.
const REQUESTS: usize = 1;
/// Descriptors that come with one frame at most.
const MAX_DESCRIPTORS: usize = 128;
/// A fork frame is at most so long; the longest path is 4 KiB.
const MAX_FRAME_BYTES: usize = 16 * 1024;
/// What the node gets to read an answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// Forks instances until the node is gone. Returns in each instance, which then has channels of its own.
///
/// An app that cannot be forked makes this process itself the instance, at the first request.
pub(crate) fn serve(py: Python<'_>, core: &'static Core, loaded: &Loaded) -> &'static Core {
    let node = getppid();
    let reason = loaded.before.reason(py);
    if reason.is_none()
        && let Err(error) = py.import("fnmesh._load").and_then(|load| load.call_method0("freeze"))
    {
        // Each instance has a little more memory of its own.
        error.write_unraisable(py, None);
    }
    core.push(0, Header::new(Kind::Ready, 0), &[], &[]);
    core.drain(py, Instant::now() + PATIENCE);
    loop {
        let (descriptors, body) = request(core);
        if let Some(reason) = &reason {
            let mut text = Vec::new();
            write_string(reason, &mut text);
            answer(py, core, "reason", &text);
            return become_instance(core, descriptors);
        }
        match fork(py, node) {
            Ok(Side::Zygote(pid)) => answer(py, core, "pid", pid.to_string().as_bytes()),
            Ok(Side::Instance) => {
                let instance = become_instance(core, descriptors);
                thaw(py, &body);
                return instance;
            }
            Err(error) => {
                Failure::internal(&format!("cannot fork: {error}")).push(core, CallKey { channel: 0, id: 0 });
                core.drain(py, Instant::now() + PATIENCE);
            }
        }
    }
}

fn thaw(py: Python<'_>, body: &[u8]) {
    let thawed = match Reader::new(py, body, &mut Scratch::default()).document() {
        Ok(born) => py.import("fnmesh._load").and_then(|load| load.call_method1("thaw", (born,))),
        Err(refused) => die(&format!("the fork frame is {}", refused.describe(body))),
    };
    if let Err(error) = thawed {
        error.write_unraisable(py, None);
    }
}

/// Tells the node of the instance that was asked for.
fn answer(py: Python<'_>, core: &Core, name: &str, value: &[u8]) {
    let body = [b"{\"", name.as_bytes(), b"\":", value, b"}"].concat();
    core.push(0, Header::new(Kind::Forked, 0).format(BodyFormat::Json), &[], &body);
    core.drain(py, Instant::now() + PATIENCE);
}

/// Takes the descriptors as stdout, stderr and channels, in this order, in place of those the zygote has.
fn become_instance(core: &'static Core, descriptors: Vec<OwnedFd>) -> &'static Core {
    let mut descriptors = descriptors.into_iter();
    for number in [libc::STDOUT_FILENO, libc::STDERR_FILENO] {
        // SAFETY: both are open; who writes to the number means the stream that is there by then.
        let taken = descriptors.next().map(|stream| unsafe { libc::dup2(stream.as_raw_fd(), number) });
        if taken != Some(number) {
            die("cannot take over stdout and stderr");
        }
    }
    for channel in &core.channels {
        close(&channel.socket());
    }
    Core::install(descriptors.collect())
}

/// Waits for the descriptors of an instance and what else is to be known of it. Ends the process when the node has no more use for it.
fn request(core: &'static Core) -> (Vec<OwnedFd>, Vec<u8>) {
    let mut descriptors = Vec::new();
    let mut bytes = Vec::new();
    loop {
        let mut polls =
            [0, REQUESTS].map(|channel| PollFd::from_borrowed_fd(core.channels[channel].socket(), PollFlags::IN));
        // When interrupted, nothing is ready.
        let _ = poll(&mut polls, None);
        // The node is gone, or says `stop`: there is nothing else it could say.
        if !polls[0].revents().is_empty() {
            quit(0);
        }
        if polls[1].revents().is_empty() {
            continue;
        }
        match receive(core, &mut bytes, &mut descriptors) {
            Ok(0) => quit(0),
            Ok(_) | Err(Errno::INTR | Errno::AGAIN) => {}
            Err(error) => die(&format!("cannot receive descriptors: {}", io::Error::from(error))),
        }
        while let Some((more, body)) = next_frame(&mut bytes) {
            if more == 0 {
                return (descriptors, body);
            }
        }
    }
}

fn receive(core: &Core, bytes: &mut Vec<u8>, descriptors: &mut Vec<OwnedFd>) -> rustix::io::Result<usize> {
    let mut buffer = [0; MAX_FRAME_BYTES];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let socket = core.channels[REQUESTS].socket();
    let received = recvmsg(socket, &mut [IoSliceMut::new(&mut buffer)], &mut control, RecvFlags::CMSG_CLOEXEC)?;
    bytes.extend_from_slice(&buffer[..received.bytes]);
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(received) = message {
            descriptors.extend(received);
        }
    }
    Ok(received.bytes)
}

/// Takes a `fork` frame off `bytes`: how many frames with more descriptors belong to the same instance, and its body.
fn next_frame(bytes: &mut Vec<u8>) -> Option<(u16, Vec<u8>)> {
    match frame::decode(bytes, MAX_FRAME_BYTES) {
        Ok(Decoded::Frame(frame)) if frame.header.kind == Kind::Fork => {
            let (more, body, length) = (frame.header.aux, frame.body.to_vec(), frame.len());
            bytes.drain(..length);
            Some((more, body))
        }
        Ok(Decoded::Incomplete(_)) => None,
        Ok(Decoded::Frame(frame)) => die(&format!("a {:?} frame out of place in a zygote", frame.header.kind)),
        Err(error) => die(&error.to_string()),
    }
}
