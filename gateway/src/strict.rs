//! Which bytes of an HTTP/1 connection may reach hyper.
//!
//! hyper forgives what a gateway must not (RFC 9112, 11.2): it takes bare line feeds, drops a
//! `Content-Length` beside a `Transfer-Encoding`, and never misses a `Host`. [`Framing`] follows
//! the requests of a connection (head, body, next head), without I/O, and stops at the first byte
//! that is not plainly part of a well-formed one. Heads pass only as a whole.

mod chunk;
mod class;
mod field;
mod head;
#[cfg(test)]
mod tests;

use crate::refusal::Refusal;

/// Where a connection is in its sequence of requests.
#[derive(Debug)]
pub(crate) struct Framing {
    state: State,
    max_head_bytes: usize,
}

#[derive(Debug)]
enum State {
    Head(head::Head),
    /// Bytes of a `Content-Length` body to come, never 0.
    Length(u64),
    Chunked(chunk::Chunked),
    Refused,
}

/// How a request's body ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum BodyKind {
    Empty,
    Length(u64),
    Chunked,
}

/// What [`Framing::check`] says about its input.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Verdict {
    /// So many bytes from the start are fine. The rest is to be given again, with more behind it.
    pub(crate) passed: usize,
    /// Set when the byte after those can never pass.
    pub(crate) refused: Option<Refused>,
}

/// The end of what can be read from a connection.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Refused {
    pub(crate) why: Refusal,
    /// Whether the head of the request has passed before.
    pub(crate) in_body: bool,
}

impl Framing {
    /// The framing of a new connection.
    pub(crate) fn new(max_head_bytes: usize) -> Self {
        Self { state: State::Head(head::Head::default()), max_head_bytes }
    }

    /// Whether no request has begun whose end has not passed yet.
    pub(crate) fn is_between_requests(&self) -> bool {
        matches!(self.state, State::Head(_))
    }

    /// Looks at the bytes that follow those that passed before.
    pub(crate) fn check(&mut self, input: &[u8]) -> Verdict {
        let mut passed = 0;
        loop {
            match self.step(&input[passed..]) {
                Ok(0) => return Verdict { passed, refused: None },
                Ok(count) => passed += count,
                Err(why) => {
                    let in_body = !self.is_between_requests();
                    self.state = State::Refused;
                    return Verdict { passed, refused: Some(Refused { why, in_body }) };
                }
            }
        }
    }

    /// Passes a prefix of `input`; 0 bytes when it takes more to decide.
    fn step(&mut self, input: &[u8]) -> Result<usize, Refusal> {
        match &mut self.state {
            State::Head(head) => {
                let Some((length, body)) = head.check(input, self.max_head_bytes)? else { return Ok(0) };
                self.state = match body {
                    BodyKind::Empty => State::Head(head::Head::default()),
                    BodyKind::Length(length) => State::Length(length),
                    BodyKind::Chunked => State::Chunked(chunk::Chunked::default()),
                };
                Ok(length)
            }
            State::Length(left) => {
                let count = usize::try_from(*left).map_or(input.len(), |left| left.min(input.len()));
                *left -= count as u64;
                if *left == 0 {
                    self.state = State::Head(head::Head::default());
                }
                Ok(count)
            }
            State::Chunked(chunked) => {
                let count = chunked.check(input)?;
                if chunked.is_done() {
                    self.state = State::Head(head::Head::default());
                }
                Ok(count)
            }
            State::Refused => Ok(0),
        }
    }
}
