//! One connection, which carries one call at a time.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::time::Instant;

use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::io::Errno;
use rustix::net::{self, AddressFamily, SendFlags, SocketFlags, SocketType, ipproto, sockopt};

use crate::answer::{Answer, Reader};

/// Opened when a call needs it, and again when the server has closed it.
#[derive(Debug, Default)]
pub(crate) struct Connection {
    socket: Option<OwnedFd>,
    call: Option<Call>,
    reader: Reader,
}

/// The call a connection carries.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Call {
    /// When it should have been sent.
    pub(crate) due: Instant,
    /// When it was handed to the connection.
    pub(crate) sent: Instant,
    /// Bytes of the request written so far.
    written: usize,
}

/// How a call ended.
#[derive(Debug)]
pub(crate) enum End {
    /// With an answer.
    Answered(Call, Answer),
    /// Without one.
    Broken,
}

impl Connection {
    /// The call that is under way.
    pub(crate) fn call(&self) -> Option<&Call> {
        self.call.as_ref()
    }

    /// Sends a call, if need be on a new connection that `poll` then watches by the number `key`.
    ///
    /// # Errors
    /// When no connection can be made; the call has ended.
    pub(crate) fn send(
        &mut self,
        call: Call,
        request: &[u8],
        to: SocketAddr,
        poll: &OwnedFd,
        key: u64,
    ) -> io::Result<()> {
        if self.socket.is_none() {
            self.socket = Some(connect(to, poll, key)?);
        }
        self.call = Some(call);
        self.write(request).inspect_err(|_| self.close())
    }

    /// Goes on after the socket was reported ready; the end of the call, if this was it.
    pub(crate) fn advance(&mut self, request: &[u8], buffer: &mut [u8]) -> Option<End> {
        self.socket.as_ref()?;
        match self.write(request).and_then(|()| self.read(buffer)) {
            Ok(None) => None,
            Ok(Some(answer)) => {
                if !answer.keep_alive {
                    self.socket = None;
                }
                self.call.take().map(|call| End::Answered(call, answer))
            }
            Err(_) => {
                let carried = self.call.is_some();
                self.close();
                carried.then_some(End::Broken)
            }
        }
    }

    /// Gives up what is under way.
    pub(crate) fn close(&mut self) {
        *self = Self::default();
    }

    /// Writes what is left of the request, as far as the socket takes it.
    fn write(&mut self, request: &[u8]) -> io::Result<()> {
        let (Some(socket), Some(call)) = (&self.socket, &mut self.call) else { return Ok(()) };
        while call.written < request.len() {
            match net::send(socket, &request[call.written..], SendFlags::NOSIGNAL) {
                Ok(written) => call.written += written,
                // Not connected yet, or full: a later event goes on.
                Err(Errno::AGAIN | Errno::NOTCONN) => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Reads until the answer is complete or nothing is left to read. Fails at the connection's end.
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<Option<Answer>> {
        let Some(socket) = &self.socket else { return Ok(None) };
        loop {
            let count = match rustix::io::read(socket, &mut *buffer) {
                Ok(0) => return self.reader.close().map(Some).ok_or_else(|| io::ErrorKind::UnexpectedEof.into()),
                Ok(count) => count,
                Err(Errno::AGAIN) => return Ok(None),
                Err(error) => return Err(error.into()),
            };
            let answer = self.reader.feed(&buffer[..count]).map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?;
            if answer.is_some() {
                return Ok(answer);
            }
        }
    }
}

impl Call {
    /// A call that is about to be sent.
    pub(crate) fn new(due: Instant, sent: Instant) -> Self {
        Self { due, sent, written: 0 }
    }
}

/// Begins to connect, and has `poll` report every change of the socket.
fn connect(to: SocketAddr, poll: &OwnedFd, key: u64) -> io::Result<OwnedFd> {
    let family = if to.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket = net::socket_with(family, SocketType::STREAM, flags, Some(ipproto::TCP))?;
    sockopt::set_tcp_nodelay(&socket, true)?;
    match net::connect(&socket, &to) {
        Ok(()) | Err(Errno::INPROGRESS) => {}
        Err(error) => return Err(error.into()),
    }
    let events = EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET;
    epoll::add(poll, &socket, EventData::new_u64(key), events)?;
    Ok(socket)
}
