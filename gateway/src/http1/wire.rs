//! The socket of an HTTP/1 connection, and the time limits of using it.

use std::{
    cell::{RefCell, RefMut},
    future::poll_fn,
    io,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
    time::Instant,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};

use super::date::Date;
use crate::connection::Connection;

/// Bytes of further requests that are read while one is being answered, which is how we learn that
/// a client is gone. A client that sends more is not watched.
const MAX_AHEAD: usize = 64 * 1024;

/// What the connections of a thread read into and write from. Between two polls they hold nothing.
#[derive(Debug)]
pub(crate) struct Buffers {
    input: RefCell<Box<[u8]>>,
    output: RefCell<Vec<u8>>,
    date: RefCell<Date>,
}

impl Buffers {
    pub(crate) fn new() -> Self {
        // As much as one read of a large body takes in.
        const INPUT_BYTES: usize = 64 * 1024;
        Self {
            input: RefCell::new(vec![0; INPUT_BYTES].into_boxed_slice()),
            output: RefCell::default(),
            date: RefCell::new(Date::new(Instant::now())),
        }
    }
}

/// One TCP connection. Its parts share it: the call that is being answered reads the body, and
/// beside that somebody watches whether the client is still there.
#[derive(Debug)]
pub(crate) struct Wire {
    stream: RefCell<TcpStream>,
    connection: Rc<Connection>,
    buffers: Rc<Buffers>,
    /// What came behind the request that is being answered.
    ahead: RefCell<Vec<u8>>,
}

impl Wire {
    pub(crate) fn new(stream: TcpStream, connection: Rc<Connection>, buffers: Rc<Buffers>) -> Self {
        Self { stream: RefCell::new(stream), connection, buffers, ahead: RefCell::default() }
    }

    /// The stream, for another protocol.
    pub(crate) fn into_stream(self) -> TcpStream {
        self.stream.into_inner()
    }

    pub(crate) fn connection(&self) -> &Rc<Connection> {
        &self.connection
    }

    pub(super) fn ahead(&self) -> RefMut<'_, Vec<u8>> {
        self.ahead.borrow_mut()
    }

    /// Reads once and gives `take` what came; 0 bytes at the end.
    pub(crate) fn poll_read(
        &self,
        cx: &mut Context<'_>,
        most: usize,
        take: impl FnOnce(&[u8]),
    ) -> Poll<io::Result<usize>> {
        let mut input = self.buffers.input.borrow_mut();
        let most = most.min(input.len());
        let mut buffer = ReadBuf::new(&mut input[..most]);
        ready!(Pin::new(&mut *self.stream.borrow_mut()).poll_read(cx, &mut buffer))?;
        take(buffer.filled());
        Poll::Ready(Ok(buffer.filled().len()))
    }

    /// Resolves when the client is gone. Keeps what else comes.
    pub(crate) fn poll_gone(&self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            let mut ahead = self.ahead();
            if ahead.len() >= MAX_AHEAD {
                return Poll::Pending;
            }
            let read = ready!(self.poll_read(cx, MAX_AHEAD, |bytes| ahead.extend_from_slice(bytes)));
            if !matches!(read, Ok(1..)) {
                return Poll::Ready(());
            }
        }
    }

    /// Makes bytes with [`Self::send`]'s `write`, and keeps them.
    pub(super) fn compose(&self, write: impl FnOnce(&mut Vec<u8>, &[u8])) -> Vec<u8> {
        let mut out = Vec::new();
        self.fill(&mut out, write);
        out
    }

    /// Sends what `write` appends to the buffer it gets. It gets the date as well.
    pub(super) async fn send(&self, write: impl FnOnce(&mut Vec<u8>, &[u8])) -> io::Result<()> {
        let mut write = Some(write);
        let rest = poll_fn(|cx| {
            let mut output = self.buffers.output.borrow_mut();
            output.clear();
            if let Some(write) = write.take() {
                self.fill(&mut output, write);
            }
            // The kernel nearly always takes all of it at once; what it does not take is copied.
            match self.poll_write(cx, &output) {
                Poll::Ready(Ok(count)) => Poll::Ready(Ok(output[count..].to_vec())),
                Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
                Poll::Pending => Poll::Ready(Ok(output.clone())),
            }
        })
        .await?;
        self.send_all(&rest).await
    }

    fn fill(&self, out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>, &[u8])) {
        // The call that is answered has just looked at the clock.
        let now = self.connection.quiet_since();
        write(out, self.buffers.date.borrow_mut().at(now));
    }

    /// Sends all bytes.
    pub(super) async fn send_all(&self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let count = poll_fn(|cx| self.poll_write(cx, bytes)).await?;
            bytes = &bytes[count..];
        }
        Ok(())
    }

    fn poll_write(&self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut *self.stream.borrow_mut()).poll_write(cx, bytes);
        self.connection.wrote(bytes.len(), &written);
        match written {
            Poll::Ready(Ok(0)) => Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
            other => other,
        }
    }

    /// Ends our side of the connection. Where the client may still be sending, it reads on until
    /// that ends: closing would make the kernel reset the connection and drop our answer on its way.
    pub(super) async fn farewell(&self, may_be_sending: bool) {
        if poll_fn(|cx| Pin::new(&mut *self.stream.borrow_mut()).poll_shutdown(cx)).await.is_err() {
            return;
        }
        self.connection.farewell.set(Some(Instant::now()));
        if may_be_sending {
            while let Ok(1..) = poll_fn(|cx| self.poll_read(cx, usize::MAX, |_| {})).await {}
        }
    }

    /// Makes the end of the connection one that cannot be taken for the end of an answer.
    pub(crate) fn reset(&self) {
        // A failure leaves an end that looks clean, which is what there was before.
        let _ = self.stream.borrow().set_zero_linger();
    }
}
