//! Finds the status and the end of an HTTP/1 answer, however it comes in pieces.

/// An answer that has been read to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Answer {
    /// The HTTP status.
    pub(crate) status: u16,
    /// Whether the connection takes another call.
    pub(crate) keep_alive: bool,
}

/// What was received is no HTTP/1 answer, or more than one.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Malformed;

/// Reads one answer after the other.
#[derive(Debug, Default)]
pub(crate) struct Reader {
    /// Received and not yet understood: part of a head or of a chunk's size.
    pending: Vec<u8>,
    rest: Rest,
}

/// What is still to come of the answer.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Rest {
    #[default]
    Head,
    Bytes(Answer, u64),
    ChunkSize(Answer),
    /// Of a chunk, with the line end after it.
    ChunkBytes(Answer, u64),
    Trailers(Answer),
    UntilClose(Answer),
}

const MAX_HEADERS: usize = 64;

impl Reader {
    /// Takes what was received; an answer once it is complete.
    ///
    /// # Errors
    /// [`Malformed`], also when bytes follow the answer: nobody asked for more.
    pub(crate) fn feed(&mut self, bytes: &[u8]) -> Result<Option<Answer>, Malformed> {
        if self.pending.is_empty() {
            return self.advance(bytes);
        }
        let mut joined = std::mem::take(&mut self.pending);
        joined.extend_from_slice(bytes);
        self.advance(&joined)
    }

    /// The server closed the connection; an answer if that was its end.
    pub(crate) fn close(&mut self) -> Option<Answer> {
        match std::mem::take(self).rest {
            Rest::UntilClose(answer) => Some(answer),
            _ => None,
        }
    }

    fn advance(&mut self, mut bytes: &[u8]) -> Result<Option<Answer>, Malformed> {
        loop {
            let (used, next) = match self.rest {
                Rest::Head => match parse_head(bytes)? {
                    Some((used, next)) => (used, next),
                    None => return self.keep(bytes),
                },
                Rest::Bytes(answer, 0) => {
                    self.rest = Rest::Head;
                    return if bytes.is_empty() { Ok(Some(answer)) } else { Err(Malformed) };
                }
                Rest::Bytes(answer, left) => {
                    let used = left.min(bytes.len() as u64);
                    (used as usize, Rest::Bytes(answer, left - used))
                }
                Rest::ChunkSize(answer) => match httparse::parse_chunk_size(bytes).map_err(|_| Malformed)? {
                    httparse::Status::Complete((used, 0)) => (used, Rest::Trailers(answer)),
                    httparse::Status::Complete((used, size)) => (used, Rest::ChunkBytes(answer, size + 2)),
                    httparse::Status::Partial => return self.keep(bytes),
                },
                Rest::ChunkBytes(answer, 0) => (0, Rest::ChunkSize(answer)),
                Rest::ChunkBytes(answer, left) => {
                    let used = left.min(bytes.len() as u64);
                    (used as usize, Rest::ChunkBytes(answer, left - used))
                }
                Rest::Trailers(answer) => match bytes.windows(2).position(|pair| pair == b"\r\n") {
                    Some(0) => (2, Rest::Bytes(answer, 0)),
                    Some(end) => (end + 2, self.rest),
                    None => return self.keep(bytes),
                },
                Rest::UntilClose(_) => return Ok(None),
            };
            (bytes, self.rest) = (&bytes[used..], next);
            if bytes.is_empty() && matches!(self.rest, Rest::Bytes(_, 1..) | Rest::ChunkBytes(_, 1..)) {
                return Ok(None);
            }
        }
    }

    fn keep(&mut self, bytes: &[u8]) -> Result<Option<Answer>, Malformed> {
        self.pending = bytes.to_vec();
        Ok(None)
    }
}

/// The head's length and what follows it; `None` while it is incomplete.
fn parse_head(bytes: &[u8]) -> Result<Option<(usize, Rest)>, Malformed> {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut head = httparse::Response::new(&mut headers);
    let httparse::Status::Complete(length) = head.parse(bytes).map_err(|_| Malformed)? else {
        return Ok(None);
    };
    let mut answer = Answer { status: head.code.ok_or(Malformed)?, keep_alive: head.version == Some(1) };
    let (mut size, mut chunked) = (None, false);
    for header in head.headers.iter() {
        let value = std::str::from_utf8(header.value).map_err(|_| Malformed)?.trim();
        if header.name.eq_ignore_ascii_case("content-length") {
            size = Some(value.parse().map_err(|_| Malformed)?);
        } else if header.name.eq_ignore_ascii_case("transfer-encoding") {
            chunked = value.eq_ignore_ascii_case("chunked");
        } else if header.name.eq_ignore_ascii_case("connection") {
            answer.keep_alive = match value {
                _ if value.eq_ignore_ascii_case("close") => false,
                _ => answer.keep_alive || value.eq_ignore_ascii_case("keep-alive"),
            };
        }
    }
    let rest = match size {
        _ if matches!(answer.status, 100..=199) => Rest::Head,
        _ if matches!(answer.status, 204 | 304) => Rest::Bytes(answer, 0),
        _ if chunked => Rest::ChunkSize(answer),
        Some(size) => Rest::Bytes(answer, size),
        None => Rest::UntilClose(Answer { keep_alive: false, ..answer }),
    };
    Ok(Some((length, rest)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIXED: &str = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";
    const CHUNKED: &str =
        "HTTP/1.1 503 Busy\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0a;x=y\r\n0123456789\r\n0\r\nt: v\r\n\r\n";

    fn answer(status: u16, keep_alive: bool) -> Option<Answer> {
        Some(Answer { status, keep_alive })
    }

    #[test]
    fn reads_answers_in_one_piece() {
        let mut reader = Reader::default();
        for _ in 0..2 {
            assert_eq!(reader.feed(FIXED.as_bytes()), Ok(answer(200, true)));
            assert_eq!(reader.feed(CHUNKED.as_bytes()), Ok(answer(503, true)));
        }
    }

    #[test]
    fn reads_answers_in_every_two_pieces_and_byte_by_byte() {
        for (text, status) in [(FIXED, 200), (CHUNKED, 503)] {
            for cut in 1..text.len() {
                let mut reader = Reader::default();
                assert_eq!(reader.feed(&text.as_bytes()[..cut]), Ok(None), "{cut} of {text:?}");
                assert_eq!(reader.feed(&text.as_bytes()[cut..]), Ok(answer(status, true)), "{cut} of {text:?}");
            }
            let mut reader = Reader::default();
            let (last, before) = text.as_bytes().split_last().unwrap();
            assert!(before.iter().all(|byte| reader.feed(&[*byte]) == Ok(None)));
            assert_eq!(reader.feed(&[*last]), Ok(answer(status, true)));
        }
    }

    #[test]
    fn body_without_a_length_ends_with_the_connection() {
        let mut reader = Reader::default();
        assert_eq!(reader.feed(b"HTTP/1.0 200 OK\r\n\r\nhel"), Ok(None));
        assert_eq!(reader.feed(b"lo"), Ok(None));
        assert_eq!(reader.close(), answer(200, false));
        assert_eq!(reader.close(), None, "that answer has been given");
    }

    #[test]
    fn closing_within_an_answer_gives_none() {
        let mut reader = Reader::default();
        assert_eq!(reader.feed(&FIXED.as_bytes()[..FIXED.len() - 1]), Ok(None));
        assert_eq!(reader.close(), None);
    }

    #[test]
    fn tells_whether_the_connection_stays() {
        for (head, keep_alive) in [
            ("HTTP/1.1 200 OK\r\nConnection: close\r\n", false),
            ("HTTP/1.0 200 OK\r\n", false),
            ("HTTP/1.0 200 OK\r\nConnection: Keep-Alive\r\n", true),
        ] {
            let text = format!("{head}Content-Length: 0\r\n\r\n");
            assert_eq!(Reader::default().feed(text.as_bytes()), Ok(answer(200, keep_alive)), "{head:?}");
        }
    }

    #[test]
    fn interim_answers_are_passed_over() {
        let text = format!("HTTP/1.1 100 Continue\r\n\r\n{FIXED}");
        assert_eq!(Reader::default().feed(text.as_bytes()), Ok(answer(200, true)));
    }

    #[test]
    fn refuses_what_is_no_answer() {
        for text in ["nonsense\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n"] {
            assert_eq!(Reader::default().feed(text.as_bytes()), Err(Malformed), "{text:?}");
        }
        assert_eq!(Reader::default().feed(format!("{FIXED}x").as_bytes()), Err(Malformed));
    }
}
