use memchr::memchr;

use super::field::{Line, line, shown};
use crate::refusal::Refusal;

/// Most bytes of a chunk's size line, extensions included.
const MAX_SIZE_LINE: usize = 256;
/// Most bytes of the trailer section.
const MAX_TRAILERS: usize = 8 * 1024;
/// Most trailer fields.
const MAX_TRAILER_FIELDS: usize = 100;

/// Where a chunked body is. RFC 9112, 7.1.
#[derive(Debug, Default)]
pub(crate) enum Chunked {
    #[default]
    Size,
    /// Bytes of the chunk to come, never 0.
    Data(u64),
    /// The line end after a chunk.
    DataEnd,
    Trailers {
        /// Where the first unchecked line begins.
        next: usize,
        fields: usize,
    },
    Done,
}

impl Chunked {
    pub(crate) fn is_done(&self) -> bool {
        matches!(self, Self::Done)
    }

    /// Whether the next bytes are data, not framing.
    pub(crate) fn is_data(&self) -> bool {
        matches!(self, Self::Data(_))
    }

    /// Passes a prefix of `input`; 0 bytes when it takes more to decide.
    pub(crate) fn check(&mut self, input: &[u8]) -> Result<usize, Refusal> {
        match self {
            Self::Size => self.size(input),
            Self::Data(left) => {
                let count = usize::try_from(*left).map_or(input.len(), |left| left.min(input.len()));
                *left -= count as u64;
                if *left == 0 {
                    *self = Self::DataEnd;
                }
                Ok(count)
            }
            Self::DataEnd => match input {
                [] | [b'\r'] => Ok(0),
                [b'\r', b'\n', ..] => {
                    *self = Self::Size;
                    Ok(2)
                }
                _ => Err(Refusal::malformed("a chunk of the body is not followed by CR LF; is its size wrong?")),
            },
            Self::Trailers { next, fields } => match trailers(input, next, fields)? {
                Some(length) => {
                    *self = Self::Done;
                    Ok(length)
                }
                None => Ok(0),
            },
            Self::Done => Ok(0),
        }
    }

    fn size(&mut self, input: &[u8]) -> Result<usize, Refusal> {
        let end = memchr(b'\n', &input[..input.len().min(MAX_SIZE_LINE)]);
        let Some(end) = end else {
            return if input.len() >= MAX_SIZE_LINE {
                Err(Refusal::malformed(format!("a chunk's size line is longer than {MAX_SIZE_LINE} bytes")))
            } else {
                Ok(0)
            };
        };
        let Some(line) = input[..end].strip_suffix(b"\r") else {
            return Err(Refusal::malformed("a chunk's size line ends with LF alone; it must end with CR LF"));
        };
        *self = match parse_size(line)? {
            0 => Self::Trailers { next: 0, fields: 0 },
            size => Self::Data(size),
        };
        Ok(end + 1)
    }
}

fn parse_size(line: &[u8]) -> Result<u64, Refusal> {
    let digits = memchr(b';', line).unwrap_or(line.len());
    let (digits, extension) = line.split_at(digits);
    let size = std::str::from_utf8(digits)
        .ok()
        .filter(|text| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_hexdigit()))
        .and_then(|text| u64::from_str_radix(text, 16).ok());
    let Some(size) = size else {
        return Err(Refusal::malformed(format!("chunk size {} is not a hexadecimal number", shown(digits))));
    };
    if extension.iter().any(|&byte| (byte < b' ' && byte != b'\t') || byte == 0x7f) {
        return Err(Refusal::malformed("a chunk extension has a control character"));
    }
    Ok(size)
}

/// The length of the trailer section with its empty line, or `None` while that is not there.
fn trailers(input: &[u8], next: &mut usize, fields: &mut usize) -> Result<Option<usize>, Refusal> {
    let within = &input[..input.len().min(MAX_TRAILERS)];
    loop {
        match line(&within[*next..])? {
            None if input.len() >= MAX_TRAILERS => {
                return Err(Refusal::head_too_large(format!("the trailers are larger than {MAX_TRAILERS} bytes")));
            }
            None => return Ok(None),
            Some(Line::Field { length, .. }) => {
                *next += length;
                *fields += 1;
            }
            Some(Line::End { length }) => return Ok(Some(*next + length)),
        }
        if *fields > MAX_TRAILER_FIELDS {
            return Err(Refusal::head_too_large(format!("the request has more than {MAX_TRAILER_FIELDS} trailers")));
        }
    }
}
