//! The format: GNU tar, of which records for files, symbolic links and long names are used.

use std::{
    ffi::OsString,
    io::{self, Read, Write},
    os::unix::ffi::{OsStrExt, OsStringExt},
    path::{Component, Path, PathBuf},
};

use tar::{EntryType, Header};

use super::BundleError;

const BLOCK: usize = 512;

/// After the last record.
pub(super) const END: [u8; 2 * BLOCK] = [0; 2 * BLOCK];

/// Of names and of what links say, as on Linux.
const MAX_NAME_BYTES: usize = 4095;

/// What fits into the record itself.
const SHORT_NAME_BYTES: usize = 100;

/// Of one record besides the content: its block, padding, and two long names of 9 blocks each.
pub(super) const MAX_BYTES: u64 = 20 * BLOCK as u64;

/// One file or link.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Record {
    /// Relative, without `.` and `..`.
    pub(super) path: PathBuf,
    pub(super) content: Content,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Content {
    /// So many bytes follow, and [`padding`].
    File { bytes: u64, executable: bool },
    /// To what it says.
    Link(PathBuf),
}

/// The zeros after a content of so many bytes.
pub(super) fn padding(bytes: u64) -> &'static [u8] {
    let over = (bytes % BLOCK as u64) as usize;
    &END[..(BLOCK - over) % BLOCK]
}

/// Writes the record; its content comes next.
pub(super) fn write(out: &mut impl Write, record: &Record) -> io::Result<()> {
    let path = record.path.as_os_str().as_bytes();
    let (kind, mode, bytes, says) = match &record.content {
        Content::File { bytes, executable } => {
            (EntryType::Regular, if *executable { 0o755 } else { 0o644 }, *bytes, &b""[..])
        }
        Content::Link(says) => (EntryType::Symlink, 0o777, 0, says.as_os_str().as_bytes()),
    };
    for (kind, name) in [(EntryType::GNULongLink, says), (EntryType::GNULongName, path)] {
        if name.len() > SHORT_NAME_BYTES {
            let bytes = name.len() as u64 + 1;
            out.write_all(header(kind, b"././@LongLink", b"", 0o644, bytes).as_bytes())?;
            out.write_all(name)?;
            out.write_all(&[0])?;
            out.write_all(padding(bytes))?;
        }
    }
    out.write_all(header(kind, path, says, mode, bytes).as_bytes())
}

fn header(kind: EntryType, path: &[u8], says: &[u8], mode: u32, bytes: u64) -> Header {
    let mut header = Header::new_gnu();
    let old = header.as_old_mut();
    for (field, name) in [(&mut old.name, path), (&mut old.linkname, says)] {
        let length = name.len().min(field.len());
        field[..length].copy_from_slice(&name[..length]);
    }
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(bytes);
    header.set_cksum();
    header
}

/// The next record; `None` after the last one, where `input` ends.
pub(super) fn read(input: &mut impl Read) -> Result<Option<Record>, BundleError> {
    let (mut path, mut says) = (None, None);
    loop {
        let mut block = [0; BLOCK];
        fill(input, &mut block)?;
        if block == [0; BLOCK] {
            if path.is_some() || says.is_some() {
                return Err(BundleError::refused("a long name at its end belongs to nothing"));
            }
            return end(input).map(|()| None);
        }
        let header = Header::from_byte_slice(&block);
        let bytes = check(header)?;
        let long = match header.entry_type() {
            EntryType::GNULongName => &mut path,
            EntryType::GNULongLink => &mut says,
            kind => {
                let old = header.as_old();
                let path = path.unwrap_or_else(|| short(&old.name));
                let says = says.unwrap_or_else(|| short(&old.linkname));
                return record(kind, header, bytes, path, says).map(Some);
            }
        };
        if long.replace(long_name(input, bytes)?).is_some() {
            return Err(BundleError::refused("two long names follow each other"));
        }
    }
}

/// The size that `header` states, when it is one of ours.
fn check(header: &Header) -> Result<u64, BundleError> {
    let refuse = || BundleError::refused("it is damaged, or no bundle at all; fetch it again");
    let old = header.as_old();
    let sum: u32 = header.as_bytes().iter().map(|byte| u32::from(*byte)).sum();
    let own: u32 = old.cksum.iter().map(|byte| u32::from(*byte)).sum();
    let expected = sum - own + 8 * u32::from(b' ');
    if header.as_gnu().is_none() || header.cksum().ok() != Some(expected) {
        return Err(refuse());
    }
    header.entry_size().map_err(|_| refuse())
}

fn record(kind: EntryType, header: &Header, bytes: u64, path: Vec<u8>, says: Vec<u8>) -> Result<Record, BundleError> {
    let path = name(path)?;
    let refuse = |what: &str| Err(BundleError::refused(format!("{}: {what}", path.display())));
    let mut parts = path.components();
    if !parts.all(|part| matches!(part, Component::Normal(_))) || !is_plain(&path) {
        return refuse("is no plain path below the app's directory");
    }
    let content = match kind {
        EntryType::Regular => {
            let Ok(mode) = header.mode() else { return refuse("has no mode") };
            Content::File { bytes, executable: mode & 0o100 != 0 }
        }
        EntryType::Symlink if bytes > 0 => return refuse("is a link with content"),
        EntryType::Symlink => Content::Link(name(says)?),
        _ => return refuse("is neither a file nor a symbolic link"),
    };
    Ok(Record { path, content })
}

/// Whether `path` is written as its parts are, without `//`, `/./` or a `/` at the end.
fn is_plain(path: &Path) -> bool {
    path.components().collect::<PathBuf>().as_os_str() == path.as_os_str()
}

fn name(bytes: Vec<u8>) -> Result<PathBuf, BundleError> {
    if bytes.is_empty() || bytes.contains(&0) {
        return Err(BundleError::refused(format!("{:?} is no name", String::from_utf8_lossy(&bytes))));
    }
    Ok(OsString::from_vec(bytes).into())
}

fn short(field: &[u8]) -> Vec<u8> {
    field.iter().copied().take_while(|byte| *byte != 0).collect()
}

fn long_name(input: &mut impl Read, bytes: u64) -> Result<Vec<u8>, BundleError> {
    let length = usize::try_from(bytes).ok().and_then(|bytes| bytes.checked_sub(1));
    let Some(length) = length.filter(|length| *length <= MAX_NAME_BYTES) else {
        return Err(BundleError::refused(format!("a name of {bytes} bytes; the limit is {MAX_NAME_BYTES}")));
    };
    let mut name = vec![0; length + 1 + padding(bytes).len()];
    fill(input, &mut name)?;
    if name[length..].iter().any(|byte| *byte != 0) {
        return Err(BundleError::refused("a long name does not end where it should"));
    }
    name.truncate(length);
    Ok(name)
}

/// After the first block of zeros.
fn end(input: &mut impl Read) -> Result<(), BundleError> {
    let mut block = [0; BLOCK];
    fill(input, &mut block)?;
    let more = input.read(&mut [0]).map_err(BundleError::Stream)?;
    if block != [0; BLOCK] || more > 0 {
        return Err(BundleError::refused("something follows after its end"));
    }
    Ok(())
}

/// Reads exactly as many bytes.
pub(super) fn fill(input: &mut impl Read, bytes: &mut [u8]) -> Result<(), BundleError> {
    input.read_exact(bytes).map_err(|error| match error.kind() {
        io::ErrorKind::UnexpectedEof => BundleError::refused("it ends early; fetch it again"),
        _ => BundleError::Stream(error),
    })
}
