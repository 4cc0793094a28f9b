use http::{Method, Uri};

use super::{
    Framing,
    chunk::Chunked,
    class::{HOST, PATH, QUERY, TOKEN, run},
    field::{self, Line, line_end, shown},
};
use crate::{refusal::Refusal, request};

/// Most header fields of a request.
const MAX_FIELDS: usize = 100;

/// Bytes of the head, by their places in it. Heads are shorter than 64 KiB: [`crate::Config::head_limit`].
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Span {
    start: u16,
    end: u16,
}

impl Span {
    fn new(start: usize, end: usize) -> Self {
        Self { start: start as u16, end: end as u16 }
    }

    pub(crate) fn of(self, head: &[u8]) -> &[u8] {
        &head[usize::from(self.start)..usize::from(self.end)]
    }
}

/// The name and the value of a header field.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Field {
    pub(crate) name: Span,
    pub(crate) value: Span,
}

/// One request head as far as its lines are known.
#[derive(Debug, Default)]
pub(crate) struct Head {
    /// Where the first unchecked line begins.
    next: usize,
    started: bool,
    pub(crate) http10: bool,
    host: bool,
    chunked: bool,
    length: Option<u64>,
    /// Whether the client waits for a go-ahead before it sends the body.
    pub(crate) expects_continue: bool,
    /// Whether the connection should close after the answer (`Some(true)`) or stay.
    close: Option<bool>,
    method: Span,
    target: Span,
    /// The target, where it is no plain path.
    uri: Option<Uri>,
    fields: Vec<Field>,
}

impl Head {
    /// Makes it ready for the next request; keeps its memory.
    pub(crate) fn reset(&mut self) {
        let mut fields = std::mem::take(&mut self.fields);
        fields.clear();
        *self = Self { fields, ..Self::default() };
    }

    /// Whether the client wants the connection to end with the answer. RFC 9112, 9.3.
    pub(crate) fn wants_close(&self) -> bool {
        self.close.unwrap_or(self.http10)
    }

    /// What a whole head says; `head` are its bytes.
    pub(crate) fn read<'a>(&'a self, head: &'a [u8]) -> request::Head<'a> {
        let text = |span: Span| std::str::from_utf8(span.of(head)).expect("`check` refuses what is not UTF-8");
        let method = Method::from_bytes(self.method.of(head)).expect("`check` takes only tokens");
        let fields = request::Fields::Http1(head, &self.fields);
        match &self.uri {
            Some(uri) => request::Head::new(method, uri, fields),
            None => request::Head::of_path(method, text(self.target), fields),
        }
    }

    /// Checks the lines of `input`, which begins where the head begins. Says how long the head is
    /// and what follows it, or `None` while its end is not there.
    pub(crate) fn check(&mut self, input: &[u8], limit: usize) -> Result<Option<(usize, Framing)>, Refusal> {
        let within = &input[..input.len().min(limit)];
        match self.lines(within)? {
            None if input.len() >= limit => Err(too_large(limit)),
            end => Ok(end),
        }
    }

    fn lines(&mut self, input: &[u8]) -> Result<Option<(usize, Framing)>, Refusal> {
        while !self.started {
            let rest = &input[self.next..];
            let length = match rest.first() {
                None => return Ok(None),
                // RFC 9112, 2.2: an empty line before the request line is ignored.
                Some(b'\r' | b'\n') => line_end(rest, 0)?,
                Some(_) => self.request_line(rest)?,
            };
            let Some(length) = length else { return Ok(None) };
            self.next += length;
        }
        loop {
            let line = &input[self.next..];
            match field::line(line)? {
                None => return Ok(None),
                Some(Line::Field { name, value, length }) => {
                    self.field(&line[..name], &line[value.clone()])?;
                    let name = Span::new(self.next, self.next + name);
                    let value = Span::new(self.next + value.start, self.next + value.end);
                    self.fields.push(Field { name, value });
                    self.next += length;
                }
                Some(Line::End { length }) => {
                    self.next += length;
                    return self.end().map(|body| Some((self.next, body)));
                }
            }
        }
    }

    /// Reads the request line; says how long it is, or `None` while it is not whole.
    fn request_line(&mut self, input: &[u8]) -> Result<Option<usize>, Refusal> {
        let method = run(input, TOKEN);
        match input.get(method) {
            None => return Ok(None),
            Some(b' ') if method > 0 => {}
            Some(_) if method == 0 => {
                return Err(Refusal::malformed("a request begins with a method; this port speaks HTTP without TLS"));
            }
            Some(_) => return Err(Refusal::malformed("the method is not a token with one space behind it")),
        }
        let start = method + 1;
        let Some((length, uri)) = check_target(&input[start..])? else { return Ok(None) };
        let target = start..start + length;
        let start = start + length + 1;
        let Some(http10) = is_http10(&input[start..])? else { return Ok(None) };
        let end = start + VERSION_LENGTH;
        if !matches!(input.get(end), None | Some(b'\r' | b'\n')) {
            return Err(bad_request_line());
        }
        let end = line_end(input, end)?;
        self.started = end.is_some();
        self.http10 = http10;
        self.method = Span::new(self.next, self.next + method);
        self.target = Span::new(self.next + target.start, self.next + target.end);
        self.uri = uri;
        Ok(end)
    }

    fn field(&mut self, name: &[u8], value: &[u8]) -> Result<(), Refusal> {
        if self.fields.len() == MAX_FIELDS {
            return Err(Refusal::head_too_large(format!("the request has more than {MAX_FIELDS} header fields")));
        }
        match name.len() {
            4 if name.eq_ignore_ascii_case(b"host") => self.host(value),
            14 if name.eq_ignore_ascii_case(b"content-length") => self.content_length(value),
            6 if name.eq_ignore_ascii_case(b"expect") => {
                self.expects_continue |= value.eq_ignore_ascii_case(b"100-continue");
                Ok(())
            }
            10 if name.eq_ignore_ascii_case(b"connection") => {
                self.connection(value);
                Ok(())
            }
            17 if name.eq_ignore_ascii_case(b"transfer-encoding") => self.transfer_encoding(value),
            _ => Ok(()),
        }
    }

    fn host(&mut self, value: &[u8]) -> Result<(), Refusal> {
        if std::mem::replace(&mut self.host, true) {
            return Err(Refusal::malformed("the request has two Host headers"));
        }
        if run(value, HOST) < value.len() {
            return Err(Refusal::malformed(format!("Host {} is not a host and port", shown(value))));
        }
        Ok(())
    }

    fn connection(&mut self, value: &[u8]) {
        for option in value.split(|&byte| byte == b',').map(<[u8]>::trim_ascii) {
            if option.eq_ignore_ascii_case(b"close") {
                self.close = Some(true);
            } else if option.eq_ignore_ascii_case(b"keep-alive") {
                self.close.get_or_insert(false);
            }
        }
    }

    fn content_length(&mut self, value: &[u8]) -> Result<(), Refusal> {
        if self.length.is_some() {
            return Err(Refusal::malformed("the request has two Content-Length headers"));
        }
        let number = value.iter().try_fold(0u64, |sum, byte| {
            let digit = byte.is_ascii_digit().then(|| u64::from(byte - b'0'))?;
            sum.checked_mul(10)?.checked_add(digit)
        });
        let Some(length) = number.filter(|_| !value.is_empty()) else {
            return Err(Refusal::malformed(format!("Content-Length {} is not one plain number", shown(value))));
        };
        self.length = Some(length);
        self.one_framing()
    }

    fn transfer_encoding(&mut self, value: &[u8]) -> Result<(), Refusal> {
        if self.http10 {
            return Err(Refusal::malformed("HTTP/1.0 has no Transfer-Encoding"));
        }
        if std::mem::replace(&mut self.chunked, true) {
            return Err(Refusal::malformed("the request has two Transfer-Encoding headers"));
        }
        if !value.eq_ignore_ascii_case(b"chunked") {
            let text = shown(value);
            return Err(Refusal::malformed(format!("Transfer-Encoding {text} is not taken; only chunked is")));
        }
        self.one_framing()
    }

    fn one_framing(&self) -> Result<(), Refusal> {
        if self.chunked && self.length.is_some() {
            return Err(Refusal::malformed("the request has both Content-Length and Transfer-Encoding"));
        }
        Ok(())
    }

    fn end(&self) -> Result<Framing, Refusal> {
        if !self.host && !self.http10 {
            return Err(Refusal::malformed("the request has no Host header"));
        }
        Ok(match self.length {
            _ if self.chunked => Framing::Chunked(Chunked::default()),
            length => Framing::Length(length.unwrap_or(0)),
        })
    }
}

/// How long the target is that `input` begins with, and what it says where it is no plain path;
/// `None` while the space behind it is not there.
///
/// Takes what the `http` crate takes, which answers without a reason where it does not.
fn check_target(input: &[u8]) -> Result<Option<(usize, Option<Uri>)>, Refusal> {
    let mut length = run(input, PATH);
    if input.get(length) == Some(&b'?') {
        length += run(&input[length..], QUERY);
    }
    let target = &input[..length];
    match input.get(length) {
        None => return Ok(None),
        Some(b' ') if length > 0 => {}
        Some(b' ' | b'\r' | b'\n') => {
            return Err(bad_request_line());
        }
        Some(&byte) => {
            let char = char::from(byte);
            let message = format!("the request target has {char:?}, which must be percent-encoded: %{byte:02X}");
            return Err(Refusal::malformed(message));
        }
    }
    if !target.is_ascii() && std::str::from_utf8(target).is_err() {
        return Err(Refusal::malformed("the request target is not UTF-8; percent-encode other bytes"));
    }
    if target[0] == b'/' {
        return Ok(Some((length, None)));
    }
    // Absolute, authority and asterisk form are rare.
    let uri = Uri::try_from(target)
        .map_err(|error| Refusal::malformed(format!("the request target {} is not a URL: {error}", shown(target))))?;
    Ok(Some((length, Some(uri))))
}

const VERSION_LENGTH: usize = b"HTTP/1.1".len();

/// Whether `input` begins with the version 1.0 and not 1.1; `None` while that is not whole.
fn is_http10(input: &[u8]) -> Result<Option<bool>, Refusal> {
    if input.starts_with(b"HTTP/1.1") {
        return Ok(Some(false));
    }
    for (&byte, place) in input.iter().zip(b"HTTP/0.0") {
        if !(byte == *place || *place == b'0' && byte.is_ascii_digit()) {
            return Err(Refusal::malformed("the request line does not end with HTTP/1.1"));
        }
    }
    match input.get(..VERSION_LENGTH) {
        None => Ok(None),
        Some(b"HTTP/1.0") => Ok(Some(true)),
        Some(_) => Err(Refusal::version("HTTP/1.0, HTTP/1.1 and HTTP/2 are spoken here")),
    }
}

#[cold]
fn bad_request_line() -> Refusal {
    Refusal::malformed("the request line is not a method, a target and a version, one space apart")
}

fn too_large(limit: usize) -> Refusal {
    Refusal::head_too_large(format!("the request head is larger than the limit of {limit} bytes"))
}
