//! The wire between node and worker, version 1: `docs/worker-protocol.md`.
//!
//! No I/O and no dependency: this file is compiled into both ends.

use std::fmt;

/// Bytes before meta and body.
pub const HEADER_BYTES: usize = 16;
/// The part of the header that `length` counts.
const COUNTED_HEADER_BYTES: usize = HEADER_BYTES - 4;
/// Chunks a stream may send before its first [`Kind::Credit`].
pub const INITIAL_CREDIT: u16 = 16;
/// A log line's limit, in bytes; longer ones are split.
pub const MAX_LOG_BYTES: usize = 64 * 1024;
/// The longest body of [`encode_short`].
pub const SHORT_BYTES: usize = 8;
/// Binary part of the meta of [`Kind::Invoke`]: invocation id and budget.
pub const INVOKE_META_BYTES: usize = 20;

/// `aux` of [`Kind::Load`]: the worker is to fork instances instead of being one.
pub const LOAD_ZYGOTE: u16 = 1;

/// What a frame is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// The app to load.
    Load = 1,
    /// Loaded, with what the language says of its functions.
    Ready = 2,
    /// Run a function.
    Invoke = 3,
    /// Its value, or the end of its stream.
    Result = 4,
    /// It failed.
    Error = 5,
    /// One item of a streamed answer.
    Chunk = 6,
    /// The caller no longer waits.
    Cancel = 7,
    /// More chunks may be sent.
    Credit = 8,
    /// A line the app wrote.
    Log = 9,
    /// Are you there?
    Ping = 10,
    /// Yes.
    Pong = 11,
    /// Finalize and exit.
    Stop = 12,
    /// Parameters the node read from sources.
    Bind = 13,
    /// Fork an instance, with these descriptors.
    Fork = 14,
    /// It is there.
    Forked = 15,
    /// The app that a worker is for which was started for none.
    Enter = 16,
}

impl Kind {
    #[inline]
    fn from_byte(byte: u8) -> Option<Self> {
        Some(match byte {
            1 => Self::Load,
            2 => Self::Ready,
            3 => Self::Invoke,
            4 => Self::Result,
            5 => Self::Error,
            6 => Self::Chunk,
            7 => Self::Cancel,
            8 => Self::Credit,
            9 => Self::Log,
            10 => Self::Ping,
            11 => Self::Pong,
            12 => Self::Stop,
            13 => Self::Bind,
            14 => Self::Fork,
            15 => Self::Forked,
            16 => Self::Enter,
            _ => return None,
        })
    }
}

/// How a frame's body is to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum BodyFormat {
    /// One JSON value, or empty.
    Json = 0,
    /// Raw bytes.
    Bytes = 1,
    /// UTF-8 text.
    Text = 2,
    /// There is no body.
    None = 3,
}

impl BodyFormat {
    fn from_byte(byte: u8) -> Option<Self> {
        Some(match byte {
            0 => Self::Json,
            1 => Self::Bytes,
            2 => Self::Text,
            3 => Self::None,
            _ => return None,
        })
    }
}

/// The fixed fields of a frame, without the lengths.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// What it is for.
    pub kind: Kind,
    /// How to read its body.
    pub format: BodyFormat,
    /// Function index, error code, log level or credit.
    pub aux: u16,
    /// The call, or 0.
    pub id: u32,
}

impl Header {
    /// A frame of this kind and call, with no body and `aux` 0.
    pub fn new(kind: Kind, id: u32) -> Self {
        Self { kind, format: BodyFormat::None, aux: 0, id }
    }

    /// The same with this body format.
    #[must_use]
    pub fn format(self, format: BodyFormat) -> Self {
        Self { format, ..self }
    }

    /// The same with this `aux`.
    #[must_use]
    pub fn aux(self, aux: u16) -> Self {
        Self { aux, ..self }
    }
}

/// A frame found in a buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    /// Its fixed fields.
    pub header: Header,
    /// Its meta section.
    pub meta: &'a [u8],
    /// Its body.
    pub body: &'a [u8],
}

#[allow(clippy::len_without_is_empty, reason = "a frame has at least its header")]
impl Frame<'_> {
    /// Bytes it takes in the buffer.
    pub fn len(&self) -> usize {
        HEADER_BYTES + self.meta.len() + self.body.len()
    }
}

/// What a buffer starts with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decoded<'a> {
    /// A whole frame; the next one follows after [`Frame::len`] bytes.
    Frame(Frame<'a>),
    /// Part of a frame: so many bytes in all are needed before trying again helps.
    Incomplete(usize),
}

/// A frame that cannot be read. The channel is of no use after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameError {
    /// Longer than the receiver's limit.
    TooLarge {
        /// What the frame claims, in bytes.
        length: usize,
        /// The limit, in bytes.
        limit: usize,
    },
    /// Lengths that contradict each other.
    BadLength,
    /// No such kind.
    UnknownKind(u8),
    /// No such body format.
    UnknownFormat(u8),
}

impl fmt::Display for FrameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLarge { length, limit } => write!(f, "frame of {length} bytes is over the limit of {limit}"),
            Self::BadLength => f.write_str("frame lengths contradict each other"),
            Self::UnknownKind(kind) => write!(f, "unknown frame kind {kind}"),
            Self::UnknownFormat(format) => write!(f, "unknown body format {format}"),
        }
    }
}

impl std::error::Error for FrameError {}

/// Looks for one frame at the start of `buffer`; never reads past it and never allocates.
///
/// `limit` bounds the whole frame in bytes and is checked as soon as the length is there.
///
/// # Errors
/// [`FrameError`] when no further byte can make it a frame.
#[inline(always)]
pub fn decode(buffer: &[u8], limit: usize) -> Result<Decoded<'_>, FrameError> {
    let Some((fixed, rest)) = buffer.split_first_chunk::<HEADER_BYTES>() else {
        return decode_short(buffer, limit);
    };
    let [l0, l1, l2, l3, kind, format, aux0, aux1, id0, id1, id2, id3, meta0, meta1, meta2, meta3] = *fixed;
    let total = total([l0, l1, l2, l3], limit)?;
    let meta_length = u32::from_le_bytes([meta0, meta1, meta2, meta3]) as usize;
    let payload_length = total - HEADER_BYTES;
    let header = Header {
        kind: Kind::from_byte(kind).ok_or(FrameError::UnknownKind(kind))?,
        format: BodyFormat::from_byte(format).ok_or(FrameError::UnknownFormat(format))?,
        aux: u16::from_le_bytes([aux0, aux1]),
        id: u32::from_le_bytes([id0, id1, id2, id3]),
    };
    if meta_length > payload_length {
        return Err(FrameError::BadLength);
    }
    if rest.len() < payload_length {
        return Ok(Decoded::Incomplete(total));
    }
    let (meta, body) = rest[..payload_length].split_at(meta_length);
    Ok(Decoded::Frame(Frame { header, meta, body }))
}

/// [`decode`] for a buffer that ends within the header.
#[cold]
fn decode_short(buffer: &[u8], limit: usize) -> Result<Decoded<'_>, FrameError> {
    Ok(Decoded::Incomplete(match buffer.first_chunk() {
        Some(length) => total(*length, limit)?,
        None => HEADER_BYTES,
    }))
}

/// Bytes of the frame that begins with `length`.
#[inline(always)]
fn total(length: [u8; 4], limit: usize) -> Result<usize, FrameError> {
    let counted = u32::from_le_bytes(length) as usize;
    let total = counted + 4;
    if counted < COUNTED_HEADER_BYTES {
        return Err(FrameError::BadLength);
    }
    if total > limit {
        return Err(FrameError::TooLarge { length: total, limit });
    }
    Ok(total)
}

/// Appends a frame to `out`.
///
/// # Panics
/// If meta and body together reach 4 GiB; callers limit both far below.
#[inline(always)]
pub fn encode(header: Header, meta: &[u8], body: &[u8], out: &mut Vec<u8>) {
    out.reserve(HEADER_BYTES + meta.len() + body.len());
    out.extend_from_slice(&head(header, meta.len(), body.len()));
    if !meta.is_empty() {
        out.extend_from_slice(meta);
    }
    out.extend_from_slice(body);
}

/// Appends a frame without meta whose body is the first `length` bytes of `body`. All of it is written at once, from
/// registers: what is stored in small parts and copied as a whole has to wait for the stores.
#[inline(always)]
pub fn encode_short(header: Header, body: [u8; SHORT_BYTES], length: usize, out: &mut Vec<u8>) {
    let length = length.min(SHORT_BYTES);
    let mut frame = [0; HEADER_BYTES + SHORT_BYTES];
    frame[..HEADER_BYTES].copy_from_slice(&head(header, 0, length));
    frame[HEADER_BYTES..].copy_from_slice(&body);
    out.extend_from_slice(&frame);
    out.truncate(out.len() - (SHORT_BYTES - length));
}

#[inline(always)]
fn head(header: Header, meta_length: usize, body_length: usize) -> [u8; HEADER_BYTES] {
    let counted = COUNTED_HEADER_BYTES + meta_length + body_length;
    let counted = u32::try_from(counted).expect("callers limit meta and body far below 4 GiB");
    let mut fixed = [0; HEADER_BYTES];
    fixed[..4].copy_from_slice(&counted.to_le_bytes());
    fixed[4] = header.kind as u8;
    fixed[5] = header.format as u8;
    fixed[6..8].copy_from_slice(&header.aux.to_le_bytes());
    fixed[8..12].copy_from_slice(&header.id.to_le_bytes());
    fixed[12..].copy_from_slice(&(meta_length as u32).to_le_bytes());
    fixed
}
