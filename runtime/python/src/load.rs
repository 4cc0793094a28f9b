//! The start: `load` in, `ready` out.

use std::time::{Duration, Instant};

use pyo3::{prelude::*, types::PyDict};
use rustix::event::{PollFd, PollFlags, poll};

use crate::{
    core::{App, Core, die, quit},
    encode::Writer,
    failure::Failure,
    frame::{BodyFormat, Header, Kind},
    function::{Function, Shape},
    logs,
    parse::{Reader, Scratch},
    runners::CallKey,
};

/// The version of the protocol this worker speaks.
const PROTOCOL: u32 = 1;
/// What the node gets to read the last frame.
const FAREWELL: Duration = Duration::from_secs(5);

/// `load` as far as it does not concern Python.
#[derive(FromPyObject)]
#[pyo3(from_item_all)]
struct Settings {
    protocol: u32,
    max_reply_bytes: usize,
    concurrency: usize,
}

/// Loads the app and says so, or says why not and ends the process.
pub(crate) fn load(py: Python<'_>, core: &'static Core) {
    let text = receive(py, core);
    let app = match Reader::new(py, &text, &mut Scratch::default()).document() {
        Ok(app) => app,
        Err(refused) => die(&format!("the load frame is {}", refused.describe(&text))),
    };
    let settings: Settings = app.extract().unwrap_or_else(|error| die(&format!("unreadable load frame: {error}")));
    if settings.protocol != PROTOCOL {
        die(&format!("the node speaks version {} of the protocol, this worker version {PROTOCOL}", settings.protocol));
    }
    core.runners.set_limit(settings.concurrency);
    let no_call = CallKey { channel: 0, id: 0 };
    let ready = describe(py, &app).map_err(|error| Failure::load(py, error)).and_then(|(ready, functions)| {
        let mut body = Vec::new();
        Writer { out: &mut body, limit: settings.max_reply_bytes }.write(ready.as_any())?;
        core.set_app(App { functions, max_reply_bytes: settings.max_reply_bytes });
        Ok(body)
    });
    logs::end(core, no_call);
    match ready {
        Ok(body) => core.push(0, Header::new(Kind::Ready, 0).format(BodyFormat::Json), &[], &body),
        Err(failure) => {
            failure.push(core, no_call);
            core.drain(py, Instant::now() + FAREWELL);
            quit(1);
        }
    }
    core.flush(0);
}

/// Imports the app's modules and runs its hooks.
fn describe<'py>(py: Python<'py>, app: &Bound<'py, PyAny>) -> PyResult<(Bound<'py, PyDict>, Vec<Function>)> {
    let loaded = py.import("fnmesh._load")?.getattr("load")?.call1((app,))?;
    let (ready, shapes): (_, Vec<Shape>) = loaded.extract()?;
    Ok((ready, shapes.into_iter().map(Function::new).collect()))
}

/// The body of the first frame, which has to be `load`.
fn receive(py: Python<'_>, core: &'static Core) -> Vec<u8> {
    let channel = &core.channels[0];
    loop {
        // SAFETY: nobody leads before the app is loaded, and this is the only thread that will; one reference at a time.
        let input = unsafe { channel.input() };
        match input.frame() {
            Ok(Some(frame)) if frame.header.kind == Kind::Load => {
                let (body, length) = (frame.body.to_vec(), frame.len());
                input.consume(length);
                return body;
            }
            Ok(Some(frame)) => die(&format!("a {:?} frame before load", frame.header.kind)),
            Err(error) => die(&error.to_string()),
            Ok(None) => {}
        }
        let mut polls = [PollFd::from_borrowed_fd(channel.socket(), PollFlags::IN)];
        // When interrupted, there is nothing to read yet, which is found out below.
        let _ = py.detach(|| poll(&mut polls, None));
        if !matches!(input.fill(channel.socket()), Ok(true)) {
            quit(0);
        }
    }
}
