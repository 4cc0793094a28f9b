use memchr::memchr;

use super::BodyKind;
use crate::refusal::Refusal;

/// hyper's own limit; counted here so that the answer can say so.
const MAX_FIELDS: usize = 100;

/// One request head as far as its lines are known.
#[derive(Debug, Default)]
pub(super) struct Head {
    /// Where the first unchecked line begins.
    next: usize,
    started: bool,
    http10: bool,
    host: bool,
    chunked: bool,
    length: Option<u64>,
    fields: usize,
}

impl Head {
    /// Checks the lines of `input`, which begins where the head begins. Says how long the head is
    /// and what follows it, or `None` while its end is not there.
    pub(super) fn check(&mut self, input: &[u8], limit: usize) -> Result<Option<(usize, BodyKind)>, Refusal> {
        if !self.started && input.first().is_some_and(|&first| !is_token(first) && first != b'\r' && first != b'\n') {
            return Err(Refusal::malformed("a request begins with a method; this port speaks HTTP without TLS"));
        }
        loop {
            let rest = &input[self.next..];
            let Some(end) = memchr(b'\n', rest) else {
                return if input.len() > limit { Err(too_large(limit)) } else { Ok(None) };
            };
            self.next += end + 1;
            if self.next > limit {
                return Err(too_large(limit));
            }
            let Some(line) = rest[..end].strip_suffix(b"\r") else {
                return Err(Refusal::malformed(
                    "a line of the request head ends with LF alone; it must end with CR LF",
                ));
            };
            match (self.started, line) {
                // RFC 9112, 2.2: an empty line before the request line is ignored.
                (false, []) => {}
                (false, line) => self.request_line(line)?,
                (true, []) => return self.end().map(|body| Some((self.next, body))),
                (true, line) => self.field(line)?,
            }
        }
    }

    fn request_line(&mut self, line: &[u8]) -> Result<(), Refusal> {
        self.started = true;
        let mut parts = line.split(|&byte| byte == b' ');
        let (Some(method), Some(target), Some(version), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(Refusal::malformed(
                "the request line is not a method, a target and a version, one space apart",
            ));
        };
        if method.is_empty() || !method.iter().copied().all(is_token) {
            return Err(Refusal::malformed("the method is not a token"));
        }
        check_target(target)?;
        self.http10 = match version {
            b"HTTP/1.1" => false,
            b"HTTP/1.0" => true,
            [b'H', b'T', b'T', b'P', b'/', major, b'.', minor] if major.is_ascii_digit() && minor.is_ascii_digit() => {
                return Err(Refusal::version("HTTP/1.0, HTTP/1.1 and HTTP/2 are spoken here"));
            }
            _ => return Err(Refusal::malformed("the request line does not end with HTTP/1.1")),
        };
        Ok(())
    }

    fn field(&mut self, line: &[u8]) -> Result<(), Refusal> {
        self.fields += 1;
        if self.fields > MAX_FIELDS {
            return Err(Refusal::head_too_large(format!("the request has more than {MAX_FIELDS} header fields")));
        }
        let (name, value) = split_field(line)?;
        match name.len() {
            4 if name.eq_ignore_ascii_case(b"host") => self.host(value),
            14 if name.eq_ignore_ascii_case(b"content-length") => self.content_length(value),
            17 if name.eq_ignore_ascii_case(b"transfer-encoding") => self.transfer_encoding(value),
            _ => Ok(()),
        }
    }

    fn host(&mut self, value: &[u8]) -> Result<(), Refusal> {
        if std::mem::replace(&mut self.host, true) {
            return Err(Refusal::malformed("the request has two Host headers"));
        }
        if !value.iter().copied().all(is_host) {
            return Err(Refusal::malformed(format!("Host {} is not a host and port", shown(value))));
        }
        Ok(())
    }

    fn content_length(&mut self, value: &[u8]) -> Result<(), Refusal> {
        if self.length.is_some() {
            return Err(Refusal::malformed("the request has two Content-Length headers"));
        }
        // The two largest numbers mean something else to hyper.
        let length = std::str::from_utf8(value)
            .ok()
            .filter(|text| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()))
            .and_then(|text| text.parse().ok())
            .filter(|&length| length <= u64::MAX - 2);
        let Some(length) = length else {
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

    fn end(&self) -> Result<BodyKind, Refusal> {
        if !self.host && !self.http10 {
            return Err(Refusal::malformed("the request has no Host header"));
        }
        Ok(match self.length {
            _ if self.chunked => BodyKind::Chunked,
            None | Some(0) => BodyKind::Empty,
            Some(length) => BodyKind::Length(length),
        })
    }
}

/// Splits `name: value` and checks both, for headers and trailers alike.
pub(super) fn split_field(line: &[u8]) -> Result<(&[u8], &[u8]), Refusal> {
    if matches!(line, [b' ' | b'\t', ..]) {
        return Err(Refusal::malformed("a header line begins with white space; folded headers are not taken"));
    }
    let Some(colon) = memchr(b':', line) else {
        return Err(Refusal::malformed(format!("header line {} has no colon", shown(line))));
    };
    let (name, value) = (&line[..colon], &line[colon + 1..]);
    if matches!(name, [.., b' ' | b'\t']) {
        return Err(Refusal::malformed(format!("header name {} has white space before its colon", shown(name))));
    }
    if name.is_empty() || !name.iter().copied().all(is_token) {
        return Err(Refusal::malformed(format!("header name {} is not a token", shown(name))));
    }
    // Not `any`, which stops early and so cannot be vectorised.
    if value.iter().fold(false, |bad, &byte| bad | ((byte < b' ') & (byte != b'\t')) | (byte == 0x7f)) {
        let name = shown(name);
        return Err(Refusal::malformed(format!("the value of header {name} has a control character")));
    }
    Ok((name, value.trim_ascii()))
}

/// The same as the `http` crate takes, which answers without a reason where it does not.
fn check_target(target: &[u8]) -> Result<(), Refusal> {
    if target.first() != Some(&b'/') {
        // Absolute, authority and asterisk form are rare.
        return match http::Uri::try_from(target) {
            Ok(_) => Ok(()),
            Err(error) => {
                Err(Refusal::malformed(format!("the request target {} is not a URL: {error}", shown(target))))
            }
        };
    }
    let query = memchr(b'?', target).unwrap_or(target.len());
    let (path, query) = target.split_at(query);
    let bad = |byte: u8| matches!(byte, 0..=b' ' | 0x7f | b'<' | b'>' | b'#');
    let bad = (path.iter().copied().find(|&byte| bad(byte) || byte == b'`'))
        .or_else(|| query.iter().copied().find(|&byte| bad(byte) || byte == b'"'));
    if let Some(byte) = bad {
        let message =
            format!("the request target has {:?}, which must be percent-encoded: %{byte:02X}", char::from(byte));
        return Err(Refusal::malformed(message));
    }
    if !target.is_ascii() && std::str::from_utf8(target).is_err() {
        return Err(Refusal::malformed("the request target is not UTF-8; percent-encode other bytes"));
    }
    Ok(())
}

fn too_large(limit: usize) -> Refusal {
    Refusal::head_too_large(format!("the request head is larger than the limit of {limit} bytes"))
}

/// Bytes from the wire as a short quoted text for a message.
pub(super) fn shown(bytes: &[u8]) -> String {
    const MOST: usize = 60;
    let cut = if bytes.len() > MOST { "..." } else { "" };
    format!("\"{}{cut}\"", bytes[..bytes.len().min(MOST)].escape_ascii())
}

fn is_token(byte: u8) -> bool {
    const TOKEN: [bool; 256] = bytes_of(b"!#$%&'*+-.^_`|~");
    TOKEN[usize::from(byte)]
}

fn is_host(byte: u8) -> bool {
    // RFC 3986, 3.2.2, without the comma, which joins repeated headers.
    const HOST: [bool; 256] = bytes_of(b"!$%&'()*+-.:;=[]_~");
    HOST[usize::from(byte)]
}

/// Letters, digits and `others`.
const fn bytes_of(others: &[u8]) -> [bool; 256] {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 128 {
        table[byte] = (byte as u8).is_ascii_alphanumeric();
        byte += 1;
    }
    let mut index = 0;
    while index < others.len() {
        table[others[index] as usize] = true;
        index += 1;
    }
    table
}
