//! What the app prints and logs, as `log` frames of the call it belongs to.

use std::{
    cell::RefCell,
    io::{self, Write as _},
    sync::PoisonError,
};

use memchr::memchr;
use pyo3::{prelude::*, types::PyString};

use crate::{
    core::Core,
    ffi,
    frame::{BodyFormat, Header, Kind, MAX_LOG_BYTES},
    runners::{CallKey, Runner},
    task::Task,
};

/// Where lines go that belong to no call.
const NO_CALL: CallKey = CallKey { channel: 0, id: 0 };
/// Levels below this are streams whose text may come in parts of lines.
const STREAMS: usize = 2;

thread_local! {
    static LINES: RefCell<ThreadLines> = RefCell::default();
}

/// Lines that were begun and not ended, of stdout and stderr.
#[derive(Default)]
pub(crate) struct Lines([Vec<u8>; STREAMS]);

/// Those of a thread. A thread that ends leaves them as lines of no call.
#[derive(Default)]
struct ThreadLines(Lines);

impl Drop for ThreadLines {
    fn drop(&mut self) {
        if let (false, Some(core)) = (self.0.is_empty(), Core::get()) {
            self.0.end(core, NO_CALL);
            core.flush(NO_CALL.channel);
        }
    }
}

/// Takes text that was written to stdout (0) or stderr (1).
#[pyfunction]
pub(crate) fn write(py: Python<'_>, stream: usize, text: &Bound<'_, PyString>) {
    with_utf8(text, |text| match Core::get() {
        Some(core) => {
            let key = with_lines(py, core, |key, lines| {
                lines.add(stream.min(STREAMS - 1), text.as_bytes(), |level, line| push(core, key, level as u16, line));
                key
            });
            written(py, core, key);
        }
        None => write_to_fd(stream, text),
    });
}

/// Takes a record of a logging library, with its level.
#[pyfunction]
pub(crate) fn record(py: Python<'_>, level: u16, text: &Bound<'_, PyString>) {
    with_utf8(text, |text| match Core::get() {
        Some(core) => {
            let key = with_lines(py, core, |key, _| key);
            text.lines().for_each(|line| push(core, key, level.max(STREAMS as u16), line.as_bytes()));
            written(py, core, key);
        }
        None => write_to_fd(1, &format!("{text}\n")),
    });
}

/// A call on this thread, which is `runner`'s, is about to be answered: what it began is a line now.
#[inline]
pub(crate) fn end_call(core: &Core, runner: &Runner, key: CallKey) {
    if runner.has_written() {
        end(core, key);
    }
}

/// What this thread began is a line now.
#[cold]
pub(crate) fn end(core: &Core, key: CallKey) {
    LINES.with_borrow_mut(|lines| lines.0.end(core, key));
}

/// The same for a call on the event loop.
pub(crate) fn end_task(core: &Core, task: &Task) {
    task.lines.lock().unwrap_or_else(PoisonError::into_inner).end(core, task.call.key);
}

impl Lines {
    fn is_empty(&self) -> bool {
        self.0.iter().all(Vec::is_empty)
    }

    /// Passes each line that is complete to `push`, and keeps the rest.
    fn add(&mut self, stream: usize, mut text: &[u8], push: impl Fn(usize, &[u8])) {
        let begun = &mut self.0[stream];
        while let Some(end) = memchr(b'\n', text) {
            if begun.is_empty() {
                push(stream, &text[..end]);
            } else {
                begun.extend_from_slice(&text[..end]);
                push(stream, begun);
                begun.clear();
            }
            text = &text[end + 1..];
        }
        begun.extend_from_slice(text);
        // A flood without a newline: what exceeds a line goes at once.
        let mut start = 0;
        while begun.len() - start > MAX_LOG_BYTES {
            let length = cut(&begun[start..]);
            push(stream, &begun[start..start + length]);
            start += length;
        }
        begun.drain(..start);
    }

    fn end(&mut self, core: &Core, key: CallKey) {
        for (level, begun) in self.0.iter_mut().enumerate().filter(|(_, begun)| !begun.is_empty()) {
            push(core, key, level as u16, begun);
            begun.clear();
        }
    }
}

/// Adds a line, in parts if it is long.
fn push(core: &Core, key: CallKey, level: u16, mut line: &[u8]) {
    let header = Header::new(Kind::Log, key.id).format(BodyFormat::Text).aux(level);
    while line.len() > MAX_LOG_BYTES {
        let (part, rest) = line.split_at(cut(line));
        core.push(key.channel, header, &[], part);
        line = rest;
    }
    core.push(key.channel, header, &[], line);
}

/// Where to cut a line that is too long: not inside a character.
fn cut(line: &[u8]) -> usize {
    let inside = |index: &usize| line[*index] & 0b1100_0000 == 0b1000_0000;
    (1..=MAX_LOG_BYTES).rev().find(|index| !inside(index)).unwrap_or(MAX_LOG_BYTES)
}

/// Finds the call that the calling code belongs to, and its begun lines.
fn with_lines<T>(py: Python<'_>, core: &Core, code: impl FnOnce(CallKey, &mut Lines) -> T) -> T {
    let runner = Runner::current();
    let key = runner.and_then(|runner| runner.with_call(|call| call.key));
    if let (None, Some(task)) = (key, core.tasks.is_used().then(|| Task::current(py)).flatten()) {
        let task = task.get();
        return code(task.call.key, &mut task.lines.lock().unwrap_or_else(PoisonError::into_inner));
    }
    if let Some(runner) = runner {
        runner.note_written();
    }
    LINES.with_borrow_mut(|lines| code(key.unwrap_or(NO_CALL), &mut lines.0))
}

/// Lines go out at once, or at the end of the round if this thread leads; and a flood waits for the node.
fn written(py: Python<'_>, core: &Core, key: CallKey) {
    let crowded = core.channels[key.channel].is_crowded();
    if crowded || !Runner::current().is_some_and(|runner| runner.defers_output(core)) {
        core.flush(key.channel);
    }
    if crowded {
        core.wait_for_room(py, key.channel);
    }
}

/// A fork writes to the real stdout and stderr.
fn write_to_fd(stream: usize, text: &str) {
    // As when they are closed, what cannot be written is lost.
    let _ = match stream {
        0 => io::stdout().write_all(text.as_bytes()).and_then(|()| io::stdout().flush()),
        _ => io::stderr().write_all(text.as_bytes()),
    };
}

/// Lone surrogates become question marks, as with `errors="replace"`.
fn with_utf8(text: &Bound<'_, PyString>, code: impl FnOnce(&str)) {
    match ffi::utf8(text) {
        Some(text) => code(text),
        None => code(&text.to_string_lossy()),
    }
}
