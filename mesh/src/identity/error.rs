use std::{io, path::PathBuf};

use super::certificate::Invalid;

/// Why what a node keeps of its identity could not be read, made or written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file or directory cannot be read or written.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried: "read", "write", ...
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Others can read a secret.
    #[error(
        "{} has mode {mode:04o}, so that other users can read this secret: it is not used. If nobody did, run \
         `chmod 600 {}`; otherwise remove this node from the mesh and join again",
        path.display(), path.display()
    )]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// A directory is neither empty nor an identity.
    #[error(
        "{} is not a complete identity, {file} is missing: remove the directory and join the mesh again",
        directory.display()
    )]
    Incomplete {
        /// The directory.
        directory: PathBuf,
        /// The first file that is missing.
        file: &'static str,
    },
    /// There is something where a new identity was to be written.
    #[error("{} is not empty: a new identity needs a directory of its own", directory.display())]
    Exists {
        /// The directory.
        directory: PathBuf,
    },
    /// A file is not what it should be.
    #[error("{}: {reason}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it, and what to do.
        reason: String,
    },
    /// A certificate is not one of this node and mesh.
    #[error(transparent)]
    Certificate(#[from] Invalid),
    /// More tokens than a node keeps.
    #[error("there are {limit} tokens already: revoke some, or wait until they expire")]
    TooManyTokens {
        /// How many a node keeps, those included that ended in the last 24 hours.
        limit: usize,
    },
    /// The cryptography library refused; its source of randomness, for instance, is not there.
    #[error("cannot make keys or certificates: {0}")]
    Crypto(String),
}

impl Error {
    /// For `map_err`: the system refused to `action` `path`.
    pub(super) fn io(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { action, path, source }
    }
}

impl From<rcgen::Error> for Error {
    fn from(error: rcgen::Error) -> Self {
        Self::Crypto(error.to_string())
    }
}

impl From<ring::error::Unspecified> for Error {
    fn from(_: ring::error::Unspecified) -> Self {
        Self::Crypto("the system gives no random bytes".to_owned())
    }
}

/// What somebody else wrote, for a log or an error: short and without control characters.
pub(super) fn printable(text: &str) -> String {
    const MAX_CHARS: usize = 300;
    text.chars().take(MAX_CHARS).map(|char| if char.is_control() { ' ' } else { char }).collect()
}
