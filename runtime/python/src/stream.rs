//! Generators: their items as chunks, as fast as the caller takes them.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use pyo3::{intern, prelude::*, types::PyIterator};

use crate::{
    call::Workspace,
    core::{Core, Tracked, leave_if_forked},
    failure::Failure,
    frame::{BodyFormat, Header, INITIAL_CREDIT, Kind},
    logs,
    reply::Content,
    runners::{CallKey, Runner},
};

/// How many chunks a stream may still send.
pub(crate) struct Credit {
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    chunks: u32,
    cancelled: bool,
}

impl Default for Credit {
    fn default() -> Self {
        let state = State { chunks: INITIAL_CREDIT.into(), cancelled: false };
        Self { state: Mutex::new(state), changed: Condvar::new() }
    }
}

impl Credit {
    /// The caller takes so many more.
    pub(crate) fn add(&self, chunks: u16) {
        let mut state = self.state();
        state.chunks = state.chunks.saturating_add(chunks.into());
        self.changed.notify_all();
    }

    /// The caller takes no more.
    pub(crate) fn cancel(&self) {
        self.state().cancelled = true;
        self.changed.notify_all();
    }

    /// Spends one chunk if there is one.
    pub(crate) fn try_spend(&self) -> bool {
        let mut state = self.state();
        let has = state.chunks > 0;
        state.chunks -= u32::from(has);
        has
    }

    /// Spends one chunk, waiting for it without the GIL. False once cancelled.
    fn spend(&self, py: Python<'_>) -> bool {
        if self.is_cancelled() {
            return false;
        }
        self.try_spend()
            || py.detach(|| {
                let waits = |state: &mut State| state.chunks == 0 && !state.cancelled;
                let mut state = self.changed.wait_while(self.state(), waits).unwrap_or_else(PoisonError::into_inner);
                if !state.cancelled {
                    state.chunks -= 1;
                }
                !state.cancelled
            })
    }

    fn is_cancelled(&self) -> bool {
        self.state().cancelled
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Sends what `items` yields, and the end. The thread must not lead: it waits for credit.
pub(crate) fn run<'py>(
    py: Python<'py>,
    core: &Core,
    runner: &Runner,
    workspace: &mut Workspace<'py>,
    key: CallKey,
    head: &[u8],
    items: &Bound<'py, PyIterator>,
) {
    let credit = Arc::new(Credit::default());
    core.tracked().insert(key, Tracked::Stream(credit.clone()));
    if !head.is_empty() {
        credit.try_spend();
        push_head(core, key, head);
        core.flush(key.channel);
    }
    let end = send(py, core, runner, workspace, key, items, &credit);
    core.tracked().remove(&key);
    if end.is_err() {
        close(items);
        leave_if_forked(py);
    }
    logs::end_call(core, runner, key);
    match end {
        Ok(()) => core.push(key.channel, Header::new(Kind::Result, key.id), &[], &[]),
        Err(failure) => failure.push(core, key),
    }
}

/// Adds the chunk that carries nothing but the response head.
pub(crate) fn push_head(core: &Core, key: CallKey, head: &[u8]) {
    core.push(key.channel, Header::new(Kind::Chunk, key.id).format(BodyFormat::Bytes), head, &[]);
}

fn send<'py>(
    py: Python<'py>,
    core: &Core,
    runner: &Runner,
    workspace: &mut Workspace<'py>,
    key: CallKey,
    items: &Bound<'py, PyIterator>,
    credit: &Credit,
) -> Result<(), Failure> {
    loop {
        let (item, interrupted) = runner.interruptible(py, key, || items.clone().next());
        leave_if_forked(py);
        if interrupted || credit.is_cancelled() {
            return Err(Failure::cancelled());
        }
        let Some(item) = item else { return Ok(()) };
        let item = item.map_err(|error| Failure::raised(py, error))?;
        let chunk = Content::item(item, core.max_reply_bytes(), &mut workspace.buffer)?;
        if !credit.spend(py) {
            return Err(Failure::cancelled());
        }
        chunk.push_chunk(core, key, &workspace.buffer);
        core.flush(key.channel);
    }
}

/// Lets a generator that did not end run its `finally` blocks.
fn close(items: &Bound<'_, PyIterator>) {
    let py = items.py();
    let closed = match items.getattr_opt(intern!(py, "close")) {
        Ok(Some(close)) => close.call0().map(drop),
        Ok(None) => Ok(()),
        Err(error) => Err(error),
    };
    if let Err(error) = closed {
        error.write_unraisable(py, Some(items.as_any()));
    }
}
