//! The leader's loop: reads all channels, runs calls inline, writes their answers in one go.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::atomic::Ordering,
    time::Instant,
};

use pyo3::prelude::*;
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
};

use crate::{
    call::{self, Workspace},
    channel::{Channel, Input},
    core::{Core, Tracked, die, quit},
    failure::Failure,
    frame::{Header, Kind},
    package,
    runners::{CallKey, Runner},
    stop,
};

/// What is read of a channel while calls that were read before wait.
const AHEAD_BYTES: usize = 1024 * 1024;

/// Leads until leadership is passed on or taken, and the call that was the reason is answered.
pub(crate) fn lead<'py>(py: Python<'py>, core: &'static Core, runner: &'static Runner, workspace: &mut Workspace<'py>) {
    core.baton.work(py);
    core.monitor.follow();
    let mut round = Round::new(core);
    // Calls may have waited for this thread.
    // SAFETY: this thread leads, and nothing is borrowed.
    unsafe { round.renew(core) };
    let count = core.channels.len();
    loop {
        // Leadership may change with each call: a new leader goes on where the last one was.
        let first = core.served.load(Ordering::Relaxed) + 1;
        for channel in (first..first + count).map(|channel| channel % count) {
            core.served.store(channel, Ordering::Relaxed);
            if !serve(py, core, runner, workspace, channel, &mut round) {
                return;
            }
        }
        // SAFETY: this thread leads.
        unsafe { core.flush_round() };
        // What was read meanwhile waits still.
        read(py, core, !round.is_late);
        round = Round::new(core);
    }
}

/// When what is being served was read.
pub(crate) struct Round {
    looks: u64,
    received: Instant,
    /// Calls wait for others of this round: who made them may not want them any more.
    is_late: bool,
}

impl Round {
    pub(crate) fn new(core: &Core) -> Self {
        Self { looks: core.monitor.looks(), received: Instant::now(), is_late: false }
    }

    /// Goes on with a round that takes its time.
    ///
    /// # Safety
    /// The caller owns leadership, and nothing that was read is borrowed.
    unsafe fn renew(&mut self, core: &Core) {
        // Answers do not wait for its end.
        // SAFETY: by the contract above.
        unsafe { core.flush_round() };
        // Nor do cancellations, which lie behind other calls.
        for channel in &core.channels {
            // SAFETY: as above, and the reference ends with this statement.
            let input = unsafe { channel.input() };
            if input.open && input.unused() < AHEAD_BYTES {
                fill(core, channel, input);
            }
        }
        *self = Self { is_late: true, ..Self::new(core) };
    }
}

/// Serves the frames that are complete. False if the thread leads no more.
pub(crate) fn serve<'py>(
    py: Python<'py>,
    core: &'static Core,
    runner: &'static Runner,
    workspace: &mut Workspace<'py>,
    channel: usize,
    round: &mut Round,
) -> bool {
    loop {
        // One guard for all calls of a round: what a panic leaves behind is only the workspace, which each call clears
        // before it uses it.
        let served = catch_unwind(AssertUnwindSafe(|| serve_all(py, core, runner, workspace, channel, round)));
        match served {
            Ok(leads) => return leads,
            // It never reaches the interpreter.
            Err(_) if call::recover(py, core, runner, workspace) => {}
            Err(_) => return false,
        }
    }
}

fn serve_all<'py>(
    py: Python<'py>,
    core: &'static Core,
    runner: &'static Runner,
    workspace: &mut Workspace<'py>,
    channel: usize,
    round: &mut Round,
) -> bool {
    let from = &core.channels[channel];
    let app = core.app().unwrap_or_else(|| die("a call before the app is loaded"));
    // What is read meanwhile waits until the other channels have had their turn.
    // SAFETY: this thread leads, and the reference ends with this statement.
    let mut left = unsafe { from.input() }.unused();
    loop {
        // SAFETY: this thread leads, and the reference is not used once a call has ended that.
        let input = unsafe { from.input() };
        let frame = match input.frame() {
            Ok(Some(frame)) if frame.len() <= left => frame,
            Ok(_) => return true,
            Err(error) => die(&error.to_string()),
        };
        left -= frame.len();
        if frame.header.kind == Kind::Invoke {
            let key = CallKey { channel, id: frame.header.id };
            if round.is_late && input.cancels(key.id) {
                let length = frame.len();
                input.consume(length);
                Failure::cancelled().push(core, key);
                continue;
            }
            if !call::serve(py, core, app, runner, workspace, from, key, frame, round.received) {
                return false;
            }
        } else {
            let (header, length) = (frame.header, frame.len());
            input.consume(length);
            control(py, core, channel, header);
        }
        if core.monitor.looks() != round.looks {
            // SAFETY: this thread leads, and the frame is not used any more.
            unsafe { round.renew(core) };
        }
    }
}

fn control(py: Python<'_>, core: &'static Core, channel: usize, header: Header) {
    let key = CallKey { channel, id: header.id };
    match header.kind {
        Kind::Cancel => cancel(py, core, key),
        Kind::Credit => credit(py, core, key, header.aux),
        Kind::Ping => core.push(channel, Header::new(Kind::Pong, header.id), &[], &[]),
        Kind::Stop if channel == 0 => {
            // SAFETY: this thread leads.
            unsafe { core.flush_round() };
            stop::stop(py, core)
        }
        Kind::Pong => {}
        kind => die(&format!("a {kind:?} frame out of place on channel {channel}")),
    }
}

/// A call that is not known has been answered already.
fn cancel(py: Python<'_>, core: &Core, key: CallKey) {
    // Looked up and let go first: what follows may run user code.
    let task = match core.tracked().get(&key) {
        Some(Tracked::Task(task)) => Some(task.clone_ref(py)),
        Some(Tracked::Stream(credit)) => {
            credit.cancel();
            None
        }
        None => None,
    };
    if let Some(task) = task {
        task.get().cancel(task.bind(py));
    } else if let Ok(exception) = package::cancelled(py) {
        core.runners.interrupt(exception, key);
    }
}

fn credit(py: Python<'_>, core: &Core, key: CallKey, chunks: u16) {
    let task = match core.tracked().get(&key) {
        Some(Tracked::Task(task)) => Some(task.clone_ref(py)),
        Some(Tracked::Stream(credit)) => {
            credit.add(chunks);
            None
        }
        None => None,
    };
    if let Some(task) = task {
        task.get().add_credit(task.bind(py), chunks);
    }
}

/// Reads once from each channel that has something. If none has, and it may, it waits without the GIL.
fn read(py: Python<'_>, core: &'static Core, may_wait: bool) {
    let mut polls = Vec::with_capacity(core.channels.len());
    // SAFETY: this thread leads, and the references end with this statement.
    let open = core.channels.iter().filter(|channel| unsafe { channel.input() }.open);
    let open = open
        .inspect(|channel| polls.push(PollFd::from_borrowed_fd(channel.socket(), PollFlags::IN)))
        .collect::<Vec<_>>();
    wait(py, core, &mut polls, may_wait);
    for (channel, _) in open.into_iter().zip(&polls).filter(|(_, poll)| !poll.revents().is_empty()) {
        // SAFETY: as above.
        fill(core, channel, unsafe { channel.input() });
    }
}

/// Reads once, without waiting.
fn fill(core: &Core, channel: &Channel, input: &mut Input) {
    match input.fill(channel.socket()) {
        Ok(true) => {}
        Ok(false) | Err(_) if std::ptr::eq(channel, &core.channels[0]) => quit(0),
        Ok(false) | Err(_) => input.open = false,
    }
}

fn wait(py: Python<'_>, core: &Core, polls: &mut [PollFd<'_>], may_wait: bool) {
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    if poll(polls, Some(&now)).is_ok_and(|ready| ready > 0) || !may_wait {
        return;
    }
    core.baton.wait(py);
    let ready = py.detach(|| poll(polls, None));
    core.baton.work(py);
    core.monitor.wake();
    if ready == Err(Errno::INTR) {
        // Only the main thread gets this: a signal for which the app has set a handler.
        if let Err(error) = py.check_signals() {
            error.write_unraisable(py, None);
        }
        polls.iter_mut().for_each(PollFd::clear_revents);
    }
}
