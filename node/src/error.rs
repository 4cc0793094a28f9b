use std::{io, net::SocketAddr, path::PathBuf};

use tokio::signal::unix::SignalKind;

/// Why a node cannot start, or cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A directory to serve cannot be opened.
    #[error("{}: {source}; name a directory of functions", directory.display())]
    Directory {
        /// The directory.
        directory: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// Two directories hold apps of one name.
    #[error("{} and {} are both named {name:?}; set another `name` in the fnmesh.toml of one", first.display(), second.display())]
    SameName {
        /// The name.
        name: String,
        /// One of them.
        first: PathBuf,
        /// The other one.
        second: PathBuf,
    },
    /// The address cannot be bound.
    #[error("cannot listen on {address}: {}; choose another address with --listen", bind_reason(source, holder.as_deref()))]
    Bind {
        /// The address.
        address: SocketAddr,
        /// What the system says.
        source: io::Error,
        /// The process that has the port, where it can be seen.
        holder: Option<String>,
    },
    /// It cannot take part in the mesh.
    #[error(transparent)]
    Mesh(#[from] fnmesh_mesh::StartError),
    /// A signal ended it while it was joining.
    #[error("{}: ended before this node had joined the mesh by {address}", name(*signal))]
    Interrupted {
        /// Which.
        signal: SignalKind,
        /// Where it was about to join.
        address: SocketAddr,
    },
    /// Its part in the mesh has failed while it was running.
    #[error("the thread of the mesh has failed, as the log says; start this node again")]
    MeshLost,
    /// Another node uses the directory.
    #[error("{}: another node uses this directory; each node needs a --data of its own", directory.display())]
    DataInUse {
        /// The directory.
        directory: PathBuf,
    },
    /// The directory of the node's data cannot be used.
    #[error("{}: {source}; --data names a directory this user can write to", directory.display())]
    Data {
        /// The directory.
        directory: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// Workers cannot be confined as `--sandbox strict` demands.
    #[error("--sandbox strict: {}; see docs/sandbox.md, or use --sandbox auto", missing.join("; "))]
    Sandbox {
        /// The levels that are missing, with the reasons.
        missing: Vec<String>,
    },
    /// The system refuses what every node needs: a thread, a signal handler, an event queue.
    #[error("cannot start: {0}")]
    System(#[from] io::Error),
}

fn name(signal: SignalKind) -> &'static str {
    if signal == SignalKind::interrupt() { "SIGINT" } else { "SIGTERM" }
}

fn bind_reason(source: &io::Error, holder: Option<&str>) -> String {
    match (source.kind(), holder) {
        (io::ErrorKind::AddrInUse, Some(holder)) => format!("the port is in use by {holder}"),
        (io::ErrorKind::AddrInUse, None) => {
            "the port is in use, perhaps by another node; `ss -ltnp` lists who listens".to_owned()
        }
        (io::ErrorKind::PermissionDenied, _) => format!("{source}; ports below 1024 need privileges"),
        _ => source.to_string(),
    }
}
