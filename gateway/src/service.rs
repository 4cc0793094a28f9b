//! What hyper calls for each request.

use std::{convert::Infallible, rc::Rc, time::Instant};

use fnmesh_invoke::Invoke;
use http::{
    HeaderValue, Method, Request, Response, StatusCode, Version,
    header::{ALLOW, ORIGIN},
    request::Parts,
};
use hyper::body::Incoming;
use tracing::Level;

use crate::{
    body::Answer,
    call,
    connection::{Busy, Connection},
    control, cors,
    headers::X_INVOCATION_ID,
    io::REFUSED_METHOD,
    refusal::Refusal,
    respond,
    route::Route,
    rpc,
    thread::Thread,
};

/// Answers one request. Dropping the future cancels the call it makes.
pub(crate) async fn serve<I: Invoke>(
    thread: Rc<Thread<I>>,
    connection: Rc<Connection>,
    request: Request<Incoming>,
) -> Result<Response<Answer>, Infallible> {
    let seen = Seen::of(&request);
    let (head, body) = request.into_parts();
    connection.http10.set(head.version == Version::HTTP_10);
    let busy = Busy::new(Rc::clone(&connection));
    let mut response = answer(&thread, &connection, &head, body, busy).await;
    if head.method == Method::HEAD {
        respond::without_body(&mut response);
    }
    thread.counters().answered(response.status());
    if let Some(seen) = seen {
        seen.log(&response);
    }
    Ok(response)
}

async fn answer<I: Invoke>(
    thread: &Rc<Thread<I>>,
    connection: &Connection,
    head: &Parts,
    body: Incoming,
    busy: Busy,
) -> Response<Answer> {
    if head.method.as_str() == REFUSED_METHOD
        && let Some(why) = connection.refused.take()
    {
        return respond::rejection(&why.into(), None);
    }
    let route = match Route::of(head.uri.path()) {
        Ok(Route::Control(path)) => return control::answer(thread, head, path),
        route => route,
    };
    let origin = thread.cors_origin().filter(|_| head.headers.contains_key(ORIGIN));
    let mut response = match route {
        _ if origin.is_some() && cors::is_preflight(head) => cors::preflight(head),
        Ok(Route::Function(path)) => call::answer(thread, connection, head, body, path, busy).await,
        Ok(Route::Rpc) => rpc::answer(thread, connection, head, body).await,
        Ok(Route::App(app)) => read(head, || control::functions(thread, &app)),
        Ok(Route::Home) => read(head, || control::greeting(thread)),
        Ok(Route::Control(_)) => respond::empty(StatusCode::NOT_FOUND),
        Err(refusal) => respond::rejection(&refusal.into(), None),
    };
    if let Some(origin) = origin {
        cors::expose(response.headers_mut(), origin);
    }
    response
}

/// Answers what can only be read.
pub(crate) fn read(head: &Parts, response: impl FnOnce() -> Response<Answer>) -> Response<Answer> {
    const METHODS: &str = "GET, HEAD, OPTIONS";
    match head.method {
        Method::GET | Method::HEAD => response(),
        Method::OPTIONS => {
            let mut response = respond::empty(StatusCode::NO_CONTENT);
            response.headers_mut().insert(ALLOW, HeaderValue::from_static(METHODS));
            response
        }
        _ => {
            let message = format!("{} takes GET, not {}", head.uri.path(), head.method);
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
    fn of(request: &Request<Incoming>) -> Option<Self> {
        tracing::enabled!(target: "fnmesh::request", Level::DEBUG).then(|| Self {
            method: request.method().clone(),
            path: request.uri().path().to_owned(),
            started: Instant::now(),
        })
    }

    fn log(self, response: &Response<Answer>) {
        let invocation = response.headers().get(X_INVOCATION_ID).and_then(|value| value.to_str().ok());
        tracing::debug!(
            target: "fnmesh::request",
            method = %self.method,
            path = self.path,
            status = response.status().as_u16(),
            elapsed_us = u64::try_from(self.started.elapsed().as_micros()).unwrap_or(u64::MAX),
            invocation = invocation.unwrap_or_default(),
            "request"
        );
    }
}
