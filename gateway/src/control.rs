//! The node's own answers: `/`, `/{app}` and `/_/...`.

use std::sync::Arc;

use fnmesh_invoke::{AppState, AppStatus, Error, Function, Invoke};
use http::StatusCode;
use serde::Serialize;
use serde_json::{Value, json};

use crate::{
    call::unknown,
    metrics,
    refusal::Refusal,
    request::Head,
    respond::{self, Response},
    service::read,
    thread::Thread,
};

const VERSION: &str = env!("CARGO_PKG_VERSION");

/// What a gateway thread does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Load {
    /// Little: it should run before others, who hardly notice.
    Little,
    /// Few requests, which take long, as large bodies do: it should run soon, and leave others their part.
    Long,
    /// Many requests: it should let them come together.
    Many,
}

/// Facts of the node that the gateway does not know.
pub trait Control: Send + Sync + 'static {
    /// Members that `/_/health` has in addition; an object.
    fn health(&self) -> Value;

    /// Appends metrics in the Prometheus text format to `/_/metrics`.
    fn metrics(&self, out: &mut String);

    /// Has the calling thread run as becomes its load while others want its core; whether it does so.
    fn take_turns(&self, load: Load) -> bool;

    /// What else is to be read at `/_/{path}`, if there is something.
    fn resource(&self, path: &str) -> Option<Value>;
}

/// Answers `/_/{path}`.
pub(crate) fn answer<I: Invoke>(thread: &Thread<I>, head: &Head<'_>, path: &str) -> Response {
    match path {
        "health" => read(head, || health(thread)),
        "ready" => read(head, || ready(thread)),
        "metrics" => read(head, || respond::full(metrics::CONTENT_TYPE, metrics::write(thread))),
        "apps" => read(head, || respond::json(&thread.invoker.apps())),
        _ => match path.strip_prefix("apps/") {
            Some(name) => read(head, || app(thread, name)),
            None => match thread.shared.control.resource(path) {
                Some(resource) => read(head, || respond::json(&resource)),
                None => {
                    let message =
                        format!("there is no /_/{path}; there are health, ready, metrics, apps and apps/NAME");
                    respond::rejection(&Refusal::not_found(message).into(), None)
                }
            },
        },
    }
}

/// `GET /`: where the functions are.
pub(crate) fn greeting<I: Invoke>(thread: &Thread<I>) -> Response {
    let apps: Vec<Value> = (thread.invoker.apps().iter())
        .map(|app| {
            let urls: Vec<_> = public(app).map(|function| format!("/{}", function.id)).collect();
            json!({ "name": app.name, "url": format!("/{}", app.name), "functions": urls })
        })
        .collect();
    respond::json(&json!({ "fnmesh": VERSION, "apps": apps, "health": "/_/health" }))
}

/// `GET /{app}`: its public functions with their signatures.
pub(crate) fn functions<I: Invoke>(thread: &Thread<I>, name: &str) -> Response {
    #[derive(Serialize)]
    struct Described<'a> {
        url: String,
        signature: String,
        #[serde(flatten)]
        function: &'a Function,
    }
    let apps = thread.invoker.apps();
    let Some(app) = apps.iter().find(|app| app.name == name) else { return unknown_app(thread, name) };
    if let AppState::Failed { error } = &app.state {
        let error = Error::start_failed(name, error.clone());
        return respond::rejection(&error.into(), None);
    }
    let functions: Vec<_> = public(app)
        .map(|function| Described {
            url: format!("/{}", function.id),
            signature: function.signature.to_string(),
            function,
        })
        .collect();
    respond::json(&functions)
}

fn app<I: Invoke>(thread: &Thread<I>, name: &str) -> Response {
    match thread.invoker.apps().iter().find(|app| app.name == name) {
        Some(app) => respond::json(app),
        None => unknown_app(thread, name),
    }
}

fn unknown_app<I: Invoke>(thread: &Thread<I>, name: &str) -> Response {
    respond::rejection(&unknown(&thread.invoker, name).into(), None)
}

fn public(app: &AppStatus) -> impl Iterator<Item = &Function> {
    app.functions.iter().map(Arc::as_ref).filter(|function| function.public)
}

fn health<I: Invoke>(thread: &Thread<I>) -> Response {
    #[derive(Serialize)]
    struct App<'a> {
        name: &'a str,
        version: &'a str,
        #[serde(flatten)]
        state: &'a AppState,
    }
    let apps = thread.invoker.apps();
    let apps: Vec<_> =
        apps.iter().map(|app| App { name: &app.name, version: &app.version, state: &app.state }).collect();
    let mut health = json!({
        "status": if thread.is_draining() { "draining" } else { "ok" },
        "version": VERSION,
        "uptime_s": thread.shared.started.elapsed().as_secs(),
        "apps": apps,
    });
    if let (Value::Object(health), Value::Object(more)) = (&mut health, thread.shared.control.health()) {
        health.extend(more);
    }
    respond::json(&health)
}

fn ready<I: Invoke>(thread: &Thread<I>) -> Response {
    let Some(reason) = why_not_ready(thread) else { return respond::json(&json!({ "ready": true })) };
    let mut response = respond::json(&json!({ "ready": false, "reason": reason }));
    response.status = StatusCode::SERVICE_UNAVAILABLE;
    response
}

fn why_not_ready<I: Invoke>(thread: &Thread<I>) -> Option<String> {
    if thread.is_draining() {
        return Some("the node is draining".to_owned());
    }
    thread.invoker.apps().iter().find_map(|app| match &app.state {
        AppState::Ready | AppState::Stale { .. } => None,
        AppState::Loading => Some(format!("app {:?} is loading", app.name)),
        AppState::Failed { error } => Some(format!("app {:?} cannot start: {error}", app.name)),
    })
}
