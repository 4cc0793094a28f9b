//! One call, from its frame to its answer.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use pyo3::{prelude::*, types::PyDict};

use crate::{
    arguments::Arguments,
    baton::Look,
    channel::{Input, Parts},
    core::{Core, die, leave_if_forked},
    failure::Failure,
    frame::{self, BodyFormat, Header, INVOKE_META_BYTES, Kind},
    function::Function,
    logs,
    monitor::LOOK,
    package,
    parse::{Reader, Scratch},
    reply::{Answer, Content, Reply},
    runners::{CallKey, Runner},
    stream, task,
};

/// Bodies above this are read like user code is run: others need not wait for it.
const LARGE_BODY_BYTES: usize = 64 * 1024;

/// A call and what its function may know of it.
pub(crate) struct Call {
    pub(crate) key: CallKey,
    pub(crate) function: &'static Function,
    invocation: [u8; 16],
    budget_ms: u32,
    received: Instant,
    /// The rest of the meta, JSON or empty.
    extra: Vec<u8>,
}

/// What a thread keeps from call to call for its allocations.
#[derive(Default)]
pub(crate) struct Workspace<'py> {
    arguments: Arguments<'py>,
    scratch: Scratch<'py>,
    pub(crate) buffer: Vec<u8>,
}

/// Who leads while a call is served.
enum Lead {
    /// This thread, and it is not inside of user code.
    Held,
    /// This thread, unless leadership was taken from it.
    Entered(Look),
    /// Another thread, since then.
    Passed(Instant),
}

impl Call {
    /// The 32 hexadecimal digits of the invocation id.
    pub(crate) fn invocation_id(&self) -> String {
        format!("{:032x}", u128::from_be_bytes(self.invocation))
    }

    /// Until the deadline.
    pub(crate) fn remaining(&self) -> Duration {
        Duration::from_millis(self.budget_ms.into()).saturating_sub(self.received.elapsed())
    }

    /// A member of the meta's JSON part.
    pub(crate) fn extra<'py>(&self, py: Python<'py>, member: &str) -> Option<Bound<'py, PyAny>> {
        if self.extra.is_empty() {
            return None;
        }
        let extra = Reader::new(py, &self.extra, &mut Scratch::default()).document().ok()?;
        extra.cast::<PyDict>().ok()?.get_item(member).ok()?
    }
}

/// Serves the `invoke` frame that `input` begins with, and that `parts` describes. False if the thread leads no more;
/// then `input` is another thread's.
pub(crate) fn serve<'py>(
    py: Python<'py>,
    core: &'static Core,
    runner: &'static Runner,
    workspace: &mut Workspace<'py>,
    input: &mut Input,
    parts: Parts,
    key: CallKey,
    received: Instant,
) -> bool {
    let Parts { header: Header { format, aux: index, .. }, meta, body, length } = parts;
    let Some((fixed, extra)) = input.bytes(meta).split_first_chunk::<INVOKE_META_BYTES>() else {
        die("an invoke frame without invocation id and budget");
    };
    let [invocation @ .., b0, b1, b2, b3] = *fixed;
    let budget_ms = u32::from_le_bytes([b0, b1, b2, b3]);
    let Some(function) = core.function(index.into()) else {
        input.consume(length);
        Failure::unknown_function(index).push(core, key);
        return true;
    };
    let call = Call { key, function, invocation, budget_ms, received, extra: if extra.is_empty() { Vec::new() } else { extra.to_vec() } };
    let (mut consumed, mut lead) = (false, Lead::Held);
    let result = guarded(|| {
        let body = input.bytes(body);
        let unread = (body.len() > LARGE_BODY_BYTES).then(|| body.to_vec());
        let bound = if unread.is_none() { bind(py, workspace, &call, format, body) } else { Ok(()) };
        input.consume(length);
        consumed = true;
        bound?;
        lead = enter(core, runner, &call, index);
        runner.scope(&call, || execute(py, core, runner, workspace, &call, format, unread))
    });
    if !consumed {
        // Reading the body panicked.
        input.consume(length);
    }
    let leads = match lead {
        Lead::Held => true,
        Lead::Entered(entered) => {
            runner.set_entered(None);
            core.baton.leave(entered)
        }
        Lead::Passed(started) if started.elapsed() < LOOK => {
            call.function.note_fast();
            false
        }
        Lead::Passed(_) => {
            call.function.note_slow();
            false
        }
    };
    answer(py, core, runner, workspace, call, result, leads)
}

/// Before user code: leadership goes to another thread if the function is slow, else it can be taken from now on.
#[inline]
fn enter(core: &'static Core, runner: &Runner, call: &Call, index: u16) -> Lead {
    if call.function.is_slow() && hand_over(core) {
        return Lead::Passed(Instant::now());
    }
    core.calling.store(index.into(), Ordering::Relaxed);
    let entered = core.baton.enter();
    runner.set_entered(Some(entered));
    Lead::Entered(entered)
}

/// Sends the answer, or lets the call go on. False if the thread leads no more.
#[inline]
fn answer<'py>(
    py: Python<'py>,
    core: &'static Core,
    runner: &'static Runner,
    workspace: &mut Workspace<'py>,
    call: Call,
    result: Result<Answer<'py>, Failure>,
    leads: bool,
) -> bool {
    let key = call.key;
    match result {
        Ok(Answer::Json) => {
            logs::end_call(core, runner, key);
            push(core, key, &workspace.buffer, leads);
        }
        Ok(Answer::Int(int)) => {
            logs::end_call(core, runner, key);
            push(core, key, itoa::Buffer::new().format(int).as_bytes(), leads);
        }
        Ok(Answer::Other(reply)) => return answer_other(py, core, runner, workspace, call, *reply, leads),
        Err(failure) => {
            logs::end_call(core, runner, key);
            failure.push(core, key);
        }
    }
    workspace.shrink();
    if !leads {
        core.flush(key.channel);
    }
    leads
}

/// Adds a `result` frame with JSON.
#[inline]
fn push(core: &Core, key: CallKey, body: &[u8], leads: bool) {
    let header = Header::new(Kind::Result, key.id).format(BodyFormat::Json);
    if leads {
        // SAFETY: this thread leads.
        frame::encode(header, &[], body, unsafe { core.channels[key.channel].answers() });
    } else {
        core.push(key.channel, header, &[], body);
    }
}

fn answer_other<'py>(
    py: Python<'py>,
    core: &'static Core,
    runner: &'static Runner,
    workspace: &mut Workspace<'py>,
    call: Call,
    reply: Reply<'py>,
    mut leads: bool,
) -> bool {
    let key = call.key;
    match reply {
        Reply { head, content: Content::Items(items) } => {
            if leads && !hand_over(core) {
                logs::end_call(core, runner, key);
                Failure::internal("no thread can be started to stream the answer").push(core, key);
                return true;
            }
            leads = false;
            runner.scope(&call, || stream::run(py, core, runner, workspace, key, &head, &items));
        }
        Reply { head, content: Content::Awaits(work) } => {
            logs::end_call(core, runner, key);
            task::start(py, core, call, &head, work);
        }
        reply => {
            logs::end_call(core, runner, key);
            reply.push(core, key, &workspace.buffer);
        }
    }
    workspace.shrink();
    if !leads {
        core.flush(key.channel);
    }
    leads
}

#[inline]
fn execute<'py>(
    py: Python<'py>,
    core: &Core,
    runner: &Runner,
    workspace: &mut Workspace<'py>,
    call: &Call,
    format: BodyFormat,
    unread: Option<Vec<u8>>,
) -> Result<Answer<'py>, Failure> {
    let (value, cancelled) = runner.interruptible(py, call.key, || {
        if let Some(body) = unread {
            bind(py, workspace, call, format, &body)?;
        }
        Ok(workspace.arguments.call(call.function.shape.callable.bind(py)))
    });
    leave_if_forked(py);
    let value = match value {
        Ok(Some(value)) if !cancelled => value,
        Ok(value) => return Err(raised(py, value.is_none(), cancelled)),
        Err(failure) => return Err(if cancelled { Failure::cancelled() } else { failure }),
    };
    let answer = Answer::new(value, core.max_reply_bytes(), &mut workspace.buffer);
    leave_if_forked(py);
    answer
}

/// Why a call has no value to answer with. Takes the exception, if one is `set`.
#[cold]
fn raised(py: Python<'_>, set: bool, cancelled: bool) -> Failure {
    let error = set.then(|| PyErr::fetch(py));
    match error {
        Some(error) if !cancelled => Failure::raised(py, error),
        _ => Failure::cancelled(),
    }
}

#[inline]
fn bind<'py>(
    py: Python<'py>,
    workspace: &mut Workspace<'py>,
    call: &Call,
    format: BodyFormat,
    body: &[u8],
) -> Result<(), Failure> {
    let function = &call.function.shape;
    let Some(parameter) = function.request else {
        return workspace.arguments.bind(py, function, format, body, &mut workspace.scratch);
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
#[inline]
fn guarded<T>(code: impl FnOnce() -> Result<T, Failure>) -> Result<T, Failure> {
    // What a panic leaves behind is only the workspace, which each call clears before it uses it.
    catch_unwind(AssertUnwindSafe(code)).unwrap_or_else(|_| Err(Failure::internal("the worker panicked; see its log")))
}

impl Workspace<'_> {
    /// Gives a buffer back that a large answer made.
    #[inline]
    fn shrink(&mut self) {
        const KEPT_BYTES: usize = 1024 * 1024;
        if self.buffer.capacity() > KEPT_BYTES {
            self.buffer = Vec::new();
        }
    }
}
