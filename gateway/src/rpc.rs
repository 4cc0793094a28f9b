//! `POST /rpc`: JSON-RPC 2.0, <https://www.jsonrpc.org/specification>.
//!
//! A method is `app/function`. The members of a batch run side by side.

pub(crate) mod request;
mod result;

use std::{
    future::{Future, poll_fn},
    pin::Pin,
    sync::Arc,
    task::Poll,
    time::Instant,
};

use bytes::Bytes;
use fnmesh_invoke::{Deadline, Error, Invocation, InvocationId, Invoke, Outcome, Payload};
use http::{HeaderValue, Method, StatusCode, header::ALLOW};
use serde_json::value::RawValue;

use crate::{
    body::Body,
    call::{Meter, resolve},
    headers::Hints,
    refusal::Refusal,
    request::Head,
    respond::{self, Response},
    thread::Thread,
};
use request::{Call, Members, members};

const METHODS: &str = "POST, OPTIONS";

/// Answers a request to `/rpc`.
pub(crate) async fn answer<I: Invoke>(
    thread: &Thread<I>,
    head: &Head<'_>,
    hints: &Hints<'_>,
    body: Body<'_>,
) -> Response {
    if head.method == Method::OPTIONS {
        let mut response = respond::empty(StatusCode::NO_CONTENT);
        response.headers.push((ALLOW, HeaderValue::from_static(METHODS)));
        return response;
    }
    if head.method != Method::POST {
        let refusal = Refusal::method(format!("/rpc takes POST, not {}", head.method), METHODS);
        return respond::rejection(&refusal.into(), None);
    }
    let mut lease = thread.shared.memory.lease();
    match body.read(thread.config(), &mut lease).await {
        Ok(body) => run(thread, hints, &body).await,
        Err(rejection) => respond::rejection(&rejection, None),
    }
}

async fn run<I: Invoke>(thread: &Thread<I>, hints: &Hints<'_>, body: &Bytes) -> Response {
    let members = match members(body) {
        Ok(Members::Batch(members)) => members,
        Ok(Members::Single(member)) => {
            let id = InvocationId::random();
            let key = hints.idempotency_key.clone();
            let mut response = whole(member_answer(thread, hints, key, body, member, id).await);
            response.invocation = Some(id);
            return response;
        }
        Err(fault) => return whole(Some(result::fault(None, &fault))),
    };
    let calls = members.into_iter().enumerate().map(|(place, member)| {
        // Each is a call of its own. No header value has a line break in it.
        let key = hints.idempotency_key.as_deref().map(|key| format!("{key}\n{place}").into());
        let call = member_answer(thread, hints, key, body, member, InvocationId::random());
        Box::pin(call) as Pin<Box<dyn Future<Output = Option<Vec<u8>>> + '_>>
    });
    let answers: Vec<_> = join(calls.collect()).await.into_iter().flatten().collect();
    if answers.is_empty() {
        return whole(None);
    }
    let mut batch = vec![b'['];
    batch.extend_from_slice(&answers.join(&b','));
    batch.push(b']');
    whole(Some(batch))
}

fn whole(json: Option<Vec<u8>>) -> Response {
    json.map_or_else(|| respond::empty(StatusCode::NO_CONTENT), |json| respond::full(respond::JSON, json))
}

/// The answer to one request; `None` to a notification.
async fn member_answer<I: Invoke>(
    thread: &Thread<I>,
    hints: &Hints<'_>,
    idempotency_key: Option<Box<str>>,
    body: &Bytes,
    member: &RawValue,
    id: InvocationId,
) -> Option<Vec<u8>> {
    let call = match Call::read(member) {
        Ok(call) => call,
        Err((id, fault)) => return Some(result::fault(id, &fault)),
    };
    let outcome = execute(thread, hints, idempotency_key, body, &call, id).await;
    let answer_to = call.id?;
    Some(match outcome {
        Ok(json) => result::value(answer_to, &json),
        Err(error) => result::error(answer_to, &error, id),
    })
}

async fn execute<I: Invoke>(
    thread: &Thread<I>,
    hints: &Hints<'_>,
    idempotency_key: Option<Box<str>>,
    body: &Bytes,
    call: &Call<'_>,
    id: InvocationId,
) -> Result<Bytes, Error> {
    let started = Instant::now();
    let Some((app, name)) = call.method.split_once('/').filter(|(app, _)| !app.is_empty()) else {
        return Err(Error::UnknownFunction { function: call.method.to_string(), nearest: Vec::new() });
    };
    let function = resolve(&thread.invoker, app, name).await?;
    let meter = Meter::new(Arc::clone(&function), started);
    let invoked = async {
        if function.signature.takes_request {
            let message = format!("{} takes an HTTP request; call it at /{}", function.id, function.id);
            return Err(Error::invalid(message));
        }
        // A part of the request body, not a copy of it.
        let params = call.params.map_or_else(Bytes::new, |params| body.slice_ref(params.get().as_bytes()));
        let invocation = Invocation {
            id,
            deadline: Deadline::after(started, function.limits.timeout),
            function: Arc::clone(&function),
            payload: Payload::json(params),
            request: None,
            hops: 0,
            traceparent: hints.traceparent.clone(),
            idempotency_key,
        };
        result::collect(thread.invoker.call(invocation).await?, &function).await
    };
    let outcome = invoked.await;
    meter.end(outcome.as_ref().err().map_or(Outcome::Ok, Into::into));
    outcome
}

/// Runs futures side by side, in one task so that dropping it drops them.
async fn join<T>(mut futures: Vec<Pin<Box<dyn Future<Output = T> + '_>>>) -> Vec<T> {
    let mut results: Vec<Option<T>> = futures.iter().map(|_| None).collect();
    poll_fn(|cx| {
        let mut pending = false;
        for (future, result) in futures.iter_mut().zip(&mut results).filter(|(_, result)| result.is_none()) {
            match future.as_mut().poll(cx) {
                Poll::Ready(value) => *result = Some(value),
                Poll::Pending => pending = true,
            }
        }
        if pending { Poll::Pending } else { Poll::Ready(()) }
    })
    .await;
    results.into_iter().flatten().collect()
}
