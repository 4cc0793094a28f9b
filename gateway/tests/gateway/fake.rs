//! Functions without a runtime.

use std::{
    collections::VecDeque,
    pin::Pin,
    sync::{Arc, mpsc::Sender},
    task::{Context, Poll},
    time::Duration,
};

use fnmesh_invoke::{
    AppState, AppStatus, CircuitState, Error, Failure, Format, Function, FunctionId, InstanceState, InstanceStatus,
    Invocation, Invoke, Language, Limits, Parameter, Payload, PoolStatus, Reply, ReplyBody, ResponseHead, Signature,
    Target, ValueType,
};
use serde_json::{Value, json};
use tokio::sync::Semaphore;

/// The app `t` and what it does.
pub(crate) struct Fake {
    pub(crate) functions: Arc<Vec<Arc<Function>>>,
    /// Hears `started NAME` and `dropped NAME`.
    pub(crate) events: Sender<String>,
    /// Has a permit for each call of `slow` that may end.
    pub(crate) release: Arc<Semaphore>,
    pub(crate) state: AppState,
}

pub(crate) fn functions() -> Vec<Arc<Function>> {
    let parameter = |name: &str, value_type| Parameter { name: name.into(), value_type, ..Parameter::default() };
    let plain = || vec![parameter("a", ValueType::Any)];
    let typed = vec![parameter("a", ValueType::Integer), parameter("b", ValueType::Array)];
    let named = [
        "echo", "args", "fail", "stream", "pending", "slow", "respond", "text", "bytes", "subtract", "sum", "get_data",
        "update", "trace",
    ];
    let mut all: Vec<_> = named.into_iter().map(|name| function(name, plain(), true, false)).collect();
    all.push(function("typed", typed, true, false));
    all.push(function("http", plain(), true, true));
    all.push(function("private", plain(), false, false));
    all.push(function("mod.echo", plain(), true, false));
    all
}

fn function(name: &str, parameters: Vec<Parameter>, public: bool, takes_request: bool) -> Arc<Function> {
    Arc::new(Function {
        id: FunctionId { app: "t".into(), name: name.into() },
        module: "mod".into(),
        file: "mod.py".into(),
        language: Language::Python,
        signature: Signature { parameters, takes_request, ..Signature::default() },
        limits: Limits { timeout: Duration::from_secs(20), concurrency: None },
        public,
        target: Target::default(),
        stats: Arc::default(),
    })
}

fn instance(pid: u32, state: InstanceState) -> InstanceStatus {
    InstanceStatus { pid, state, in_flight: 1, calls: 10, age_s: 100, memory_bytes: Some(1000) }
}

/// Tells when it is dropped.
struct Alarm(Sender<String>, String);

impl Drop for Alarm {
    fn drop(&mut self) {
        let _ = self.0.send(format!("dropped {}", self.1));
    }
}

/// Gives its items and then ends, or waits for ever.
struct Items {
    items: VecDeque<Result<Payload, Error>>,
    endless: bool,
    _alarm: Alarm,
}

impl futures_core::Stream for Items {
    type Item = Result<Payload, Error>;

    fn poll_next(mut self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        match self.items.pop_front() {
            None if self.endless => Poll::Pending,
            item => Poll::Ready(item),
        }
    }
}

impl Invoke for Fake {
    async fn resolve(&self, app: &str, name: &str) -> Result<Arc<Function>, Error> {
        if app == "broken" {
            let failure = Failure { kind: "SyntaxError".into(), message: "no".into(), stack: "at line 1".into() };
            return Err(Error::start_failed(app, failure));
        }
        let found = self.functions.iter().find(|function| app == "t" && &*function.id.name == name);
        found.cloned().ok_or_else(|| Error::UnknownFunction {
            function: format!("{app}/{name}"),
            nearest: vec!["t/private".into()],
        })
    }

    async fn call(&self, invocation: Invocation) -> Result<Reply, Error> {
        let name = invocation.function.id.name.to_string();
        let payload = invocation.payload.clone();
        let argument = || serde_json::from_slice::<Value>(&payload.body).unwrap_or_default();
        match name.as_str() {
            "echo" | "mod.echo" => Ok(payload.into()),
            "text" => Ok(Payload::text("plain\n").into()),
            "bytes" => Ok(Payload::bytes(vec![0, 255]).into()),
            "args" | "typed" => {
                let format = match payload.format {
                    Format::Json => "json",
                    Format::Bytes => "bytes",
                    Format::Text => "text",
                };
                answer(json!({ "format": format, "body": String::from_utf8_lossy(&payload.body) }))
            }
            "trace" => answer(json!({
                "id": invocation.id.to_string(),
                "traceparent": invocation.traceparent.as_ref().map(|parent| parent.as_str().to_owned()),
                "idempotency_key": invocation.idempotency_key,
                "remaining_s": invocation.deadline.remaining(std::time::Instant::now()).as_secs_f64().ceil(),
            })),
            "fail" => {
                let argument = argument();
                let name = argument.as_str().or_else(|| argument[0].as_str()).unwrap_or_default();
                Err(failure(name, &invocation.function.id))
            }
            "stream" => Ok(self.stream(&argument())),
            "pending" => {
                let _alarm = self.alarm(&name);
                std::future::pending().await
            }
            "slow" => {
                let _alarm = self.alarm(&name);
                self.release.acquire().await.map_err(|error| Error::internal(error.to_string()))?.forget();
                answer(json!("done"))
            }
            "http" => {
                let head = invocation.request.as_deref().ok_or_else(|| Error::internal("no request"))?;
                answer(json!({ "head": head, "body": String::from_utf8_lossy(&payload.body) }))
            }
            "respond" => respond(&argument()),
            "subtract" => subtract(&argument()),
            "sum" => answer(argument().as_array().into_iter().flatten().filter_map(Value::as_i64).sum::<i64>().into()),
            "get_data" => answer(json!(["hello", 5])),
            "update" => {
                let _ = self.events.send("started update".into());
                answer(Value::Null)
            }
            other => Err(Error::internal(format!("no such fake: {other}"))),
        }
    }

    fn apps(&self) -> Vec<AppStatus> {
        vec![AppStatus {
            name: "t".into(),
            directory: "/t".into(),
            version: "0123456789ab".into(),
            hash: [1; 32],
            state: self.state.clone(),
            pools: vec![PoolStatus {
                instances: vec![instance(1, InstanceState::Ready), instance(2, InstanceState::Draining)],
                in_flight: 3,
                queued: 4,
                started: 5,
                lost: 6,
                starting: 7,
                cold_starts: 8,
                cold_start_total_ms: 9_500.0,
                circuit: CircuitState::Open,
                ..PoolStatus::empty(Language::Python)
            }],
            functions: self.functions.to_vec(),
        }]
    }
}

impl Fake {
    fn alarm(&self, name: &str) -> Alarm {
        let _ = self.events.send(format!("started {name}"));
        Alarm(self.events.clone(), name.to_owned())
    }

    /// `{"items": [...], "repeat": 2, "format": "text", "fail": true, "endless": true, "head": 201}`
    fn stream(&self, wish: &Value) -> Reply {
        let mut items: VecDeque<_> = wish["items"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|item| {
                Ok(match (wish["format"].as_str(), item.as_str()) {
                    (Some("text"), Some(text)) => Payload::text(text.to_owned()),
                    (Some("bytes"), Some(text)) => Payload::bytes(text.to_owned()),
                    _ => Payload::json(item.to_string()),
                })
            })
            .collect();
        for _ in 1..wish["repeat"].as_u64().unwrap_or(1) {
            let again = items[0].clone();
            items.push_back(again);
        }
        if wish["fail"] == true {
            items.push_back(Err(failure("raised", &self.functions[0].id)));
        }
        let head = wish["head"].as_u64().map(|status| {
            items.push_front(Ok(Payload::bytes("")));
            Box::new(ResponseHead { status: status as u16, headers: vec![("content-type".into(), "text/html".into())] })
        });
        let items = Items { items, endless: wish["endless"] == true, _alarm: self.alarm("stream") };
        Reply::new(head, ReplyBody::Stream(Box::pin(items)))
    }
}

fn answer(value: Value) -> Result<Reply, Error> {
    Ok(Payload::json(value.to_string()).into())
}

fn respond(wish: &Value) -> Result<Reply, Error> {
    let head: ResponseHead = serde_json::from_value(wish.clone()).map_err(|error| Error::invalid(error.to_string()))?;
    let body = Payload::text(wish["body"].as_str().unwrap_or_default().to_owned());
    Ok(Reply::new(Some(Box::new(head)), ReplyBody::Full(body)))
}

fn subtract(arguments: &Value) -> Result<Reply, Error> {
    let number =
        |index: usize, name: &str| arguments.get(index).or_else(|| arguments.get(name)).and_then(Value::as_i64);
    match (number(0, "minuend"), number(1, "subtrahend")) {
        (Some(minuend), Some(subtrahend)) => answer((minuend - subtrahend).into()),
        _ => Err(Error::invalid("subtract takes minuend and subtrahend")),
    }
}

pub(crate) const FAILURES: [(&str, u16, &str, Option<&str>); 13] = [
    ("unknown", 404, "UnknownFunction", None),
    ("invalid", 400, "InvalidInput", None),
    ("large", 413, "TooLarge", None),
    ("raised", 500, "ValueError", None),
    ("rate", 429, "Throttled", Some("3")),
    ("queue", 503, "Throttled", Some("3")),
    ("deadline", 504, "DeadlineExceeded", None),
    ("start", 503, "StartFailed", Some("1")),
    ("lost", 502, "InstanceLost", None),
    ("peer", 503, "PeerUnreachable", Some("1")),
    ("loop", 508, "LoopDetected", None),
    ("draining", 503, "Draining", Some("1")),
    ("internal", 500, "Internal", None),
];

fn failure(name: &str, function: &FunctionId) -> Error {
    let function = function.clone();
    let raised = || Box::new(Failure { kind: "ValueError".into(), message: "bad\nvalue".into(), stack: "in f".into() });
    let throttled = |rate| Error::Throttled { reason: "full".into(), retry_after: Duration::from_millis(2500), rate };
    match name {
        "unknown" => Error::UnknownFunction { function: function.to_string(), nearest: vec![] },
        "invalid" => Error::invalid("argument b is missing"),
        "large" => Error::TooLarge { what: "the answer".into(), limit_bytes: 10 },
        "raised" => Error::FunctionFailed(raised()),
        "rate" => throttled(true),
        "queue" => throttled(false),
        "deadline" => Error::DeadlineExceeded { function, timeout: Duration::from_secs(1) },
        "start" => Error::start_failed("t", *raised()),
        "lost" => Error::InstanceLost { function, reason: "signal 9".into() },
        "peer" => Error::PeerUnreachable { peer: "b".into(), reason: "timeout".into() },
        "loop" => Error::LoopDetected { hops: 8 },
        "draining" => Error::Draining,
        other => Error::internal(other),
    }
}
