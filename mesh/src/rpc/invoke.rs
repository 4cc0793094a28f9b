//! `invoke`: a call, carried to where it runs.

use std::{
    borrow::Cow,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use bytes::Bytes;
use fnmesh_invoke::{
    ChunkStream, Deadline, Error, Format, FunctionId, Invocation, InvocationId, Invoke, Payload, Reply, ReplyBody,
    RequestHead, ResponseHead, Room, Traceparent,
};
use futures_core::Stream;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::{INVOKE, PeerError, fail, fault, invalid, json, params};
use crate::{
    MAX_HOPS,
    membership::Load,
    transport::{Answer, Caller, Failure, INVALID_PARAMS, Item, Items, LocalFuture, Request, Response},
};

/// The parameters; the arguments are the body.
#[derive(Serialize, Deserialize)]
struct Params<'a> {
    #[serde(borrow)]
    function: Cow<'a, str>,
    #[serde(borrow)]
    invocation: Cow<'a, str>,
    /// What is left until the deadline, in microseconds: clocks differ, durations hardly.
    budget_us: u64,
    /// How often it has been forwarded, this time included.
    hops: u8,
    #[serde(default)]
    format: Format,
    #[serde(default, borrow, skip_serializing_if = "Option::is_none")]
    traceparent: Option<Cow<'a, str>>,
    #[serde(default, borrow, skip_serializing_if = "Option::is_none")]
    idempotency_key: Option<Cow<'a, str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    request: Option<Cow<'a, RequestHead>>,
}

/// What is said of an answer, or of one item of it; its value is the body.
#[derive(Serialize, Deserialize)]
struct Described {
    #[serde(default)]
    format: Format,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    head: Option<Box<ResponseHead>>,
    /// How busy the app is where it ran, if calls wait there and no more instances can start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    load: Option<Load>,
}

/// What a peer answers to an invocation.
#[derive(Debug)]
pub(crate) struct Answered {
    pub(crate) reply: Reply,
    /// How busy the app is there, if no more calls can begin.
    pub(crate) load: Option<Load>,
}

/// Runs an invocation at a peer. Dropping the future cancels it there.
///
/// The caller bounds it by the deadline, which the peer keeps, too.
pub(crate) async fn invoke(caller: &Caller, invocation: &Invocation) -> Result<Answered, PeerError> {
    let id = &invocation.function.id;
    let hex = invocation.id.to_hex();
    let budget = invocation.deadline.remaining(Instant::now());
    let params = Params {
        function: Cow::Owned(format!("{}/{}", id.app, id.name)),
        invocation: String::from_utf8_lossy(&hex),
        budget_us: u64::try_from(budget.as_micros()).unwrap_or(u64::MAX),
        hops: invocation.hops.saturating_add(1),
        format: invocation.payload.format,
        traceparent: invocation.traceparent.as_ref().map(|trace| trace.as_str().into()),
        idempotency_key: invocation.idempotency_key.as_deref().map(Cow::Borrowed),
        request: invocation.request.as_deref().map(Cow::Borrowed),
    };
    match caller.call(INVOKE, &params, invocation.payload.body.clone()).await? {
        Response::Value { result, body } => {
            let Described { format, head, load } = described(&result)?;
            Ok(Answered { reply: Reply::new(head, ReplyBody::Full(Payload { format, body })), load })
        }
        Response::Stream(items) => {
            let Described { head, load, .. } = described(items.opening())?;
            Ok(Answered { reply: Reply::new(head, ReplyBody::Stream(Box::pin(Chunks(items)))), load })
        }
    }
}

fn described(text: &RawValue) -> Result<Described, PeerError> {
    serde_json::from_str(text.get()).map_err(|error| invalid(&error.to_string()))
}

/// The items of a streamed answer, as payloads.
struct Chunks(Items);

impl Stream for Chunks {
    type Item = Result<Payload, Error>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let item = ready!(Pin::new(&mut self.0).poll_next(cx));
        let payload = |(text, body): Item| Ok(Payload { format: described(&text)?.format, body });
        let item = item.map(|item| item.map_err(PeerError::from).and_then(payload));
        Poll::Ready(item.map(|item| {
            item.map_err(|error| match error {
                PeerError::Failed(error) => error,
                PeerError::Lost(reason) | PeerError::NotSent(reason) => {
                    Error::internal(format!("the streamed answer was cut off: {reason}"))
                }
            })
        }))
    }
}

pub(super) fn answer<L: Invoke + Clone>(local: &L, request: &Request<'_>) -> LocalFuture<Answer> {
    let call = match read(request) {
        Ok(call) => call,
        Err(failure) => return fail(failure),
    };
    let local = local.clone();
    Box::pin(async move {
        match call.run(&local).await {
            Ok(Answered { reply: Reply { head, body: ReplyBody::Full(Payload { format, body }), .. }, load }) => {
                Answer::Value { result: json(&Described { format, head, load }), body }
            }
            Ok(Answered { reply: Reply { head, body: ReplyBody::Stream(chunks), .. }, load }) => Answer::Stream {
                opening: json(&Described { format: Format::default(), head, load }),
                items: Box::pin(Outgoing(chunks)),
            },
            Err(error) => Answer::Failed(fault::failure(&error)),
        }
    })
}

/// The call that a request asks for.
pub(crate) fn read(request: &Request<'_>) -> Result<Call, Failure> {
    let received = Instant::now();
    Call::read(params(request)?, request.body.clone(), received)
}

/// A call as it came, its function not yet looked up.
pub(crate) struct Call {
    id: InvocationId,
    function: FunctionId,
    payload: Payload,
    deadline: Deadline,
    hops: u8,
    traceparent: Option<Traceparent>,
    idempotency_key: Option<Box<str>>,
    request: Option<Box<RequestHead>>,
}

impl Call {
    fn read(params: Params<'_>, body: Bytes, received: Instant) -> Result<Self, Failure> {
        let invalid =
            |what: &str| Failure::new(INVALID_PARAMS, format_args!("invalid parameters of {INVOKE:?}: {what}"));
        let (app, name) =
            params.function.split_once('/').ok_or_else(|| invalid("\"function\" must be app/function"))?;
        Ok(Self {
            id: InvocationId::parse(&params.invocation)
                .ok_or_else(|| invalid("\"invocation\" must be 32 hex digits"))?,
            function: FunctionId { app: app.into(), name: name.into() },
            payload: Payload { format: params.format, body },
            deadline: Deadline::after(received, Duration::from_micros(params.budget_us)),
            hops: params.hops,
            traceparent: params.traceparent.and_then(|text| Traceparent::parse(text.as_bytes())),
            idempotency_key: params.idempotency_key.map(|key| key.into()),
            request: params.request.map(|request| Box::new(request.into_owned())),
        })
    }

    async fn run<L: Invoke>(self, local: &L) -> Result<Answered, Error> {
        if self.hops > MAX_HOPS {
            return Err(Error::LoopDetected { hops: self.hops });
        }
        let function = local.resolve(&self.function.app, &self.function.name).await?;
        if self.deadline.is_over(Instant::now()) {
            return Err(Error::DeadlineExceeded { function: self.function, timeout: function.limits.timeout });
        }
        let Self { id, payload, deadline, hops, traceparent, idempotency_key, request, .. } = self;
        let called = Arc::clone(&function);
        let invocation = Invocation { id, function, payload, request, deadline, hops, traceparent, idempotency_key };
        let reply = local.call(invocation).await?;
        let load = match local.room(&called) {
            Room::Full { calls, capacity } => Some(Load::new(calls, capacity)),
            Room::Free | Room::Gone => None,
        };
        Ok(Answered { reply, load })
    }
}

/// The items of a function, as they are sent.
struct Outgoing(ChunkStream);

impl Stream for Outgoing {
    type Item = Result<Item, Failure>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        Poll::Ready(ready!(self.0.as_mut().poll_next(cx)).map(|item| match item {
            Ok(Payload { format, body }) => Ok((json(&Described { format, head: None, load: None }), body)),
            Err(error) => Err(fault::failure(&error)),
        }))
    }
}
