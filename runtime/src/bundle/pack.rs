//! Packs an app.

use std::{
    collections::HashMap,
    fs::{File, OpenOptions},
    io::{self, BufWriter, Read, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use super::{
    BundleError, link,
    record::{self, Content, Record},
};
use crate::app::{
    App,
    version::{self, Bounds, Kind, Total},
};

/// Writes the bundle of `app`, the same bytes each time.
///
/// Reads every file of the app: call it where blocking is allowed. After an error, what was written is to be thrown
/// away.
///
/// # Errors
/// When the app on disk is no longer this version, a link leads out of it, a file cannot be read, or `out` fails.
pub fn pack(app: &App, out: impl Write) -> Result<(), BundleError> {
    let bounds = Bounds::of(&app.directory, &app.manifest.writable);
    let files = version::files(&app.directory, &bounds)?;
    let mut packer =
        Packer { app, files: &files, left: bounds.size.as_u64(), out: BufWriter::new(out), buffer: vec![0; 1 << 16] };
    let mut own = HashMap::new();
    let mut counted = Vec::with_capacity(files.len());
    for path in &files {
        let kind = version::kind(&app.directory, path, &bounds).map_err(|error| packer.failed(path, error))?;
        let counts = packer.add(path, kind)?;
        if let Counts::As(hash) = counts {
            own.insert(path.as_path(), hash);
        }
        counted.push(counts);
    }
    let mut total = Total::default();
    for (path, counts) in files.iter().zip(counted) {
        let hash = match counts {
            Counts::As(hash) => hash,
            Counts::Like(target) => *own.get(target.as_path()).ok_or_else(|| packer.changed(&target))?,
        };
        total.add(path, hash);
    }
    if *total.finish().as_bytes() != app.hash {
        return Err(BundleError::Changed { directory: app.directory.clone(), file: None });
    }
    packer.out.write_all(&record::END).and_then(|()| packer.out.flush()).map_err(BundleError::Stream)
}

/// What something that was packed adds to the content hash.
enum Counts {
    As(blake3::Hash),
    /// Like the file it is a link to.
    Like(PathBuf),
}

struct Packer<'a, W: Write> {
    app: &'a App,
    files: &'a [PathBuf],
    /// Bytes that the files may still have.
    left: u64,
    out: BufWriter<W>,
    buffer: Vec<u8>,
}

impl<W: Write> Packer<'_, W> {
    fn add(&mut self, path: &Path, kind: Kind) -> Result<Counts, BundleError> {
        let root = &self.app.directory;
        let says = match kind {
            Kind::File => return self.file(path, &root.join(path)).map(Counts::As),
            Kind::Copy(target) => {
                let within = target.strip_prefix(root).unwrap_or(&target).to_owned();
                // What it leads to does not come along: an installed package, say, or a file whose name begins with a dot.
                if self.files.binary_search(&within).is_err() {
                    return self.file(path, &target).map(Counts::As);
                }
                self.link(path, version::relative(&root.join(path), &target))?;
                return Ok(Counts::Like(within));
            }
            Kind::Link(says) => says,
        };
        if link::leads_out(root, &link::parent(path), &says) {
            return Err(BundleError::Link { link: root.join(path), target: says });
        }
        let hash = version::of_link(&says);
        self.link(path, says)?;
        Ok(Counts::As(hash))
    }

    fn link(&mut self, path: &Path, says: PathBuf) -> Result<(), BundleError> {
        self.record(path, Content::Link(says))
    }

    fn record(&mut self, path: &Path, content: Content) -> Result<(), BundleError> {
        record::write(&mut self.out, &Record { path: path.to_owned(), content }).map_err(BundleError::Stream)
    }

    /// Packs what is in the file `source` as `path`.
    fn file(&mut self, path: &Path, source: &Path) -> Result<blake3::Hash, BundleError> {
        let (mut file, bytes, executable) = open(source).map_err(|error| self.failed(path, error))?;
        self.left = self.left.checked_sub(bytes).ok_or_else(|| self.changed(path))?;
        self.record(path, Content::File { bytes, executable })?;
        let mut hasher = blake3::Hasher::new();
        let mut left = bytes;
        while left > 0 {
            let most = usize::try_from(left).unwrap_or(usize::MAX).min(self.buffer.len());
            let count = match file.read(&mut self.buffer[..most]) {
                Ok(0) => return Err(self.changed(path)),
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(self.failed(path, error)),
            };
            hasher.update(&self.buffer[..count]);
            self.out.write_all(&self.buffer[..count]).map_err(BundleError::Stream)?;
            left -= count as u64;
        }
        self.out.write_all(record::padding(bytes)).map_err(BundleError::Stream)?;
        Ok(hasher.finalize())
    }

    fn changed(&self, path: &Path) -> BundleError {
        BundleError::Changed { directory: self.app.directory.clone(), file: Some(path.to_owned()) }
    }

    fn failed(&self, path: &Path, error: io::Error) -> BundleError {
        use io::ErrorKind::{InvalidInput, IsADirectory, NotADirectory, NotFound};
        match error.kind() {
            NotFound | NotADirectory | IsADirectory | InvalidInput => self.changed(path),
            _ if error.raw_os_error() == Some(libc::ELOOP) => self.changed(path),
            _ => BundleError::file(&self.app.directory.join(path), error),
        }
    }
}

/// A file with its size, and whether it may be executed.
fn open(path: &Path) -> io::Result<(File, u64, bool)> {
    // Whatever has taken the file's place since it was listed: no link is followed, and no pipe waited for.
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(path)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    Ok((file, metadata.len(), metadata.mode() & 0o100 != 0))
}
