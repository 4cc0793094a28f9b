//! The side of a link that sends requests.

mod ends;

use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError,
    atomic::{AtomicU64, Ordering},
};

use bytes::{Bytes, BytesMut};
use quinn::Connection;
use serde::Serialize;
use tokio::{
    sync::{Notify, oneshot},
    task::JoinSet,
};

use self::ends::{End, Withdrawal};
use super::{
    LARGE_BYTES,
    calls::{CallError, Calls, Pending, Response, Sent},
    envelope::{self, Message},
    frame::{self, Frame, Limits},
    items::Items,
    outbox::Outbox,
    quic::LONG_ROUND_TRIP,
    reader::{ReadError, Reader},
};

/// Call streams of a link with long round trips, so that a lost packet holds up an eighth of the calls.
const LONG_LINK_STREAMS: usize = 8;

/// Room for most requests without their body, in bytes.
const HEAD_BYTES: usize = 512;

/// Sends requests over one link and awaits their answers: from any thread, any number at a time.
#[derive(Clone)]
pub struct Caller(Arc<Inner>);

struct Inner {
    connection: Connection,
    /// The long-lived streams that small requests share.
    streams: Box<[Arc<Outbox>]>,
    calls: Mutex<Calls>,
    /// Told when no more calls are taken and none is left.
    finished: Notify,
    /// The last id that was given to a request.
    numbered: AtomicU64,
    limits: Limits,
}

impl Caller {
    /// The caller of a link whose handshake is complete.
    ///
    /// The second value carries the calls: it has to be polled as long as the link is wanted, and ends with the
    /// reason when the link is lost. Calls in flight end with it, also when it is dropped.
    pub fn new(connection: Connection, limits: Limits) -> (Self, impl Future<Output = Arc<str>> + Send + 'static) {
        let count = if connection.rtt() > LONG_ROUND_TRIP { LONG_LINK_STREAMS } else { 1 };
        let streams = (0..count).map(|_| Arc::default()).collect();
        let inner = Arc::new(Inner {
            connection,
            streams,
            calls: Mutex::default(),
            finished: Notify::new(),
            numbered: AtomicU64::new(0),
            limits,
        });
        let end = End(Arc::clone(&inner));
        let run = async move {
            // Moved in as a whole: a future that is never polled ends the calls, too.
            let end = end;
            Arc::clone(&end.0).run().await
        };
        (Self(inner), run)
    }

    /// The connection it uses.
    pub fn connection(&self) -> &Connection {
        &self.0.connection
    }

    /// How many requests wait for their answer.
    pub fn in_flight(&self) -> usize {
        self.0.calls().pending.len()
    }

    /// Sends a request and awaits its answer. Dropping the future withdraws the request.
    ///
    /// There is no timeout: a peer that is gone is noticed by the link, and everything else is the caller's to bound.
    ///
    /// # Errors
    /// [`CallError`], which tells whether the peer may have acted on the request.
    pub async fn call(&self, method: &str, params: &impl Serialize, body: Bytes) -> Result<Response, CallError> {
        let id = self.0.number();
        // Before the locks, which other threads wait for.
        let mut head = BytesMut::with_capacity(HEAD_BYTES);
        frame::head(&mut head, |out| envelope::request(out, id, method, params), body.len());
        if body.len() > LARGE_BYTES {
            return self.0.call_alone(id, head.freeze(), body).await;
        }
        let outbox = self.0.shared_stream(id);
        outbox.room().await;
        let (answer, answered) = oneshot::channel();
        let added = {
            let mut calls = self.0.calls();
            calls.check()?;
            // Under the lock: the answer finds the call, and the loss of the link finds it or is seen above.
            let added = outbox.add(|out| {
                out.extend_from_slice(&head);
                out.extend_from_slice(&body);
            });
            let Some(added) = added else { return Err(calls.refused()) };
            let sent = Sent::From { outbox: Arc::clone(outbox), offset: added.offset };
            calls.pending.insert(id, Pending { answer, sent });
            added
        };
        outbox.wake(&added);
        let withdrawal = Withdrawal { inner: &self.0, id };
        let answer = answered.await;
        std::mem::forget(withdrawal);
        answer.unwrap_or_else(|_| Err(self.0.calls().forgotten()))
    }

    /// Takes no more calls, and resolves when those in flight have ended. A stream of items has when it begins.
    pub async fn finish(&self) {
        let finished = self.0.finished.notified();
        {
            let mut calls = self.0.calls();
            calls.lost.get_or_insert_with(|| "the peer leaves".into());
            if calls.pending.is_empty() {
                return;
            }
        }
        finished.await;
    }

    /// Sends a notification, which nobody answers and which may be lost with the link. Dropped when the link is
    /// crowded: what is sent this way is of use now or never.
    pub fn notify(&self, method: &str, params: &impl Serialize, body: &[u8]) {
        let write = |out: &mut BytesMut| envelope::notification(out, method, params);
        if let Some(outbox) = self.0.streams.first().filter(|outbox| !outbox.is_crowded()) {
            outbox.push(|out| frame::encode(out, write, body));
        }
    }
}

impl Inner {
    fn calls(&self) -> MutexGuard<'_, Calls> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn number(&self) -> u64 {
        self.numbered.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// The call that waits for this answer. The lock is free again when it is given its answer, which wakes threads.
    fn take(&self, id: u64) -> Option<Pending> {
        let mut calls = self.calls();
        let taken = calls.pending.remove(&id);
        if calls.lost.is_some() && calls.pending.is_empty() {
            self.finished.notify_waiters();
        }
        taken
    }

    fn shared_stream(&self, id: u64) -> &Arc<Outbox> {
        &self.streams[id as usize % self.streams.len()]
    }

    /// A request on a stream of its own, which holds up no other.
    async fn call_alone(&self, id: u64, head: Bytes, body: Bytes) -> Result<Response, CallError> {
        let not_sent = |error: &dyn std::fmt::Display| CallError::NotSent(error.to_string().into());
        self.calls().check()?;
        let (mut send, recv) = self.connection.open_bi().await.map_err(|error| not_sent(&error))?;
        let (answer, mut answered) = oneshot::channel();
        {
            let mut calls = self.calls();
            calls.check()?;
            calls.pending.insert(id, Pending { answer, sent: Sent::Maybe });
        }
        let withdrawal = Withdrawal { inner: self, id };
        let exchange = async {
            // The answer, also to a request that was not read to its end, says more than an error here.
            let _ = send.write_all_chunks(&mut [head, body]).await;
            let _ = send.finish();
            let mut reader = Reader::new(recv, self.limits);
            if let Ok(Some(frame)) = reader.next().await {
                let _ = self.answered(&frame);
            }
        };
        let answer = tokio::select! {
            biased;
            answer = &mut answered => answer,
            () = exchange => answered.await,
        };
        std::mem::forget(withdrawal);
        answer.unwrap_or_else(|_| Err(self.calls().forgotten()))
    }

    /// Carries the calls until the link is lost.
    async fn run(self: Arc<Self>) -> Arc<str> {
        let mut tasks = JoinSet::new();
        for outbox in &self.streams {
            tasks.spawn(Arc::clone(&self).share(Arc::clone(outbox)));
        }
        tasks.spawn(Arc::clone(&self).accept_answers());
        let failed = async {
            while let Some(ended) = tasks.join_next().await {
                match ended {
                    Ok(Ok(())) => {}
                    Ok(Err(reason)) => return reason,
                    Err(error) => return error.to_string(),
                }
            }
            "all streams have ended".to_owned()
        };
        let reason = tokio::select! {
            biased;
            closed = self.connection.closed() => closed.to_string(),
            reason = failed => {
                super::refuse(&self.connection, &reason);
                reason
            }
        };
        let reason: Arc<str> = reason.into();
        self.lose(&reason);
        reason
    }

    /// Ends all calls in flight.
    fn lose(&self, reason: &Arc<str>) {
        let pending = {
            let mut calls = self.calls();
            calls.lost.get_or_insert_with(|| Arc::clone(reason));
            std::mem::take(&mut calls.pending)
        };
        self.finished.notify_waiters();
        self.streams.iter().for_each(|outbox| outbox.close());
        pending.into_values().for_each(|call| call.lose(reason));
    }

    /// Opens one of the shared streams, writes its requests and reads its answers.
    async fn share(self: Arc<Self>, outbox: Arc<Outbox>) -> Result<(), String> {
        let (mut send, recv) = self.connection.open_bi().await.map_err(|error| error.to_string())?;
        let write = async { outbox.write(&mut send).await.map_err(|error| error.to_string()) };
        let read = async {
            let mut reader = Reader::new(recv, self.limits);
            while let Some(frame) = reader.next().await.map_err(|error| error.to_string())? {
                self.answered(&frame)?;
            }
            Err("the peer has closed a stream of calls".to_owned())
        };
        tokio::try_join!(write, read).map(|_: ((), ())| ())
    }

    /// Takes the answers that come on streams of their own.
    async fn accept_answers(self: Arc<Self>) -> Result<(), String> {
        let mut answers = JoinSet::new();
        loop {
            tokio::select! {
                stream = self.connection.accept_uni() => {
                    let reader = Reader::new(stream.map_err(|error| error.to_string())?, self.limits);
                    answers.spawn(Arc::clone(&self).answered_alone(reader));
                }
                Some(ended) = answers.join_next() => ended.map_err(|error| error.to_string())??,
            }
        }
    }

    async fn answered_alone(self: Arc<Self>, mut reader: Reader) -> Result<(), String> {
        match reader.next().await {
            Ok(Some(frame)) => match Message::parse(&frame.envelope).map_err(|failure| failure.message)? {
                Message::Notification { method: super::OPEN, params } => {
                    let (id, opening) = super::items::opening(params)?;
                    // Withdrawn calls are not there any more; dropping the reader then stops the stream.
                    if let Some(pending) = self.take(id) {
                        let _ = pending.answer.send(Ok(Response::Stream(Items::new(opening, reader))));
                    }
                    Ok(())
                }
                _ => self.answered(&frame),
            },
            // Reset by the peer, for a call that was withdrawn.
            Ok(None) | Err(ReadError::Stream(_)) => Ok(()),
            Err(ReadError::Frame(error)) => Err(error.to_string()),
        }
    }

    /// Gives an answer to its call.
    fn answered(&self, frame: &Frame) -> Result<(), String> {
        let Message::Response { id, outcome } = Message::parse(&frame.envelope).map_err(|failure| failure.message)?
        else {
            return Err("a message that is no answer came where answers are expected".to_owned());
        };
        // Withdrawn calls are not there any more.
        if let Some(pending) = self.take(id) {
            let answer = match outcome {
                Ok(result) => Ok(Response::Value { result: result.to_owned(), body: frame.body.clone() }),
                Err(failure) => Err(CallError::Failed(failure)),
            };
            let _ = pending.answer.send(answer);
        }
        Ok(())
    }
}
