//! One connection: what its parts know of each other, and its time limits.

use std::{
    cell::Cell,
    future::{Future, poll_fn},
    io,
    pin::{Pin, pin},
    rc::Rc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use tokio::time::{Sleep, sleep_until};

use crate::{Config, hub::Hub};

/// How long a connection may take to say goodbye: the client to read our last answer, and streams
/// of an idle HTTP/2 connection to end.
const FAREWELL: Duration = Duration::from_secs(2);

/// How long a connection may be idle while there are hardly any left.
const SCARCE_IDLE: Duration = Duration::from_secs(1);
/// What a client must take of an answer to be given more time.
const PROGRESS_BYTES: usize = 64 * 1024;

/// What the transport, the service and the time limits of one connection share.
#[derive(Debug)]
pub(crate) struct Connection {
    /// Set while a call runs and only its caller's end is of interest.
    pub(crate) watched: Cell<bool>,
    /// Set when no further request is to be taken.
    pub(crate) closing: Cell<bool>,
    /// Since when a part of a request head waits for the rest.
    pub(crate) head_since: Cell<Option<Instant>>,
    /// Set when that took too long.
    pub(crate) head_late: Cell<bool>,
    /// Since when the client has not taken all there was to write, nor [`PROGRESS_BYTES`] of it.
    write_blocked: Cell<Option<Instant>>,
    /// Bytes it took since then.
    taken: Cell<usize>,
    /// Whether it may only ask for the node's state.
    pub(crate) control_only: Cell<bool>,
    /// Since when we wait for the client to close.
    pub(crate) farewell: Cell<Option<Instant>>,
    /// Whether the last request was HTTP/1.0, whose streamed answers end with the connection.
    pub(crate) http10: Cell<bool>,
    /// Whether the end of the connection must not look like the end of an answer.
    pub(crate) reset: Cell<bool>,
    /// Requests that are not answered in full.
    busy: Cell<u32>,
    /// When the last answer ended, or the connection began.
    quiet_since: Cell<Instant>,
    served: Cell<bool>,
}

/// What to do when a time limit is reached.
enum Expiry {
    /// Answer 408.
    LateHead,
    /// Close as soon as nothing is in flight.
    Idle,
    /// Close at once.
    Stuck,
}

impl Connection {
    pub(crate) fn new() -> Self {
        Self {
            watched: Cell::default(),
            closing: Cell::default(),
            head_since: Cell::default(),
            head_late: Cell::default(),
            write_blocked: Cell::default(),
            taken: Cell::default(),
            control_only: Cell::default(),
            farewell: Cell::default(),
            http10: Cell::default(),
            reset: Cell::default(),
            busy: Cell::default(),
            quiet_since: Cell::new(Instant::now()),
            served: Cell::default(),
        }
    }

    /// When the last answer ended, or the connection began.
    pub(crate) fn quiet_since(&self) -> Instant {
        self.quiet_since.get()
    }

    /// Notes how a write of `most` bytes went.
    pub(crate) fn wrote(&self, most: usize, written: &Poll<io::Result<usize>>) {
        match written {
            Poll::Pending if self.write_blocked.get().is_none() => self.write_blocked.set(Some(Instant::now())),
            Poll::Ready(Ok(count)) if self.write_blocked.get().is_some() => {
                self.taken.set(self.taken.get() + count);
                if *count == most || self.taken.get() >= PROGRESS_BYTES {
                    self.write_blocked.set(None);
                    self.taken.set(0);
                }
            }
            _ => {}
        }
    }

    fn next_expiry(&self, config: &Config, scarce: bool) -> Option<(Instant, Expiry)> {
        if let Some(since) = self.write_blocked.get() {
            return Some((since + config.write_timeout, Expiry::Stuck));
        }
        if let Some(since) = self.farewell.get() {
            return Some((since + FAREWELL, Expiry::Stuck));
        }
        if self.busy.get() > 0 {
            return None;
        }
        let quiet = self.quiet_since.get();
        Some(match self.head_since.get() {
            // A head that came behind another request waits for that one.
            Some(since) if self.head_late.get() => (since, Expiry::Stuck),
            Some(since) => (since.max(quiet) + config.header_timeout, Expiry::LateHead),
            None if self.served.get() && scarce => (quiet + config.idle_timeout.min(SCARCE_IDLE), Expiry::Idle),
            None if self.served.get() => (quiet + config.idle_timeout, Expiry::Idle),
            None => (quiet + config.header_timeout, Expiry::Idle),
        })
    }
}

/// Marks a connection as busy with one request until the end of its answer.
#[derive(Debug)]
pub(crate) struct Busy {
    connection: Rc<Connection>,
    ended: Option<Instant>,
}

impl Busy {
    pub(crate) fn new(connection: Rc<Connection>) -> Self {
        connection.busy.set(connection.busy.get() + 1);
        Self { connection, ended: None }
    }

    /// Says when the answer ended, to save a look at the clock.
    pub(crate) fn ended(&mut self, now: Instant) {
        self.ended = Some(now);
    }

    /// Says that the answer breaks off.
    pub(crate) fn broke_off(&self) {
        self.connection.reset.set(self.connection.http10.get());
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        let connection = &self.connection;
        connection.busy.set(connection.busy.get() - 1);
        connection.served.set(true);
        connection.quiet_since.set(self.ended.unwrap_or_else(Instant::now));
    }
}

/// Drives a connection to its end, within its time limits. `shut_down` asks it to answer what is in
/// flight and end; `gone` tells, while it waits, whether the client is gone. `None` when it was cut off,
/// which cancels its calls.
pub(crate) async fn run<P: Future>(
    protocol: P,
    shut_down: impl Fn(Pin<&mut P>),
    gone: impl Fn(&mut Context<'_>) -> Poll<()>,
    connection: &Connection,
    hub: &Hub,
    config: &Config,
) -> Option<P::Output> {
    let mut protocol = pin!(protocol);
    let mut timer = pin!(sleep_until((Instant::now() + config.header_timeout).into()));
    let mut seat = hub.seat();
    let (mut armed, mut closing) = (false, false);
    poll_fn(|cx| {
        seat.occupy(cx);
        loop {
            // Before a shutdown too: a request that has arrived is still served.
            if let Poll::Ready(ended) = protocol.as_mut().poll(cx) {
                return Poll::Ready(Some(ended));
            }
            if connection.watched.get() && gone(cx).is_ready() {
                return Poll::Ready(None);
            }
            if hub.is_draining() && !closing {
                closing = true;
                shut_down(protocol.as_mut());
                continue;
            }
            match poll_expiry(|| connection.next_expiry(config, hub.is_scarce()), timer.as_mut(), &mut armed, cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Expiry::LateHead) => connection.head_late.set(true),
                Poll::Ready(Expiry::Idle) if !closing => {
                    closing = true;
                    connection.farewell.set(Some(Instant::now()));
                    shut_down(protocol.as_mut());
                }
                Poll::Ready(Expiry::Idle | Expiry::Stuck) => return Poll::Ready(None),
            }
        }
    })
    .await
}

fn poll_expiry(
    next: impl Fn() -> Option<(Instant, Expiry)>,
    mut timer: Pin<&mut Sleep>,
    armed: &mut bool,
    cx: &mut Context<'_>,
) -> Poll<Expiry> {
    loop {
        let Some((at, expiry)) = next() else { return Poll::Pending };
        // A timer that is set too early stays so: it is cheaper to let it fire for nothing than to
        // set it for each request.
        if at < timer.deadline().into_std() || timer.is_elapsed() {
            timer.as_mut().reset(at.into());
            *armed = false;
        }
        // It knows the task since it was polled first.
        if *armed && !timer.is_elapsed() {
            return Poll::Pending;
        }
        *armed = true;
        if timer.as_mut().poll(cx).is_pending() {
            return Poll::Pending;
        }
        if timer.deadline().into_std() == at {
            return Poll::Ready(expiry);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_blocked_after(counts: &[usize]) -> bool {
        let connection = Connection::new();
        connection.wrote(1_000_000, &Poll::Pending);
        for &count in counts {
            connection.wrote(1_000_000, &Poll::Ready(Ok(count)));
        }
        connection.write_blocked.get().is_some()
    }

    #[test]
    fn clients_that_take_crumbs_are_blocked() {
        assert!(is_blocked_after(&[1, 1, PROGRESS_BYTES - 3]));
        assert!(!is_blocked_after(&[1, 1, PROGRESS_BYTES - 2]));
        assert!(!is_blocked_after(&[1_000_000]));
        assert!(is_blocked_after(&[]));
    }
}
