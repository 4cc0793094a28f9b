//! The side of a link that answers requests.

use std::{cell::RefCell, fmt, future::poll_fn, pin::Pin, rc::Rc, sync::Arc};

use bytes::{Bytes, BytesMut};
use futures_core::Stream;
use quinn::{Connection, SendStream, WriteError};
use rustc_hash::FxHashMap;
use serde_json::value::RawValue;
use tokio::task::{AbortHandle, JoinSet};
use tokio_util::task::TaskTracker;

use super::{
    CANCEL, Cancel, ITEM, LARGE_BYTES, OPEN,
    envelope::{self, Failure, INTERNAL_ERROR, Message},
    frame::{self, Frame, Limits},
    items::{Item, Opening},
    outbox::Outbox,
    reader::{ReadError, Reader},
    work::{Begun, Work},
};

/// A future of the thread it was made on.
pub type LocalFuture<T> = Pin<Box<dyn Future<Output = T>>>;

/// Items of a streamed answer; an error is the last one.
pub type Outgoing = Pin<Box<dyn Stream<Item = Result<Item, Failure>>>>;

/// Answers the requests of peers.
pub trait Handler: 'static {
    /// Starts to answer one request. Dropping the future withdraws it.
    fn handle(&self, request: Request<'_>) -> LocalFuture<Answer>;

    /// Takes a notification.
    fn notified(&self, notification: Request<'_>);
}

/// A request, or a notification, of a peer.
#[derive(Clone, Debug)]
pub struct Request<'a> {
    /// The name of the method.
    pub method: &'a str,
    /// Its parameters, as JSON.
    pub params: Option<&'a RawValue>,
    /// The bytes beside it.
    pub body: Bytes,
}

/// An answer to a request.
pub enum Answer {
    /// One value.
    Value {
        /// The result, as JSON.
        result: Box<RawValue>,
        /// The bytes beside it.
        body: Bytes,
    },
    /// One item after the other.
    Stream {
        /// What is said before the first item, as JSON.
        opening: Box<RawValue>,
        /// The items, pulled as fast as the peer reads them.
        items: Outgoing,
    },
    /// None.
    Failed(Failure),
}

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Value { result, body } => {
                f.debug_struct("Value").field("result", result).field("body", body).finish()
            }
            Self::Stream { opening, .. } => f.debug_struct("Stream").field("opening", opening).finish_non_exhaustive(),
            Self::Failed(failure) => f.debug_tuple("Failed").field(failure).finish(),
        }
    }
}

/// Answers the requests that come over a link until it is lost; returns why. Call it within a `LocalSet`.
pub async fn serve<H: Handler>(connection: Connection, handler: Rc<H>, limits: Limits) -> Arc<str> {
    serve_counted(connection, handler, limits, Rc::default()).await
}

/// The same; what has been begun is counted in `work`.
pub(crate) async fn serve_counted<H: Handler>(
    connection: Connection,
    handler: Rc<H>,
    limits: Limits,
    work: Rc<Work>,
) -> Arc<str> {
    let server = Rc::new(Server { connection, handler, work, running: RefCell::default() });
    let _withdrawal = WithdrawAll(&server);
    let mut streams = JoinSet::new();
    loop {
        tokio::select! {
            stream = server.connection.accept_bi() => match stream {
                Ok((send, recv)) => {
                    streams.spawn_local(Rc::clone(&server).answer_stream(send, Reader::new(recv, limits)));
                }
                Err(error) => break error.to_string().into(),
            },
            Some(ended) = streams.join_next() => if let Err(reason) = ended.unwrap_or_else(|error| Err(error.to_string())) {
                super::refuse(&server.connection, &reason);
                break reason.into();
            }
        }
    }
}

/// Ends the requests that are still answered when nobody can take the answers any more.
struct WithdrawAll<'a, H>(&'a Server<H>);

impl<H> Drop for WithdrawAll<'_, H> {
    fn drop(&mut self) {
        let running = self.0.running.take();
        running.into_values().for_each(|task| task.abort());
    }
}

struct Server<H> {
    connection: Connection,
    handler: Rc<H>,
    work: Rc<Work>,
    /// The requests being answered, by their id.
    running: RefCell<FxHashMap<u64, AbortHandle>>,
}

impl<H: Handler> Server<H> {
    async fn answer_stream(self: Rc<Self>, mut send: SendStream, mut reader: Reader) -> Result<(), String> {
        let outbox = Arc::new(Outbox::default());
        let write = async {
            // A peer that has stopped listening here has gone, or has taken its one request back.
            let _ = outbox.write(&mut send).await;
            Ok(())
        };
        let read = async {
            let requests = TaskTracker::new();
            let read = loop {
                match self.next(&mut reader).await {
                    Ok(Some(frame)) => self.take(&frame, &outbox, &requests)?,
                    Ok(None) | Err(ReadError::Stream(_)) => break Ok(()),
                    Err(ReadError::Frame(error)) => break Err(error.to_string()),
                }
            };
            requests.close();
            requests.wait().await;
            outbox.close();
            read
        };
        tokio::try_join!(write, read).map(|_: ((), ())| ())
    }

    /// The next frame, which counts as work from its first byte on.
    async fn next(&self, reader: &mut Reader) -> Result<Option<Frame>, ReadError> {
        let mut begun = None;
        poll_fn(|cx| {
            let next = reader.poll_next(cx);
            if next.is_pending() && reader.is_within_frame() {
                begun.get_or_insert_with(|| self.work.begin());
            }
            next
        })
        .await
    }

    /// Starts what a message asks for.
    fn take(self: &Rc<Self>, frame: &Frame, outbox: &Arc<Outbox>, requests: &TaskTracker) -> Result<(), String> {
        match Message::parse(&frame.envelope).map_err(|failure| failure.message)? {
            Message::Request { id, method, params } => {
                let answer = self.handler.handle(Request { method, params, body: frame.body.clone() });
                let guard = Unanswered {
                    server: Rc::clone(self),
                    id,
                    outbox: Arc::clone(outbox),
                    answered: false,
                    _begun: self.work.begin(),
                };
                let task = requests.spawn_local(guard.answer(answer)).abort_handle();
                let twin = self.running.borrow_mut().insert(id, task);
                if let Some(twin) = twin {
                    twin.abort();
                    return Err(format!("request id {id} is used twice at a time"));
                }
            }
            Message::Notification { method: CANCEL, params } => {
                let text = params.map_or("null", RawValue::get);
                let Cancel { id } =
                    serde_json::from_str(text).map_err(|error| format!("invalid parameters of {CANCEL:?}: {error}"))?;
                // It may have been answered meanwhile.
                if let Some(task) = self.running.borrow_mut().remove(&id) {
                    task.abort();
                }
            }
            Message::Notification { method, params } => {
                self.handler.notified(Request { method, params, body: frame.body.clone() });
            }
            Message::Response { .. } => return Err("an answer came where requests are expected".to_owned()),
        }
        Ok(())
    }

    /// Answers on a stream of its own, so that the answers beside it need not wait for this one.
    async fn answer_alone(&self, id: u64, answer: Answer) -> Result<(), WriteError> {
        let stream = self.connection.open_uni().await;
        let Ok(mut stream) = stream else { return Ok(()) };
        let mut head = BytesMut::new();
        match answer {
            Answer::Value { result, body } => {
                frame::head(&mut head, |out| envelope::response(out, id, Ok(&result)), body.len());
                stream.write_all_chunks(&mut [head.freeze(), body]).await?;
            }
            Answer::Failed(failure) => {
                frame::head(&mut head, |out| envelope::response(out, id, Err(&failure)), 0);
                stream.write_all(&head).await?;
            }
            Answer::Stream { opening, items } => {
                let opening = Opening { id, opening: &opening };
                frame::head(&mut head, |out| envelope::notification(out, OPEN, &opening), 0);
                stream.write_all(&head).await?;
                send_items(&mut stream, id, items).await?;
            }
        }
        // Only fails when it was finished before.
        let _ = stream.finish();
        // Until the peer has all of it, or wants no more: what a link carries is gone when it is closed.
        let _ = stream.stopped().await;
        Ok(())
    }
}

async fn send_items(stream: &mut SendStream, id: u64, mut items: Outgoing) -> Result<(), WriteError> {
    let mut head = BytesMut::new();
    let end = loop {
        let item = tokio::select! {
            item = poll_fn(|cx| items.as_mut().poll_next(cx)) => item,
            // The peer reads no more: an item that is long in coming should not be waited for.
            _ = stream.stopped() => return Ok(()),
        };
        match item {
            Some(Ok((item, body))) => {
                frame::head(&mut head, |out| envelope::notification(out, ITEM, &item), body.len());
                stream.write_all_chunks(&mut [head.split().freeze(), body]).await?;
            }
            Some(Err(failure)) => break Err(failure),
            None => break Ok(RawValue::NULL),
        }
    };
    frame::head(&mut head, |out| envelope::response(out, id, end.as_ref().copied()), 0);
    stream.write_all(&head).await
}

/// Sees to it that a request is answered, whatever becomes of its handler.
struct Unanswered<H: Handler> {
    server: Rc<Server<H>>,
    id: u64,
    outbox: Arc<Outbox>,
    answered: bool,
    _begun: Begun,
}

impl<H: Handler> Unanswered<H> {
    async fn answer(mut self, answer: LocalFuture<Answer>) {
        let answer = answer.await;
        self.answered = true;
        match answer {
            Answer::Value { result, body } if body.len() <= LARGE_BYTES => {
                self.outbox.room().await;
                let write = |out: &mut BytesMut| envelope::response(out, self.id, Ok(&result));
                self.outbox.push(|out| frame::encode(out, write, &body));
            }
            Answer::Failed(failure) => self.fail(&failure),
            answer => {
                // The peer has gone, or does not want it any more.
                let _ = self.server.answer_alone(self.id, answer).await;
            }
        }
    }

    fn fail(&self, failure: &Failure) {
        let write = |out: &mut BytesMut| envelope::response(out, self.id, Err(failure));
        self.outbox.push(|out| frame::encode(out, write, &[]));
    }
}

impl<H: Handler> Drop for Unanswered<H> {
    fn drop(&mut self) {
        self.server.running.borrow_mut().remove(&self.id);
        if !self.answered {
            self.fail(&Failure::new(INTERNAL_ERROR, "the request was withdrawn, or its handler has panicked"));
        }
    }
}
