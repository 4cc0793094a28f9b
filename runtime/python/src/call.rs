//! One call, from its frame to its answer.

use std::{
    cell::Cell,
    panic::{AssertUnwindSafe, catch_unwind},
    ptr,
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use pyo3::{prelude::*, types::PyDict};

use crate::{
    arguments::Arguments,
    core::{Core, die, leave_if_forked},
    failure::Failure,
    frame::{BodyFormat, Frame, INVOKE_META_BYTES},
    function::Function,
    keys::Keys,
    logs,
    monitor::LOOK,
    package,
    parse::Reader,
    reply::{Content, Reply},
    runners::{CallKey, Runner},
    stream, task,
};

/// Bodies above this are read like user code is run: others need not wait for it.
const LARGE_BODY_BYTES: usize = 64 * 1024;

thread_local! {
    static CURRENT: Cell<*const Call> = const { Cell::new(ptr::null()) };
}

/// A call and what its function may know of it.
pub(crate) struct Call {
    pub(crate) key: CallKey,
    pub(crate) index: u16,
    pub(crate) function: &'static Function,
    invocation: [u8; 16],
    budget: Duration,
    received: Instant,
    /// The rest of the meta, JSON or empty.
    extra: Vec<u8>,
}

/// What a thread keeps from call to call for its allocations.
#[derive(Default)]
pub(crate) struct Workspace<'py> {
    arguments: Arguments<'py>,
    keys: Keys,
    pub(crate) buffer: Vec<u8>,
}

/// A call that was read, before it runs.
pub(crate) enum Prepared {
    /// Its arguments are bound.
    Bound(Call),
    /// Its body is still to be read.
    Unread(Call, BodyFormat, Vec<u8>),
    Refused(CallKey, Failure),
}

impl Call {
    /// The 32 hexadecimal digits of the invocation id.
    pub(crate) fn invocation_id(&self) -> String {
        format!("{:032x}", u128::from_be_bytes(self.invocation))
    }

    /// Until the deadline.
    pub(crate) fn remaining(&self) -> Duration {
        self.budget.saturating_sub(self.received.elapsed())
    }

    /// A member of the meta's JSON part.
    pub(crate) fn extra<'py>(&self, py: Python<'py>, member: &str) -> Option<Bound<'py, PyAny>> {
        if self.extra.is_empty() {
            return None;
        }
        let extra = Reader::new(py, &self.extra, &mut Keys::default()).document().ok()?;
        extra.cast::<PyDict>().ok()?.get_item(member).ok()?
    }

    /// Makes this the calling thread's call while `code` runs.
    pub(crate) fn scope<T>(&self, code: impl FnOnce() -> T) -> T {
        struct Leave;
        impl Drop for Leave {
            fn drop(&mut self) {
                CURRENT.set(ptr::null());
            }
        }
        CURRENT.set(self);
        let _leave = Leave;
        code()
    }

    /// The calling thread's call.
    pub(crate) fn with_current<T>(code: impl FnOnce(&Self) -> T) -> Option<T> {
        // SAFETY: the pointer is set by `scope` only, which borrows the call for as long.
        unsafe { CURRENT.get().as_ref() }.map(code)
    }
}

/// Reads an `invoke` frame.
pub(crate) fn prepare<'py>(
    py: Python<'py>,
    core: &'static Core,
    workspace: &mut Workspace<'py>,
    channel: usize,
    frame: &Frame<'_>,
    received: Instant,
) -> Prepared {
    let key = CallKey { channel, id: frame.header.id };
    let Some((fixed, extra)) = frame.meta.split_first_chunk::<INVOKE_META_BYTES>() else {
        die("an invoke frame without invocation id and budget");
    };
    let [invocation @ .., b0, b1, b2, b3] = *fixed;
    let index = frame.header.aux;
    let Some(function) = core.function(index.into()) else {
        return Prepared::Refused(key, Failure::unknown_function(index));
    };
    let budget = Duration::from_millis(u32::from_le_bytes([b0, b1, b2, b3]).into());
    let call = Call { key, index, function, invocation, budget, received, extra: extra.to_vec() };
    if frame.body.len() > LARGE_BODY_BYTES {
        return Prepared::Unread(call, frame.header.format, frame.body.to_vec());
    }
    match guarded(|| bind(py, workspace, &call, frame.header.format, frame.body)) {
        Ok(()) => Prepared::Bound(call),
        Err(failure) => Prepared::Refused(key, failure),
    }
}

/// Runs a call and answers it. False if the thread leads no more.
pub(crate) fn run<'py>(
    py: Python<'py>,
    core: &'static Core,
    runner: &'static Runner,
    workspace: &mut Workspace<'py>,
    prepared: Prepared,
) -> bool {
    let (call, unread) = match prepared {
        Prepared::Bound(call) => (call, None),
        Prepared::Unread(call, format, body) => (call, Some((format, body))),
        Prepared::Refused(key, failure) => {
            failure.push(core, key);
            return true;
        }
    };
    let handed_over = call.function.is_slow() && hand_over(core);
    let (result, leads) = if handed_over {
        let started = Instant::now();
        let result = call.scope(|| guarded(|| execute(py, core, runner, workspace, &call, unread)));
        if started.elapsed() < LOOK {
            call.function.note_fast()
        } else {
            call.function.note_slow()
        }
        (result, false)
    } else {
        core.calling.store(call.index.into(), Ordering::Relaxed);
        let entered = core.baton.enter();
        runner.set_entered(Some(entered));
        let result = call.scope(|| guarded(|| execute(py, core, runner, workspace, &call, unread)));
        runner.set_entered(None);
        (result, core.baton.leave(entered))
    };
    answer(py, core, runner, workspace, call, result, leads)
}

/// Sends the answer, or lets the call go on. False if the thread leads no more.
fn answer<'py>(
    py: Python<'py>,
    core: &'static Core,
    runner: &'static Runner,
    workspace: &mut Workspace<'py>,
    call: Call,
    result: Result<Reply<'py>, Failure>,
    mut leads: bool,
) -> bool {
    let key = call.key;
    match result {
        Ok(Reply { head, content: Content::Items(items) }) => {
            if leads && !hand_over(core) {
                logs::end_call(core, key);
                Failure::internal("no thread can be started to stream the answer").push(core, key);
                return true;
            }
            leads = false;
            call.scope(|| stream::run(py, core, runner, workspace, key, &head, &items));
        }
        Ok(Reply { head, content: Content::Awaits(work) }) => {
            logs::end_call(core, key);
            task::start(py, core, call, &head, work);
        }
        Ok(reply) => {
            logs::end_call(core, key);
            reply.push(core, key, &workspace.buffer);
        }
        Err(failure) => {
            logs::end_call(core, key);
            failure.push(core, key);
        }
    }
    workspace.shrink();
    if !leads {
        core.flush(key.channel);
    }
    leads
}

fn execute<'py>(
    py: Python<'py>,
    core: &Core,
    runner: &Runner,
    workspace: &mut Workspace<'py>,
    call: &Call,
    unread: Option<(BodyFormat, Vec<u8>)>,
) -> Result<Reply<'py>, Failure> {
    let (result, cancelled) = runner.interruptible(py, call.key, || {
        if let Some((format, body)) = unread {
            bind(py, workspace, call, format, &body)?;
        }
        Ok(workspace.arguments.call(call.function.shape.callable.bind(py)))
    });
    leave_if_forked(py);
    if cancelled {
        return Err(Failure::cancelled());
    }
    let value = result?.map_err(|error| Failure::raised(py, error))?;
    let reply = Reply::new(value, core.max_reply_bytes(), &mut workspace.buffer);
    leave_if_forked(py);
    reply
}

fn bind<'py>(
    py: Python<'py>,
    workspace: &mut Workspace<'py>,
    call: &Call,
    format: BodyFormat,
    body: &[u8],
) -> Result<(), Failure> {
    let function = &call.function.shape;
    let Some(parameter) = function.request else {
        return workspace.arguments.bind(py, function, format, body, &mut workspace.keys);
    };
    let Some(head) = call.extra(py, "request") else {
        let what = "takes the HTTP request: call it over HTTP, at its own URL";
        return Err(Failure::invalid(format!("{}: {what}", function.signature)));
    };
    let request = package::request(py).and_then(|request| request.call1((head, body)));
    workspace.arguments.bind_request(function, parameter, request.map_err(|error| Failure::raised(py, error))?)
}

/// Makes another thread the leader. False if none can be had.
fn hand_over(core: &'static Core) -> bool {
    let Some(next) = core.runners.reserve(core) else { return false };
    core.baton.release();
    next.appoint();
    true
}

/// A panic of the worker fails this call alone, and never reaches the interpreter.
fn guarded<T>(code: impl FnOnce() -> Result<T, Failure>) -> Result<T, Failure> {
    // What a panic leaves behind is only the workspace, which each call clears before it uses it.
    catch_unwind(AssertUnwindSafe(code)).unwrap_or_else(|_| Err(Failure::internal("the worker panicked; see its log")))
}

impl Workspace<'_> {
    /// Gives a buffer back that a large answer made.
    fn shrink(&mut self) {
        const KEPT_BYTES: usize = 1024 * 1024;
        if self.buffer.capacity() > KEPT_BYTES {
            self.buffer = Vec::new();
        }
    }
}
