//! The transport under hyper: a TCP stream whose input has passed [`Framing`].

use std::{
    cell::RefCell,
    io::{self, IoSlice},
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
    time::Instant,
};

use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, ReadBuf},
    net::TcpStream,
};

use crate::{
    connection::Connection,
    refusal::Refusal,
    strict::{Framing, Refused, Verdict},
};

/// The method hyper sees in place of a head that was refused. A client that sends it itself gets
/// the treatment of any unknown method.
pub(crate) const REFUSED_METHOD: &str = "FNMESH-REFUSED";
const REFUSED_HEAD: &[u8] = b"FNMESH-REFUSED / HTTP/1.1\r\n\r\n";
const HTTP2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// The buffer all connections of a thread read into. Between two polls it holds nothing.
pub(crate) type Scratch = Rc<RefCell<Box<[u8]>>>;

/// One TCP connection as hyper sees it.
#[derive(Debug)]
pub(crate) struct Io {
    stream: TokioIo<TcpStream>,
    connection: Rc<Connection>,
    scratch: Scratch,
    framing: Framing,
    /// HTTP/2 has frames of its own: all input passes.
    http2: bool,
    /// Bytes read and not yet given to hyper; the first `passed` of them may be.
    held: Vec<u8>,
    passed: usize,
    /// Set once the rest of the input is void.
    stopped: Option<Stop>,
    /// Whether our side of the connection is closed.
    shut: bool,
}

/// How hyper learns that the input is void.
#[derive(Clone, Copy, Debug)]
enum Stop {
    /// It gets [`REFUSED_HEAD`] and then nothing. Not an end of file, at which it would drop the
    /// answer to an earlier request.
    AtHead,
    /// The body breaks off.
    InBody,
}

impl Io {
    pub(crate) fn new(stream: TcpStream, connection: Rc<Connection>, scratch: Scratch, max_head_bytes: usize) -> Self {
        Self {
            stream: TokioIo::new(stream),
            connection,
            scratch,
            framing: Framing::new(max_head_bytes),
            http2: false,
            held: Vec::new(),
            passed: 0,
            stopped: None,
            shut: false,
        }
    }

    /// Reads the first bytes and says whether they are those of HTTP/2.
    pub(crate) async fn is_http2(&mut self) -> io::Result<bool> {
        while HTTP2_PREFACE.starts_with(&self.held) {
            let count = std::future::poll_fn(|cx| self.poll_fill(cx, usize::MAX)).await?;
            if count == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            if self.held.starts_with(HTTP2_PREFACE) {
                self.http2 = true;
                self.passed = self.held.len();
                return Ok(true);
            }
        }
        self.check_held();
        Ok(false)
    }

    /// Reads once, behind what is held.
    fn poll_fill(&mut self, cx: &mut Context<'_>, most: usize) -> Poll<io::Result<usize>> {
        let mut scratch = self.scratch.borrow_mut();
        let most = most.min(scratch.len());
        let mut buffer = ReadBuf::new(&mut scratch[..most]);
        ready!(Pin::new(self.stream.inner_mut()).poll_read(cx, &mut buffer))?;
        self.held.extend_from_slice(buffer.filled());
        Poll::Ready(Ok(buffer.filled().len()))
    }

    /// Reads once, straight into hyper's buffer if nothing is held. `Ready(false)` when nothing
    /// passed and there may be more.
    fn poll_pass(&mut self, cx: &mut Context<'_>, cursor: &mut ReadBufCursor<'_>) -> Poll<io::Result<bool>> {
        if !self.held.is_empty() {
            let count = ready!(self.poll_fill(cx, usize::MAX))?;
            self.check_held();
            return Poll::Ready(Ok(count == 0));
        }
        let scratch = Rc::clone(&self.scratch);
        let mut scratch = scratch.borrow_mut();
        let most = cursor.remaining().min(scratch.len());
        let mut buffer = ReadBuf::new(&mut scratch[..most]);
        ready!(Pin::new(self.stream.inner_mut()).poll_read(cx, &mut buffer))?;
        let fresh = buffer.filled();
        let Verdict { passed, refused } = self.framing.check(fresh);
        cursor.put_slice(&fresh[..passed]);
        if let Some(refused) = refused {
            self.refuse(refused);
        } else if passed < fresh.len() {
            self.held.extend_from_slice(&fresh[passed..]);
            self.connection.head_since.set(Some(Instant::now()));
        }
        Poll::Ready(Ok(passed > 0 || fresh.is_empty()))
    }

    fn check_held(&mut self) {
        let Verdict { passed, refused } = self.framing.check(&self.held[self.passed..]);
        self.passed += passed;
        if let Some(refused) = refused {
            self.refuse(refused);
        } else if self.passed == self.held.len() {
            self.connection.head_since.set(None);
        } else if passed > 0 || self.connection.head_since.get().is_none() {
            self.connection.head_since.set(Some(Instant::now()));
        }
    }

    /// Voids the input behind what has passed.
    fn refuse(&mut self, refused: Refused) {
        self.held.truncate(self.passed);
        self.connection.head_since.set(None);
        self.connection.refused.replace(Some(refused.why));
        self.stopped = Some(if refused.in_body {
            Stop::InBody
        } else {
            self.held.extend_from_slice(REFUSED_HEAD);
            self.passed = self.held.len();
            Stop::AtHead
        });
    }

    /// Gives hyper what has passed.
    fn deliver(&mut self, cursor: &mut ReadBufCursor<'_>) {
        let count = self.passed.min(cursor.remaining());
        cursor.put_slice(&self.held[..count]);
        self.held.drain(..count);
        self.passed -= count;
        if self.held.is_empty() {
            self.held = Vec::new();
        }
    }

    fn wrote(&self, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        let blocked = &self.connection.write_blocked;
        match written {
            Poll::Pending if blocked.get().is_none() => blocked.set(Some(Instant::now())),
            Poll::Pending => {}
            Poll::Ready(_) => blocked.set(None),
        }
        written
    }

    /// Whether the client may still be sending, so that closing now would make the kernel reset
    /// the connection and drop our answer on its way.
    fn has_more_input(&self) -> bool {
        !self.http2 && (!self.framing.is_between_requests() || self.stopped.is_some() || !self.held.is_empty())
    }

    fn poll_discard(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let mut scratch = self.scratch.borrow_mut();
        loop {
            let mut buffer = ReadBuf::new(&mut scratch);
            let read = ready!(Pin::new(self.stream.inner_mut()).poll_read(cx, &mut buffer));
            if read.is_err() || buffer.filled().is_empty() {
                return Poll::Ready(());
            }
        }
    }
}

impl Drop for Io {
    fn drop(&mut self) {
        if self.connection.reset.get() {
            // A failure leaves an end that looks clean, which is what there was before.
            let _ = self.stream.inner().set_zero_linger();
        }
    }
}

impl Read for Io {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, mut cursor: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        loop {
            if this.passed > 0 {
                this.deliver(&mut cursor);
                return Poll::Ready(Ok(()));
            }
            match this.stopped {
                None if this.http2 => return Pin::new(&mut this.stream).poll_read(cx, cursor),
                None => {}
                Some(Stop::AtHead) => return Poll::Pending,
                Some(Stop::InBody) => return Poll::Ready(Err(io::ErrorKind::InvalidData.into())),
            }
            if this.connection.head_late.get() {
                let why = Refusal::timeout("the rest of the request head did not come in time");
                this.refuse(Refused { why, in_body: false });
                continue;
            }
            if ready!(this.poll_pass(cx, &mut cursor))? {
                return Poll::Ready(Ok(()));
            }
        }
    }
}

impl Write for Io {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.stream).poll_write(cx, bytes);
        this.wrote(written)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.stream).poll_write_vectored(cx, slices);
        this.wrote(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !this.shut {
            ready!(Pin::new(&mut this.stream).poll_shutdown(cx))?;
            this.shut = true;
            this.connection.farewell.set(Some(Instant::now()));
        }
        if this.has_more_input() { this.poll_discard(cx).map(Ok) } else { Poll::Ready(Ok(())) }
    }
}
