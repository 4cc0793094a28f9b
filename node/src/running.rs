//! Which nodes of a mesh run on this machine, so that commands need not be told.
//!
//! Each node leaves a file with the path of its data in a directory of its user. A node that was killed leaves it
//! behind: whoever looks sees that nobody answers.

use std::{
    fs::{self, DirBuilder},
    io,
    os::unix::{ffi::OsStrExt as _, fs::DirBuilderExt as _},
    path::{Path, PathBuf},
    time::Duration,
};

use tokio::{net::UnixStream, time::timeout};

use crate::{environment, socket};

/// A node on this machine accepts at once.
const PATIENCE: Duration = Duration::from_secs(1);

/// The file of a node, removed when it ends.
#[derive(Debug)]
pub(crate) struct Mark(PathBuf);

impl Mark {
    /// For the node with this data and id.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub(crate) fn leave(data: &Path, node: &str) -> io::Result<Self> {
        let directory = environment::run_dir();
        DirBuilder::new().recursive(true).mode(0o700).create(&directory)?;
        let path = directory.join(node);
        fs::write(&path, fs::canonicalize(data)?.as_os_str().as_bytes())?;
        Ok(Self(path))
    }
}

impl Drop for Mark {
    fn drop(&mut self) {
        // At worst it is taken for that of a node that was killed.
        let _ = fs::remove_file(&self.0);
    }
}

/// The data of the nodes that run, in the order of their paths.
pub(crate) async fn nodes() -> Vec<PathBuf> {
    let entries = fs::read_dir(environment::run_dir()).into_iter().flatten().flatten();
    let mut nodes = Vec::new();
    for entry in entries {
        let Ok(data) = fs::read(entry.path()) else { continue };
        let data = PathBuf::from(std::ffi::OsStr::from_bytes(&data));
        match timeout(PATIENCE, UnixStream::connect(socket::path(&data))).await {
            Ok(Ok(_)) => nodes.push(data),
            _ => drop(fs::remove_file(entry.path())),
        }
    }
    nodes.sort();
    nodes
}
