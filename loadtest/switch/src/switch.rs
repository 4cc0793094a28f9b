//! A running switch.

use std::{
    io,
    num::NonZeroU64,
    os::fd::{AsFd, OwnedFd},
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread::{self, JoinHandle},
    time::Instant,
};

use rustix::{
    event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll},
    io::{Errno, read, write},
    thread::set_current_timer_slack,
};

use crate::{
    Condition, Counts, Direction, Way,
    fabric::{Fabric, Frame},
    tap,
};

/// Frames that are read from one device before the others and what is due have their turn.
const BATCH: usize = 64;
/// More than any frame has, in bytes.
const FRAME_BYTES: usize = 64 * 1024;

/// A running switch. Stops, and its hosts lose their devices, when dropped.
pub struct Switch {
    fabric: Arc<Mutex<Fabric>>,
    /// Written to when it has to stop.
    stop: Arc<OwnedFd>,
    thread: Option<JoinHandle<()>>,
}

impl Switch {
    /// A switch of hosts, each of which is a network namespace, given as a file such as `/run/netns/a`. Each gets a
    /// device [`DEVICE`](crate::DEVICE), which has no address and is down. Ways do nothing to frames yet, and throw
    /// dice that depend on `seed` alone.
    ///
    /// # Errors
    /// When a device cannot be made.
    pub fn start<P: AsRef<Path>>(namespaces: &[P], seed: u64) -> io::Result<Self> {
        let taps = namespaces.iter().map(|path| tap::make(path.as_ref())).collect::<io::Result<Vec<_>>>()?;
        let fabric = Arc::new(Mutex::new(Fabric::new(taps.len(), seed)));
        let stop = Arc::new(eventfd(0, EventfdFlags::CLOEXEC)?);
        let run = {
            let (fabric, stop) = (Arc::clone(&fabric), Arc::clone(&stop));
            move || carry(&taps, &stop, &fabric).expect("devices that are open can be watched")
        };
        let thread = Some(thread::Builder::new().name("switch".to_owned()).spawn(run)?);
        Ok(Self { fabric, stop, thread })
    }

    /// Does this to frames on one way of the host of this number, from now on. Its dice are as at the beginning.
    ///
    /// # Panics
    /// If there is no such host.
    pub fn set(&self, host: usize, direction: Direction, condition: Condition) {
        lock(&self.fabric).way(host, direction).set(condition);
    }

    /// Cuts a host off, or lets it take part again.
    ///
    /// # Panics
    /// If there is no such host.
    pub fn cut(&self, host: usize, cut: bool) {
        let mut fabric = lock(&self.fabric);
        for direction in [Direction::From, Direction::To] {
            let way = fabric.way(host, direction);
            way.set(Condition { cut, ..way.condition() });
        }
    }

    /// A way of a host as it is now, with dice of its own.
    ///
    /// # Panics
    /// If there is no such host.
    pub fn way(&self, host: usize, direction: Direction) -> Way {
        lock(&self.fabric).way(host, direction).clone()
    }

    /// What has become of frames.
    pub fn counts(&self) -> Counts {
        lock(&self.fabric).counts()
    }
}

impl Drop for Switch {
    fn drop(&mut self) {
        let woken = write(&self.stop, &1_u64.to_ne_bytes());
        debug_assert_eq!(woken, Ok(8));
        // A panic there has been printed.
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

/// Carries frames until there is something to read from `stop`.
fn carry(taps: &[OwnedFd], stop: &OwnedFd, fabric: &Mutex<Fabric>) -> rustix::io::Result<()> {
    // Without this the kernel wakes sleepers up to 50 µs late.
    set_current_timer_slack(NonZeroU64::new(1))?;
    let mut watched: Vec<_> = taps
        .iter()
        .map(AsFd::as_fd)
        .chain([stop.as_fd()])
        .map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN))
        .collect();
    let mut buffer = vec![0; FRAME_BYTES];
    loop {
        let due = deliver(taps, &mut lock(fabric));
        let left = due.map(|due| due.saturating_duration_since(Instant::now()));
        let left = left.and_then(|left| Timespec::try_from(left).ok());
        match poll(&mut watched, left.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error),
        }
        if watched.last().is_some_and(|stop| !stop.revents().is_empty()) {
            return Ok(());
        }
        for (port, tap) in taps.iter().enumerate() {
            if watched[port].revents().contains(PollFlags::IN) {
                receive(port, tap, &mut buffer, fabric);
            }
        }
    }
}

/// Takes what a host has sent.
fn receive(port: usize, tap: &OwnedFd, buffer: &mut [u8], fabric: &Mutex<Fabric>) {
    for _ in 0..BATCH {
        // It fails when there is no more, and when the namespace has gone.
        let Ok(length) = read(tap, &mut *buffer) else { return };
        let frame = Frame::from(&buffer[..length]);
        lock(fabric).enter(port, frame, Instant::now());
    }
}

/// Hands over what is due; says when to do so again.
fn deliver(taps: &[OwnedFd], fabric: &mut Fabric) -> Option<Instant> {
    while let Some(delivery) = fabric.next(Instant::now()) {
        // It fails where the device is down.
        let is_taken = write(&taps[delivery.port], &delivery.frame).is_ok();
        fabric.ended(&delivery, is_taken, Instant::now());
    }
    fabric.due()
}

fn lock(fabric: &Mutex<Fabric>) -> MutexGuard<'_, Fabric> {
    fabric.lock().unwrap_or_else(PoisonError::into_inner)
}
