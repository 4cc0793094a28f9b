//! One call, from its frame to its answer.

use std::{
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use pyo3::{prelude::*, types::PyDict};

use crate::{
    arguments::Arguments,
    channel::Channel,
    core::{App, Core, die, leave_if_forked},
    failure::Failure,
    frame::{self, BodyFormat, Frame, Header, INVOKE_META_BYTES, Kind},
    function::Function,
    logs,
    monitor::LOOK,
    package,
    parse::{Reader, Scratch},
    reply::{Answer, Content, Reply},
    runners::{CallKey, Runner},
    stream, task, usage,
};

/// Bodies above this are read like user code is run: others need not wait for it.
const LARGE_BODY_BYTES: usize = 64 * 1024;

/// Integers below have at most eight digits.
const SHORT_INTS: i64 = 100_000_000;

/// A call and what its function may know of it.
pub(crate) struct Call {
    pub(crate) key: CallKey,
    pub(crate) function: &'static Function,
    /// The invocation id and the budget in milliseconds, as in the frame.
    fixed: [u8; INVOKE_META_BYTES],
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
    /// The call that is served.
    key: CallKey,
    progress: Progress,
}

/// How far the call is that a thread serves, for [`recover`].
#[derive(Default)]
enum Progress {
    #[default]
    Idle,
    /// Its frame is being read.
    Reading,
    /// The thread leads unless leadership was taken from it.
    Entered,
    /// Another thread leads, since then.
    Beside { since: Instant, cpu: Duration },
}

impl Call {
    /// The 32 hexadecimal digits of the invocation id.
    pub(crate) fn invocation_id(&self) -> String {
        let [invocation @ .., _, _, _, _] = self.fixed;
        format!("{:032x}", u128::from_be_bytes(invocation))
    }

    /// Until the deadline.
    pub(crate) fn remaining(&self) -> Duration {
        let [.., b0, b1, b2, b3] = self.fixed;
        let budget_ms = u32::from_le_bytes([b0, b1, b2, b3]);
        Duration::from_millis(budget_ms.into()).saturating_sub(self.received.elapsed())
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

/// Serves an `invoke` frame, which is what its channel's input begins with. False if the thread leads no more. After a
/// panic [`recover`] has to be called.
#[inline(always)]
#[allow(clippy::too_many_arguments, reason = "one call site, into which it is inlined")]
pub(crate) fn serve<'py>(
    py: Python<'py>,
    core: &'static Core,
    app: &'static App,
    runner: &'static Runner,
    workspace: &mut Workspace<'py>,
    from: &Channel,
    key: CallKey,
    frame: Frame<'_>,
    received: Instant,
) -> bool {
    let Some((fixed, extra)) = frame.meta.split_first_chunk::<INVOKE_META_BYTES>() else {
        die("an invoke frame without invocation id and budget");
    };
    let (index, format, length) = (frame.header.aux, frame.header.format, frame.len());
    let Some(function) = app.functions.get(usize::from(index)) else {
        // SAFETY: this thread leads, and the frame is not used any more.
        unsafe { from.input() }.consume(length);
        Failure::unknown_function(index).push(core, key);
        return true;
    };
    let extra = if extra.is_empty() { Vec::new() } else { extra.to_vec() };
    let call = Call { key, function, fixed: *fixed, received, extra };
    workspace.key = key;
    workspace.progress = Progress::Reading;
    let unread = (frame.body.len() > LARGE_BODY_BYTES).then(|| frame.body.to_vec());
    let bound = if unread.is_none() { bind(py, workspace, &call, format, frame.body) } else { Ok(()) };
    // SAFETY: this thread leads, and the frame is not used any more.
    unsafe { from.input() }.consume(length);
    if let Err(failure) = bound {
        workspace.progress = Progress::Idle;
        answer_failure(core, runner, key, &failure, true);
        return true;
    }
    let beside = call.function.is_slow() && hand_over(py, core);
    let entered = if beside {
        workspace.progress = Progress::Beside { since: Instant::now(), cpu: usage::of_thread() };
        None
    } else {
        core.calling.store(index.into(), Ordering::Relaxed);
        let entered = core.baton.enter(py);
        workspace.progress = Progress::Entered;
        Some(entered)
    };
    runner.set_entered(entered);
    let result = runner.scope(&call, || execute(py, app, runner, workspace, &call, format, unread));
    runner.set_entered(None);
    let leads = match entered {
        Some(entered) => {
            workspace.progress = Progress::Idle;
            core.baton.leave(py, entered)
        }
        None => {
            judge(core, call.function, std::mem::take(&mut workspace.progress));
            false
        }
    };
    answer(py, core, runner, workspace, call, result, from, leads)
}

/// Notes whether a call of a function that counts as slow was slow, and others were served meanwhile: beside one that
/// computes they only share the interpreter.
#[cold]
fn judge(core: &Core, function: &Function, progress: Progress) {
    let Progress::Beside { since, cpu } = progress else { return };
    let computed = || core.monitor.is_saturated() && usage::of_thread().saturating_sub(cpu) >= LOOK;
    if since.elapsed() < LOOK || computed() { function.note_fast() } else { function.note_slow() }
}

/// After a panic of the worker: only the call fails that was being served. False if the thread leads no more.
#[cold]
pub(crate) fn recover(py: Python<'_>, core: &'static Core, runner: &Runner, workspace: &mut Workspace<'_>) -> bool {
    let key = workspace.key;
    let leads = match std::mem::take(&mut workspace.progress) {
        Progress::Idle => die("the leader panicked"),
        Progress::Reading => {
            // SAFETY: this thread leads, and unwinding has ended all borrows.
            let input = unsafe { core.channels[key.channel].input() };
            if let Ok(Some(frame)) = input.frame() {
                let length = frame.len();
                input.consume(length);
            }
            true
        }
        Progress::Entered => runner.set_entered(None).is_some_and(|entered| core.baton.leave(py, entered)),
        Progress::Beside { .. } => false,
    };
    answer_failure(core, runner, key, &Failure::internal("the worker panicked; see its log"), leads);
    leads
}

/// Sends the answer, or lets the call go on. False if the thread leads no more.
#[inline(always)]
#[allow(clippy::too_many_arguments, reason = "one call site, into which it is inlined")]
fn answer<'py>(
    py: Python<'py>,
    core: &'static Core,
    runner: &'static Runner,
    workspace: &mut Workspace<'py>,
    call: Call,
    result: Result<Answer<'py>, Failure>,
    to: &Channel,
    leads: bool,
) -> bool {
    let key = call.key;
    match result {
        Ok(Answer::Json) => {
            logs::end_call(core, runner, key);
            push(core, to, key, &workspace.buffer, leads);
            workspace.shrink();
            leads
        }
        Ok(Answer::Int(int)) => {
            logs::end_call(core, runner, key);
            push_int(core, to, key, int, leads);
            leads
        }
        Ok(Answer::Other(reply)) => answer_other(py, core, runner, workspace, call, *reply, leads),
        Err(failure) => {
            answer_failure(core, runner, key, &failure, leads);
            leads
        }
    }
}

#[cold]
fn answer_failure(core: &Core, runner: &Runner, key: CallKey, failure: &Failure, leads: bool) {
    logs::end_call(core, runner, key);
    failure.push(core, key);
    if !leads {
        core.flush(key.channel);
    }
}

/// Adds a `result` frame with an integer.
#[inline(always)]
fn push_int(core: &Core, to: &Channel, key: CallKey, int: i64, leads: bool) {
    if !leads || !(0..SHORT_INTS).contains(&int) {
        return push(core, to, key, itoa::Buffer::new().format(int).as_bytes(), leads);
    }
    // Digits are counted, which a processor foresees, and not found in the word at last: where the next answer goes would
    // have to wait for this one's value.
    let (mut digits, mut length, mut left) = (0_u64, 0, int as u32);
    loop {
        digits = digits << 8 | u64::from(b'0' + (left % 10) as u8);
        length += 1;
        left /= 10;
        if left == 0 {
            break;
        }
    }
    let header = Header::new(Kind::Result, key.id).format(BodyFormat::Json);
    // SAFETY: this thread leads.
    frame::encode_short(header, digits.to_le_bytes(), length, unsafe { to.answers() });
}

/// Adds a `result` frame with JSON.
#[inline(always)]
fn push(core: &Core, to: &Channel, key: CallKey, body: &[u8], leads: bool) {
    let header = Header::new(Kind::Result, key.id).format(BodyFormat::Json);
    if leads {
        // SAFETY: this thread leads.
        frame::encode(header, &[], body, unsafe { to.answers() });
    } else {
        core.push(key.channel, header, &[], body);
        core.flush(key.channel);
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
            if leads && !hand_over(py, core) {
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

#[inline(always)]
fn execute<'py>(
    py: Python<'py>,
    app: &App,
    runner: &Runner,
    workspace: &mut Workspace<'py>,
    call: &Call,
    format: BodyFormat,
    unread: Option<Vec<u8>>,
) -> Result<Answer<'py>, Failure> {
    let (value, cancelled) = runner.interruptible(py, call.key, || {
        if let Some(body) = unread {
            bind_late(py, workspace, call, format, &body)?;
        }
        Ok(workspace.arguments.call(call.function.shape.callable.bind(py)))
    });
    leave_if_forked(py);
    let value = match value {
        Ok(Some(value)) if !cancelled => value,
        Ok(value) => return Err(raised(py, value.is_none(), cancelled)),
        Err(failure) => return Err(if cancelled { Failure::cancelled() } else { failure }),
    };
    let answer = Answer::new(value, app.max_reply_bytes, &mut workspace.buffer);
    if !matches!(answer, Ok(Answer::Int(_))) {
        // Writing other values may have run user code.
        leave_if_forked(py);
    }
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

#[inline(never)]
fn bind_late<'py>(
    py: Python<'py>,
    workspace: &mut Workspace<'py>,
    call: &Call,
    format: BodyFormat,
    body: &[u8],
) -> Result<(), Failure> {
    bind(py, workspace, call, format, body)
}

#[inline(always)]
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
fn hand_over(py: Python<'_>, core: &'static Core) -> bool {
    let Some(next) = core.runners.reserve(core) else { return false };
    core.baton.release(py);
    next.appoint();
    true
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
