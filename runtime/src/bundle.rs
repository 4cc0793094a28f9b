//! Bundles: the packed bytes of a version, which another node unpacks to serve it.
//!
//! A bundle has what the content hash covers and nothing else, so that [`crate::App::read`] of what was unpacked gives the
//! hash of what was packed. Whoever unpacks a bundle compares the two. The format is in docs/adr/0033-bundles.md.

mod link;
mod pack;
mod record;
#[cfg(test)]
mod tests;
mod unpack;

use std::{
    io,
    path::{Path, PathBuf},
};

use bytesize::ByteSize;

pub use self::{pack::pack, unpack::unpack};
use crate::{
    app::{AppError, version::Bounds},
    manifest::FileError,
};

/// How names of directories begin that [`unpack()`] has not finished, beside the one it was asked for. They outlive only
/// a node that was killed.
pub const UNFINISHED: &str = ".unpacking-";

/// What is unpacked at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Files, links and directories. Default 10,000, as for any app.
    pub entries: usize,
    /// Content of all files together. Default 512 MiB, as for any app.
    pub size: ByteSize,
}

impl Default for Limits {
    fn default() -> Self {
        let Bounds { entries, size, .. } = Bounds::default();
        Self { entries, size }
    }
}

impl Limits {
    /// How many bytes a bundle within these limits has at most.
    pub fn bundle_size(&self) -> ByteSize {
        let records = (self.entries as u64).saturating_mul(record::MAX_BYTES);
        ByteSize::b(self.size.as_u64().saturating_add(records).saturating_add(record::END.len() as u64))
    }
}

/// Why an app was not packed or a bundle not unpacked.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    /// The app has a link that leads out of it.
    #[error(
        "{}: links to {}, outside of the app, and other nodes get only what is in the app's directory; put what it \
         leads to in its place, or make it a relative link within the app",
        link.display(),
        target.display()
    )]
    Link {
        /// The link.
        link: PathBuf,
        /// What it says.
        target: PathBuf,
    },
    /// The app is no longer the version that was to be packed.
    #[error("{}: {}; deploy the app as it is now and pack that version", directory.display(), changed(file.as_deref()))]
    Changed {
        /// The app's directory.
        directory: PathBuf,
        /// The file that changed, where it is known.
        file: Option<PathBuf>,
    },
    /// The bundle is not as [`pack()`] makes them, or too large.
    #[error("the bundle is refused: {reason}")]
    Refused {
        /// What is wrong, where, and what to do.
        reason: String,
    },
    /// A file cannot be read or written.
    #[error("{}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The bundle itself cannot be written or read.
    #[error("the bundle's bytes: {0}")]
    Stream(#[from] io::Error),
    /// What is packed or was unpacked is no app.
    #[error(transparent)]
    App(#[from] AppError),
}

impl BundleError {
    fn file(path: &Path, source: io::Error) -> Self {
        Self::File { path: path.to_owned(), source }
    }

    fn refused(reason: impl Into<String>) -> Self {
        Self::Refused { reason: reason.into() }
    }
}

impl From<FileError> for BundleError {
    fn from(error: FileError) -> Self {
        Self::App(error.into())
    }
}

fn changed(file: Option<&Path>) -> String {
    match file {
        Some(file) => format!("{} changed while the app was packed", file.display()),
        None => "the app changed while it was packed".to_owned(),
    }
}
