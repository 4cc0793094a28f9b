//! A call over HTTP, from its path to its answer.

use std::{sync::Arc, time::Instant};

use fnmesh_invoke::{
    Deadline, Error, Function, Invocation, InvocationId, Invoke, Outcome, Payload, Reply, ReplyBody, nearest,
};
use http::{HeaderValue, Method, StatusCode, header::ALLOW};

use crate::{
    args,
    body::Body,
    connection::Busy,
    headers::{Hints, IDEMPOTENCY_REPLAYED, TRACEPARENT, Wanted},
    refusal::Refusal,
    rejection::Rejection,
    request::Head,
    respond::{self, Response},
    route::FunctionPath,
    stream,
    thread::Thread,
};

const METHODS: &str = "GET, HEAD, POST, OPTIONS";

/// Counts one call of a function, however it ends; one that is dropped was cancelled.
#[derive(Debug)]
pub(crate) struct Meter {
    function: Arc<Function>,
    started: Instant,
    outcome: Outcome,
    ended: Option<Instant>,
}

impl Meter {
    pub(crate) fn new(function: Arc<Function>, started: Instant) -> Self {
        Self { function, started, outcome: Outcome::Cancelled, ended: None }
    }

    /// Counts the call as ended so, and says when that was.
    pub(crate) fn end(mut self, outcome: Outcome) -> Instant {
        let now = Instant::now();
        self.outcome = outcome;
        self.ended = Some(now);
        now
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
        let ended = self.ended.unwrap_or_else(Instant::now);
        self.function.stats.record(self.outcome, ended - self.started);
    }
}

/// Answers a request for a function.
pub(crate) async fn answer<I: Invoke>(
    thread: &Thread<I>,
    head: &Head<'_>,
    hints: &Hints<'_>,
    body: Body<'_>,
    path: &FunctionPath<'_>,
    busy: Busy,
) -> Response {
    let id = InvocationId::random();
    let traceparent = hints.traceparent.as_ref().map(|received| received.child(id));
    let exchange = Exchange { thread, head, id };
    let mut response = match exchange.run(body, path, hints, busy).await {
        Ok(response) => response,
        Err(rejection) => respond::rejection(&rejection, Some(id)),
    };
    response.invocation = Some(id);
    if let Some(Ok(value)) = traceparent.map(|child| HeaderValue::from_str(child.as_str())) {
        response.headers.push((TRACEPARENT, value));
    }
    response
}

/// One request for a function.
struct Exchange<'a, I> {
    thread: &'a Thread<I>,
    head: &'a Head<'a>,
    id: InvocationId,
}

impl<I: Invoke> Exchange<'_, I> {
    async fn run(
        &self,
        body: Body<'_>,
        path: &FunctionPath<'_>,
        hints: &Hints<'_>,
        mut busy: Busy,
    ) -> Result<Response, Rejection> {
        let started = Instant::now();
        body.check_length(self.thread.config())?;
        let function = resolve(&self.thread.invoker, &path.app, &path.name).await?;
        let takes_request = function.signature.takes_request;
        if !takes_request {
            if !path.rest.is_empty() {
                return Err(unknown(&self.thread.invoker, &format!("{}/{}{}", path.app, path.name, path.rest)).into());
            }
            if self.head.method == Method::OPTIONS {
                let mut response = respond::empty(StatusCode::NO_CONTENT);
                response.headers.push((ALLOW, HeaderValue::from_static(METHODS)));
                return Ok(response);
            }
            if !matches!(self.head.method, Method::GET | Method::HEAD | Method::POST) {
                let message = format!("functions are called by GET or POST, not {}", self.head.method);
                return Err(Refusal::method(message, METHODS).into());
            }
        }
        let meter = Meter::new(Arc::clone(&function), started);
        let wanted = Wanted::of(hints.accept);
        let reply = match self.invoke(function, body, path.rest, hints, started).await {
            Ok(reply) => reply,
            Err(rejection) => {
                busy.ended(meter.end(rejection.outcome()));
                return Err(rejection);
            }
        };
        Ok(self.respond(reply, wanted, meter, busy).await?)
    }

    async fn invoke(
        &self,
        function: Arc<Function>,
        body: Body<'_>,
        rest: &str,
        hints: &Hints<'_>,
        started: Instant,
    ) -> Result<Reply, Rejection> {
        let memory = &self.thread.shared.memory;
        memory.check()?;
        let mut lease = memory.lease();
        let body = body.collect(self.thread.config(), &mut lease).await?;
        let (payload, request) = if function.signature.takes_request {
            (Payload::bytes(body), Some(Box::new(self.head.to_owned(rest))))
        } else {
            (args::payload(&function, self.head, hints, body)?, None)
        };
        let invocation = Invocation {
            id: self.id,
            deadline: Deadline::after(started, function.limits.timeout),
            function,
            payload,
            request,
            hops: 0,
            traceparent: hints.traceparent.clone(),
            idempotency_key: hints.idempotency_key.clone(),
        };
        Ok(self.thread.invoker.call(invocation).await?)
    }

    async fn respond(&self, reply: Reply, wanted: Wanted, meter: Meter, mut busy: Busy) -> Result<Response, Error> {
        let response = match reply.body {
            ReplyBody::Full(payload) => {
                busy.ended(meter.end(Outcome::Ok));
                // A function that makes its own response decides about its form as well.
                respond::value(payload, if reply.head.is_some() { Wanted::Json } else { wanted })
            }
            ReplyBody::Stream(items) => {
                match Box::pin(stream::answer(items, reply.head.is_some(), wanted, meter, busy)).await {
                    Ok(response) => response,
                    Err((error, meter, mut busy)) => {
                        busy.ended(meter.end((&error).into()));
                        return Err(error);
                    }
                }
            }
        };
        let mut response = match reply.head {
            Some(head) => respond::from_function(response, &head, &self.head.method)?,
            None => response,
        };
        if reply.is_replayed {
            response.headers.push((IDEMPOTENCY_REPLAYED, HeaderValue::from_static("true")));
        }
        Ok(response)
    }
}

/// Finds a public function. A private one is as unknown as one that is not there.
///
/// # Errors
/// As [`Invoke::resolve`].
pub(crate) async fn resolve<I: Invoke>(invoker: &I, app: &str, name: &str) -> Result<Arc<Function>, Error> {
    match invoker.resolve(app, name).await {
        Ok(function) if function.public => Ok(function),
        Ok(_) => Err(unknown(invoker, &format!("{app}/{name}"))),
        // What looks alike here comes first; only then what the invoker knows beyond this node, whose own names may be
        // private.
        Err(Error::UnknownFunction { nearest: farther, .. }) => match unknown(invoker, &format!("{app}/{name}")) {
            Error::UnknownFunction { function, nearest } if nearest.is_empty() => {
                let apps = invoker.apps();
                let is_own = |name: &String| apps.iter().any(|app| name.split('/').next() == Some(&app.name));
                let nearest = farther.into_iter().filter(|name| !is_own(name)).collect();
                Err(Error::UnknownFunction { function, nearest })
            }
            near => Err(near),
        },
        Err(error) => Err(error),
    }
}

/// The error for `function`, with the public names that look like it: in its own app, if there is such an app.
pub(crate) fn unknown<I: Invoke>(invoker: &I, function: &str) -> Error {
    let apps = invoker.apps();
    let (app, name) = function.split_once('/').unwrap_or((function, ""));
    let public = |of: Option<&str>| -> Vec<_> {
        let functions = apps.iter().filter(|it| of.is_none_or(|name| it.name == name)).flat_map(|it| &it.functions);
        functions.filter(|function| function.public).map(|function| &function.id).collect()
    };
    let nearest = match apps.iter().any(|it| it.name == app) {
        true => {
            let found = nearest(name, public(Some(app)).into_iter().map(|id| &*id.name));
            found.into_iter().map(|name| format!("{app}/{name}")).collect()
        }
        false => {
            let ids: Vec<_> = public(None).into_iter().map(ToString::to_string).collect();
            nearest(function, ids.iter().map(String::as_str))
        }
    };
    Error::UnknownFunction { function: function.to_owned(), nearest }
}
