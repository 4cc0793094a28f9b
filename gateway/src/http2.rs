//! HTTP/2 connections, which hyper speaks.

use std::{
    future::Future,
    io,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
    time::Duration,
};

use fnmesh_invoke::Invoke;
use hyper::{
    rt::{Read, ReadBufCursor, Write},
    server::conn::http2,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tokio_util::task::TaskTracker;

use crate::{
    connection::{self, Connection},
    service,
    thread::Thread,
};

/// What a client sends first. RFC 9113, 3.4.
pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Serves the requests of a connection until it ends; `input` is what was read of it already.
pub(crate) async fn converse<I: Invoke>(
    thread: &Rc<Thread<I>>,
    stream: TcpStream,
    connection: &Rc<Connection>,
    input: Vec<u8>,
) {
    let io = Io { stream: TokioIo::new(stream), connection: Rc::clone(connection), input, given: 0 };
    let service = service_fn({
        let (thread, connection) = (Rc::clone(thread), Rc::clone(connection));
        move |request| service::serve_http2(Rc::clone(&thread), Rc::clone(&connection), request)
    });
    let protocol = builder(thread).serve_connection(io, service);
    let config = thread.config();
    if let Some(Err(error)) =
        connection::run(protocol, |it| it.graceful_shutdown(), |_| Poll::Pending, connection, thread.hub(), config)
            .await
    {
        tracing::debug!(target: "fnmesh::gateway", %error, "connection broke off");
    }
}

fn builder<I: Invoke>(thread: &Thread<I>) -> http2::Builder<LocalExecutor> {
    let mut builder = http2::Builder::new(LocalExecutor(thread.tasks().clone()));
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(256)
        .max_header_list_size(u32::try_from(thread.config().head_limit()).unwrap_or(u32::MAX))
        .keep_alive_interval(Duration::from_secs(20))
        .keep_alive_timeout(Duration::from_secs(10));
    builder
}

/// Runs requests on the thread that has the connection.
#[derive(Clone, Debug)]
struct LocalExecutor(TaskTracker);

impl<F: Future + 'static> hyper::rt::Executor<F> for LocalExecutor
where
    F::Output: 'static,
{
    fn execute(&self, future: F) {
        self.0.spawn_local(future);
    }
}

/// The transport under hyper: gives it first what was read before.
struct Io {
    stream: TokioIo<TcpStream>,
    connection: Rc<Connection>,
    input: Vec<u8>,
    /// Bytes of `input` that hyper has.
    given: usize,
}

impl Read for Io {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, mut cursor: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.given == this.input.len() {
            return Pin::new(&mut this.stream).poll_read(cx, cursor);
        }
        let end = this.input.len().min(this.given + cursor.remaining());
        cursor.put_slice(&this.input[this.given..end]);
        this.given = end;
        Poll::Ready(Ok(()))
    }
}

impl Write for Io {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.stream).poll_write(cx, bytes);
        this.connection.wrote(bytes.len(), &written);
        written
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}
