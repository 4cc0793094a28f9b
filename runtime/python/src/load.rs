//! The start: `load` in, `ready` out.

use std::time::{Duration, Instant};

use pyo3::{prelude::*, types::PyDict};
use rustix::event::{PollFd, PollFlags, poll};

use crate::{
    core::{App, Core, die, quit},
    encode::Writer,
    failure::Failure,
    frame::{BodyFormat, Header, Kind, LOAD_ZYGOTE},
    function::{Function, Shape},
    logs,
    parse::{Reader, Scratch},
    runners::CallKey,
    traces::Before,
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

/// An app whose modules are loaded.
pub(crate) struct Loaded {
    /// This process is to fork instances.
    pub(crate) is_zygote: bool,
    /// What the loading of the app changed about the process, if that matters.
    pub(crate) before: Before,
    app: App,
    concurrency: usize,
    /// Body of the ready frame.
    ready: Vec<u8>,
}

const NO_CALL: CallKey = CallKey { channel: 0, id: 0 };

/// Loads the app, or says why it cannot be loaded and ends the process.
pub(crate) fn load(py: Python<'_>, core: &'static Core) -> Loaded {
    let (text, is_zygote) = receive(py, core);
    let before = Before::look();
    let app = match Reader::new(py, &text, &mut Scratch::default()).document() {
        Ok(app) => app,
        Err(refused) => die(&format!("the load frame is {}", refused.describe(&text))),
    };
    let settings: Settings = app.extract().unwrap_or_else(|error| die(&format!("unreadable load frame: {error}")));
    if settings.protocol != PROTOCOL {
        die(&format!("the node speaks version {} of the protocol, this worker version {PROTOCOL}", settings.protocol));
    }
    let Settings { max_reply_bytes, concurrency, .. } = settings;
    let loaded = describe(py, &app).map_err(|error| Failure::load(py, error)).and_then(|(ready, functions)| {
        let mut body = Vec::new();
        Writer { out: &mut body, limit: max_reply_bytes }.write(ready.as_any())?;
        let app = App { functions, max_reply_bytes };
        Ok(Loaded { is_zygote, before, app, concurrency, ready: body })
    });
    logs::end(core, NO_CALL);
    loaded.unwrap_or_else(|failure| fail(py, core, &failure))
}

/// Runs the initialize hooks and says that the app is there, or why it cannot start.
pub(crate) fn start(py: Python<'_>, core: &'static Core, loaded: Loaded) {
    core.runners.set_limit(loaded.concurrency);
    core.set_app(loaded.app);
    let started = py.import("fnmesh._load").and_then(|load| load.call_method0("start"));
    logs::end(core, NO_CALL);
    if let Err(error) = started {
        fail(py, core, &Failure::load(py, error));
    }
    core.push(0, Header::new(Kind::Ready, 0).format(BodyFormat::Json), &[], &loaded.ready);
    core.flush(0);
}

fn fail(py: Python<'_>, core: &'static Core, failure: &Failure) -> ! {
    failure.push(core, NO_CALL);
    core.drain(py, Instant::now() + FAREWELL);
    quit(1)
}

/// Imports the app's modules.
fn describe<'py>(py: Python<'py>, app: &Bound<'py, PyAny>) -> PyResult<(Bound<'py, PyDict>, Vec<Function>)> {
    let loaded = py.import("fnmesh._load")?.getattr("load")?.call1((app,))?;
    let (ready, shapes): (_, Vec<Shape>) = loaded.extract()?;
    Ok((ready, shapes.into_iter().map(Function::new).collect()))
}

/// The body of the first frame, which has to be `load`, and whether it makes this a zygote.
fn receive(py: Python<'_>, core: &'static Core) -> (Vec<u8>, bool) {
    let channel = &core.channels[0];
    loop {
        // SAFETY: nobody leads before the app is loaded, and this is the only thread that will; one reference at a time.
        let input = unsafe { channel.input() };
        match input.frame() {
            Ok(Some(frame)) if frame.header.kind == Kind::Load => {
                let (body, is_zygote, length) = (frame.body.to_vec(), frame.header.aux == LOAD_ZYGOTE, frame.len());
                input.consume(length);
                return (body, is_zygote);
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
