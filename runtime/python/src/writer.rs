//! The thread that writes what a full socket did not take, so that no thread with the GIL ever waits for the node.

use std::{
    io,
    os::fd::OwnedFd,
    sync::{Mutex, MutexGuard, OnceLock, PoisonError},
    thread,
};

use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};

use crate::{channel::Flushed, core::Core};

/// Its mailbox: the channels that are stuck.
#[derive(Default)]
pub(crate) struct Writer {
    stuck: Mutex<Vec<usize>>,
    /// There once it is started.
    wake: OnceLock<OwnedFd>,
}

impl Writer {
    /// Starts the thread.
    pub(crate) fn start(&self, core: &'static Core) -> io::Result<()> {
        let wake = eventfd(0, EventfdFlags::CLOEXEC)?;
        let wake = core.writer.wake.get_or_init(|| wake);
        thread::Builder::new().name("fnmesh-writer".into()).spawn(move || core.writer.run(core, wake)).map(drop)
    }

    /// Whether there is a thread.
    pub(crate) fn is_started(&self) -> bool {
        self.wake.get().is_some()
    }

    /// Takes over a channel whose socket is full.
    pub(crate) fn watch(&self, channel: usize) {
        self.stuck().push(channel);
        // A counter at its maximum would refuse; then the thread has been woken anyway.
        let _ = self.wake.get().map(|wake| rustix::io::write(wake, &1u64.to_ne_bytes()));
    }

    fn run(&self, core: &Core, wake: &OwnedFd) {
        loop {
            let stuck = self.stuck().clone();
            let mut polls = vec![PollFd::new(wake, PollFlags::IN)];
            polls.extend(
                stuck.iter().map(|&channel| PollFd::from_borrowed_fd(core.channels[channel].socket(), PollFlags::OUT)),
            );
            // An interrupted poll leaves no events behind: the loop just looks again.
            let _ = poll(&mut polls, None);
            if !polls[0].revents().is_empty() {
                let _ = rustix::io::read(wake, &mut [0; 8]);
            }
            for (&channel, _) in stuck.iter().zip(&polls[1..]).filter(|(_, poll)| !poll.revents().is_empty()) {
                // Taken off the list first: once the channel is no longer stuck, another thread may put it there again.
                self.stuck().retain(|&other| other != channel);
                if core.channels[channel].resume() == Flushed::Stuck {
                    self.stuck().push(channel);
                }
            }
        }
    }

    fn stuck(&self) -> MutexGuard<'_, Vec<usize>> {
        self.stuck.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
