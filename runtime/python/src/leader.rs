//! The leader's loop: reads all channels, runs calls inline, writes their answers in one go.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    time::Instant,
};

use pyo3::prelude::*;
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
};

use crate::{
    call::{self, Workspace},
    core::{Core, Tracked, die, quit},
    frame::{Header, Kind},
    package,
    runners::{CallKey, Runner},
    stop,
};

/// Leads until leadership is passed on or taken, and the call that was the reason is answered.
pub(crate) fn lead<'py>(py: Python<'py>, core: &'static Core, runner: &'static Runner, workspace: &mut Workspace<'py>) {
    core.baton.work(py);
    let mut round = Round::new(core);
    loop {
        for channel in 0..core.channels.len() {
            if !serve(py, core, runner, workspace, channel, &mut round) {
                return;
            }
        }
        // SAFETY: this thread leads.
        unsafe { core.flush_round() };
        read(py, core);
        round = Round::new(core);
    }
}

/// When what is being served was read.
pub(crate) struct Round {
    looks: u64,
    received: Instant,
}

impl Round {
    pub(crate) fn new(core: &Core) -> Self {
        Self { looks: core.monitor.looks(), received: Instant::now() }
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
    loop {
        // SAFETY: this thread leads, and the reference is not used once a call has ended that.
        let input = unsafe { from.input() };
        let frame = match input.frame() {
            Ok(Some(frame)) => frame,
            Ok(None) => return true,
            Err(error) => die(&error.to_string()),
        };
        if frame.header.kind == Kind::Invoke {
            let key = CallKey { channel, id: frame.header.id };
            if !call::serve(py, core, app, runner, workspace, from, key, frame, round.received) {
                return false;
            }
        } else {
            let (header, length) = (frame.header, frame.len());
            input.consume(length);
            control(py, core, channel, header);
        }
        // Answers of a long round do not wait for its end.
        if core.monitor.looks() != round.looks {
            // SAFETY: this thread leads.
            unsafe { core.flush_round() };
            *round = Round::new(core);
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

/// Reads once from each channel that has something, waiting without the GIL if none has.
fn read(py: Python<'_>, core: &'static Core) {
    let mut polls = Vec::with_capacity(core.channels.len());
    // SAFETY: this thread leads, and the references end with this statement.
    let open = core.channels.iter().filter(|channel| unsafe { channel.input() }.open);
    let open = open
        .inspect(|channel| polls.push(PollFd::from_borrowed_fd(channel.socket(), PollFlags::IN)))
        .collect::<Vec<_>>();
    wait(py, core, &mut polls);
    for (channel, _) in open.into_iter().zip(&polls).filter(|(_, poll)| !poll.revents().is_empty()) {
        // SAFETY: as above.
        let input = unsafe { channel.input() };
        match input.fill(channel.socket()) {
            Ok(true) => {}
            Ok(false) | Err(_) if std::ptr::eq(channel, &core.channels[0]) => quit(0),
            Ok(false) | Err(_) => input.open = false,
        }
    }
}

fn wait(py: Python<'_>, core: &Core, polls: &mut [PollFd<'_>]) {
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    if poll(polls, Some(&now)).is_ok_and(|ready| ready > 0) {
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
