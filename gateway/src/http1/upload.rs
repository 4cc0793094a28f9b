//! The body of an HTTP/1 request.

use std::{
    cell::{Cell, RefCell},
    future::poll_fn,
};

use bytes::{Bytes, BytesMut};
use tokio::time::{Instant, timeout_at};

use super::wire::Wire;
use crate::{
    Config, body,
    guard::Lease,
    refusal::Refusal,
    rejection::Rejection,
    strict::{Chunked, Framing},
};

/// What is set aside for a body before it has come.
const MOST_RESERVED: u64 = 256 * 1024;

/// A request body, some of which came with its head.
#[derive(Debug)]
pub(crate) struct Upload<'a> {
    wire: &'a Wire,
    behind: &'a [u8],
    /// `None` once somebody reads it.
    framing: RefCell<Option<Framing>>,
    /// Whether all of it was read.
    over: Cell<bool>,
    /// Bytes of `behind` that belong to it.
    taken: Cell<usize>,
    expects_continue: bool,
}

impl<'a> Upload<'a> {
    /// A body that begins with what came `behind` the head; more requests may follow it there.
    pub(super) fn new(wire: &'a Wire, behind: &'a [u8], framing: Framing, expects_continue: bool) -> Self {
        let over = Cell::new(matches!(framing, Framing::Length(0)));
        Self { wire, behind, framing: RefCell::new(Some(framing)), over, taken: Cell::new(0), expects_continue }
    }

    /// Bytes behind the head that were used up.
    pub(super) fn taken(&self) -> usize {
        self.taken.get()
    }

    /// Whether nothing of it is left to be read.
    pub(super) fn is_over(&self) -> bool {
        self.over.get()
    }

    /// Passes over what nobody has read, if it is there; whether the next request can be found.
    pub(super) fn skip_rest(&self) -> bool {
        if let Some(Framing::Length(length)) = &*self.framing.borrow()
            && let Some(length) = usize::try_from(*length).ok().filter(|&length| length <= self.behind.len())
        {
            self.taken.set(length);
            self.over.set(true);
        }
        self.over.get()
    }

    /// How long it says it is.
    pub(crate) fn announced(&self) -> u64 {
        match &*self.framing.borrow() {
            Some(Framing::Length(length)) => *length,
            _ => 0,
        }
    }

    /// Reads all of it.
    ///
    /// # Errors
    /// Where it is malformed, larger than the limit, too slow, or more than can be held now.
    pub(crate) async fn collect(&self, config: &Config, lease: &mut Lease) -> Result<Bytes, Rejection> {
        let framing = self.framing.take();
        let body = match framing {
            None => Bytes::new(),
            Some(Framing::Length(length)) if length <= self.behind.len() as u64 => {
                self.taken.set(length as usize);
                Bytes::copy_from_slice(&self.behind[..length as usize])
            }
            // Boxed: most bodies come with their head, and most connections are idle.
            Some(Framing::Length(length)) => Box::pin(self.length(length, config, lease)).await?,
            Some(Framing::Chunked(chunked)) => Box::pin(self.chunked(chunked, config, lease)).await?,
        };
        self.over.set(true);
        self.wire.connection().watched.set(true);
        Ok(body)
    }

    async fn length(&self, length: u64, config: &Config, lease: &mut Lease) -> Result<Bytes, Rejection> {
        lease.grow(usize::try_from(length).unwrap_or(usize::MAX))?;
        let mut body = BytesMut::with_capacity(length.min(MOST_RESERVED) as usize);
        body.extend_from_slice(self.behind);
        self.taken.set(self.behind.len());
        let pace = self.begin(config).await?;
        while (body.len() as u64) < length {
            let missing = usize::try_from(length - body.len() as u64).unwrap_or(usize::MAX);
            pace.read(missing, |bytes| body.extend_from_slice(bytes)).await?;
        }
        Ok(body.freeze())
    }

    async fn chunked(&self, mut chunked: Chunked, config: &Config, lease: &mut Lease) -> Result<Bytes, Rejection> {
        let mut raw = self.behind.to_vec();
        self.taken.set(self.behind.len());
        let mut body = BytesMut::new();
        let pace = self.begin(config).await?;
        loop {
            let mut passed = 0;
            loop {
                let is_data = chunked.is_data();
                let count = chunked.check(&raw[passed..])?;
                if is_data {
                    body.extend_from_slice(&raw[passed..passed + count]);
                }
                passed += count;
                if count == 0 {
                    break;
                }
            }
            if body.len() > config.max_body_bytes {
                return Err(body::too_large(config).into());
            }
            lease.grow(body.len())?;
            raw.drain(..passed);
            if chunked.is_done() {
                *self.wire.ahead() = raw;
                return Ok(body.freeze());
            }
            pace.read(usize::MAX, |bytes| raw.extend_from_slice(bytes)).await?;
        }
    }

    async fn begin<'b>(&'b self, config: &'b Config) -> Result<Pace<'b>, Refusal> {
        if self.expects_continue && self.behind.is_empty() {
            let go_ahead = b"HTTP/1.1 100 Continue\r\n\r\n";
            self.wire.send_all(go_ahead).await.map_err(|error| broken(&error.to_string()))?;
        }
        Ok(Pace { wire: self.wire, config, began: Instant::now() })
    }
}

/// How slowly a body may come.
struct Pace<'a> {
    wire: &'a Wire,
    config: &'a Config,
    began: Instant,
}

impl Pace<'_> {
    /// Reads at most `most` bytes, at least one.
    async fn read(&self, most: usize, mut take: impl FnMut(&[u8])) -> Result<(), Refusal> {
        let end = self.began + self.config.upload_timeout;
        let limit = end.min(Instant::now() + self.config.body_timeout);
        let read = poll_fn(|cx| self.wire.poll_read(cx, most, &mut take));
        match timeout_at(limit, read).await {
            Ok(Ok(0)) => Err(broken("it ended too early")),
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(broken(&error.to_string())),
            Err(_) => Err(body::late(limit == end, self.config)),
        }
    }
}

fn broken(reason: &str) -> Refusal {
    Refusal::malformed(format!("the request body broke off: {reason}"))
}
