//! HTTP/1 connections: one request after the other, each answered on the thread that read it.
//!
//! Of our own, because a request passes here in a third of the instructions that a general library
//! takes; what is hard about HTTP/1 is in [`crate::strict`]. See `docs/adr/0012-own-http1.md`.

mod date;
mod encode;
mod upload;
mod wire;

use std::{
    future::poll_fn,
    io,
    rc::Rc,
    task::{Poll, ready},
    time::Instant,
};

use fnmesh_invoke::Invoke;

use crate::{
    body::{Answer, Body},
    refusal::Refusal,
    respond::{self, Response},
    service,
    stream::StreamBody,
    strict::{Framing, Head},
    thread::Thread,
};
use encode::Length;
pub(crate) use upload::Upload;
pub(crate) use wire::{Buffers, Wire};

/// Memory that a connection may keep while it waits for the next request.
const IDLE_BYTES: usize = 4 * 1024;
/// Answers up to this size go out with their head; items of a stream are gathered up to it.
const GATHERED_BYTES: usize = 16 * 1024;

/// Serves the requests of a connection until it ends; `input` is what was read of it already.
pub(crate) async fn converse<I: Invoke>(thread: &Rc<Thread<I>>, wire: &Wire, mut input: Vec<u8>) {
    let mut head = Head::default();
    let limit = thread.config().head_limit();
    loop {
        let (length, framing) = match next_head(wire, &mut head, &mut input, limit).await {
            Ok(Some(found)) => found,
            Ok(None) => return,
            Err(refusal) => {
                let response = respond::rejection(&refusal.into(), None);
                thread.counters().answered(response.status);
                if respond(wire, response, &head, false).await.is_ok() {
                    wire.farewell(true).await;
                }
                return;
            }
        };
        let (bytes, behind) = input.split_at(length);
        let upload = Upload::new(wire, behind, framing, head.expects_continue);
        let Ok(stays) = exchange(thread, wire, &head, bytes, &upload).await else { return };
        let (taken, is_whole) = (length + upload.taken(), upload.is_over());
        if !stays {
            let is_over = is_whole && taken == input.len() && wire.ahead().is_empty();
            return wire.farewell(!is_over).await;
        }
        input.drain(..taken);
        input.append(&mut wire.ahead());
        if input.is_empty() && input.capacity() > IDLE_BYTES {
            input = Vec::new();
        }
        head.reset();
    }
}

/// Reads a request head into `input`: its length, and how the body ends. `None` at the end of the
/// connection.
async fn next_head(
    wire: &Wire,
    head: &mut Head,
    input: &mut Vec<u8>,
    limit: usize,
) -> Result<Option<(usize, Framing)>, Refusal> {
    let connection = wire.connection();
    let mut fresh = !input.is_empty();
    poll_fn(|cx| {
        loop {
            if std::mem::take(&mut fresh)
                && let Some(found) = head.check(input, limit).transpose()
            {
                connection.head_since.set(None);
                return Poll::Ready(found.map(Some));
            }
            if connection.head_late.get() {
                connection.head_since.set(None);
                return Poll::Ready(Err(Refusal::timeout("the rest of the request head did not come in time")));
            }
            match wire.poll_read(cx, usize::MAX, |bytes| input.extend_from_slice(bytes)) {
                Poll::Ready(Ok(1..)) => fresh = true,
                Poll::Ready(_) => return Poll::Ready(Ok(None)),
                Poll::Pending if input.is_empty() && connection.closing.get() => return Poll::Ready(Ok(None)),
                Poll::Pending => {
                    if !input.is_empty() && connection.head_since.get().is_none() {
                        connection.head_since.set(Some(Instant::now()));
                    }
                    return Poll::Pending;
                }
            }
        }
    })
    .await
}

/// Answers one request; says whether the connection stays.
///
/// # Errors
/// When the answer cannot be written, or broke off.
async fn exchange<I: Invoke>(
    thread: &Rc<Thread<I>>,
    wire: &Wire,
    head: &Head,
    bytes: &[u8],
    upload: &Upload<'_>,
) -> io::Result<bool> {
    let request = head.read(bytes);
    let connection = wire.connection();
    connection.http10.set(head.http10);
    // While it runs, and once nothing of the body is left to read, `connection::run` watches the client.
    connection.watched.set(upload.is_over());
    let response = service::answer(thread, connection, &request, Body::Http1(upload)).await;
    connection.watched.set(false);
    let stays = !response.close && !head.wants_close() && !connection.closing.get() && upload.skip_rest();
    respond(wire, response, head, stays).await
}

/// Writes an answer; says whether the connection stays, which a stream may prevent.
async fn respond(wire: &Wire, response: Response, head: &Head, stays: bool) -> io::Result<bool> {
    let length = match &response.body {
        Answer::Stream(_) if head.http10 => Length::UntilClose,
        Answer::Stream(_) => Length::Chunked,
        Answer::Full(body) => Length::Known(body.len()),
        Answer::Empty => Length::Known(0),
    };
    let stays = stays && length != Length::UntilClose;
    let connection = match (stays, head.http10) {
        (true, false) => None,
        (true, true) => Some("keep-alive"),
        (false, _) => Some("close"),
    };
    let encode = |out: &mut Vec<u8>, date: &[u8]| encode::head(&response, length, connection, date, out);
    match &response.body {
        Answer::Empty => wire.send(encode).await?,
        Answer::Full(body) if body.len() <= GATHERED_BYTES => {
            wire.send(|out, date| {
                encode(out, date);
                out.extend_from_slice(body);
            })
            .await?;
        }
        Answer::Full(body) => {
            wire.send(encode).await?;
            wire.send_all(body).await?;
        }
        Answer::Stream(_) => {
            let out = wire.compose(encode);
            let Answer::Stream(body) = response.body else { unreachable!("matched above") };
            send_stream(wire, body, out, length == Length::Chunked).await?;
        }
    }
    Ok(stays)
}

/// Sends `out` and then the items, each as soon as it is there.
///
/// # Errors
/// When the client is gone or the items end with an error; then the answer breaks off.
async fn send_stream(wire: &Wire, mut body: Box<StreamBody>, mut out: Vec<u8>, chunked: bool) -> io::Result<()> {
    loop {
        let is_end = poll_fn(|cx| {
            while out.len() < GATHERED_BYTES {
                match body.poll_item(cx) {
                    Poll::Ready(Some(Ok(item))) if chunked => encode::chunk(&item, &mut out),
                    Poll::Ready(Some(Ok(item))) => out.extend_from_slice(&item),
                    Poll::Ready(Some(Err(error))) => return Poll::Ready(Err(io::Error::other(error))),
                    Poll::Ready(None) => return Poll::Ready(Ok(true)),
                    Poll::Pending if !out.is_empty() => return Poll::Ready(Ok(false)),
                    Poll::Pending => {
                        ready!(wire.poll_gone(cx));
                        return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
                    }
                }
            }
            Poll::Ready(Ok(false))
        })
        .await?;
        if is_end && chunked {
            out.extend_from_slice(encode::LAST_CHUNK);
        }
        wire.send_all(&out).await?;
        if is_end {
            return Ok(());
        }
        out.clear();
    }
}
