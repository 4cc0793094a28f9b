//! From a request to its answer.

use std::{convert::Infallible, rc::Rc, time::Instant};

use fnmesh_invoke::Invoke;
use http::{HeaderValue, Method, Request, StatusCode, header::ALLOW};
use hyper::body::Incoming;
use tracing::Level;

use crate::{
    body::{Answer, Body},
    call,
    connection::{Busy, Connection},
    control, cors,
    headers::Hints,
    refusal::Refusal,
    request::Head,
    respond::{self, Response},
    route::Route,
    rpc,
    thread::Thread,
};

/// Answers a request that hyper has read.
pub(crate) async fn serve_http2<I: Invoke>(
    thread: Rc<Thread<I>>,
    connection: Rc<Connection>,
    request: Request<Incoming>,
) -> Result<http::Response<Answer>, Infallible> {
    let (parts, body) = request.into_parts();
    let response = answer(&thread, &connection, &Head::of_parts(&parts), Body::Http2(body)).await;
    Ok(response.into_http2())
}

/// Answers one request. Dropping the future cancels the call it makes.
pub(crate) async fn answer<I: Invoke>(
    thread: &Rc<Thread<I>>,
    connection: &Rc<Connection>,
    head: &Head<'_>,
    body: Body<'_>,
) -> Response {
    let seen = Seen::of(head);
    let busy = Busy::new(Rc::clone(connection));
    let mut response = match Route::of(head.path) {
        Ok(Route::Control(path)) => control::answer(thread, head, path),
        _ if connection.control_only.get() => {
            Response { close: true, ..respond::rejection(&thread.shared.connections.refusal().into(), None) }
        }
        route => follow(thread, head, route, body, busy).await,
    };
    if head.method == Method::HEAD {
        response.drop_body();
    }
    if let Answer::Full(body) = &mut response.body {
        *body = thread.shared.memory.lease().hold(std::mem::take(body));
    }
    thread.counters().answered(response.status);
    if let Some(seen) = seen {
        seen.log(&response);
    }
    response
}

async fn follow<I: Invoke>(
    thread: &Rc<Thread<I>>,
    head: &Head<'_>,
    route: Result<Route<'_>, Refusal>,
    body: Body<'_>,
    busy: Busy,
) -> Response {
    let hints = Hints::of(head);
    let origin = thread.cors_origin().filter(|_| hints.has_origin);
    let mut response = match route {
        _ if origin.is_some() && cors::is_preflight(head) => cors::preflight(head),
        Ok(Route::Function(path)) => call::answer(thread, head, &hints, body, &path, busy).await,
        // Boxed: it would make the future of every connection larger.
        Ok(Route::Rpc) => Box::pin(rpc::answer(thread, head, &hints, body)).await,
        Ok(Route::App(app)) => read(head, || control::functions(thread, &app)),
        Ok(Route::Home) => read(head, || control::greeting(thread)),
        Ok(Route::Control(path)) => control::answer(thread, head, path),
        Err(refusal) => respond::rejection(&refusal.into(), None),
    };
    if let Some(origin) = origin {
        cors::expose(&mut response, origin);
    }
    response
}

/// Answers what can only be read.
pub(crate) fn read(head: &Head<'_>, response: impl FnOnce() -> Response) -> Response {
    const METHODS: &str = "GET, HEAD, OPTIONS";
    match head.method {
        Method::GET | Method::HEAD => response(),
        Method::OPTIONS => {
            let mut response = respond::empty(StatusCode::NO_CONTENT);
            response.headers.push((ALLOW, HeaderValue::from_static(METHODS)));
            response
        }
        _ => {
            let message = format!("{} takes GET, not {}", head.path, head.method);
            respond::rejection(&Refusal::method(message, METHODS).into(), None)
        }
    }
}

/// What the request log says of a request. Kept only where somebody reads it.
struct Seen {
    method: Method,
    path: String,
    started: Instant,
}

impl Seen {
    fn of(head: &Head<'_>) -> Option<Self> {
        tracing::enabled!(target: "fnmesh::request", Level::DEBUG).then(|| Self {
            method: head.method.clone(),
            path: head.path.to_owned(),
            started: Instant::now(),
        })
    }

    fn log(self, response: &Response) {
        tracing::debug!(
            target: "fnmesh::request",
            method = %self.method,
            path = self.path,
            status = response.status.as_u16(),
            elapsed_us = u64::try_from(self.started.elapsed().as_micros()).unwrap_or(u64::MAX),
            invocation = response.invocation.map(tracing::field::display),
            "request"
        );
    }
}
