//! What a node is started with.

use std::{
    net::{SocketAddr, ToSocketAddrs as _},
    num::NonZeroUsize,
    path::PathBuf,
    str::FromStr,
    time::Duration,
};

use bytesize::ByteSize;
use clap::{Args, ValueEnum};
use fnmesh_runtime::sandbox;

/// Serve directories of functions over HTTP.
#[derive(Debug, Args)]
#[command(after_help = "\
Every directory with functions in it is one app, named by its manifest or by itself. A directory
that only holds such directories stands for all of them.

Examples:
  fnmesh serve ./shop                     POST http://127.0.0.1:8080/shop/FUNCTION
  fnmesh serve examples                   every directory in examples/
  fnmesh serve ./shop --listen 0.0.0.0:80 --log-format json
  fnmesh serve ./shop --mesh 0.0.0.0:7100 --data ./n1
                                          the first node of a mesh; prints how others join

Signals: SIGTERM or Ctrl-C finishes the calls in flight and exits; a second one stops at once.
Exit codes: 0 stopped cleanly, 1 could not start, calls were cut off or the part in the mesh failed,
2 wrong usage, 130 or 143 ended by Ctrl-C or SIGTERM before it had joined the mesh.")]
pub(in crate::cli) struct Serve {
    #[command(flatten)]
    pub(in crate::cli) node: Node,
    #[command(flatten)]
    pub(in crate::cli) mesh: Mesh,
    /// How logs are written to stderr
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t = LogFormat::Text)]
    pub(in crate::cli) log_format: LogFormat,
}

/// Serve directories, reload them on every change and show what happens.
#[derive(Debug, Args)]
#[command(after_help = "\
A version that cannot start is shown with its error while the last good one keeps serving.

With --nodes it is a mesh of several nodes on this machine, each with the next free port and with
data that are removed at the end. Apps are deployed to all of them, and again on every change.

Examples:
  fnmesh dev ./shop
  fnmesh dev ./shop --nodes 3             a mesh of three nodes
  fnmesh dev examples --listen 127.0.0.1:9000")]
pub(in crate::cli) struct Dev {
    #[command(flatten)]
    pub(in crate::cli) node: Node,
    /// How many nodes of one mesh to start on this machine
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=16))]
    pub(in crate::cli) nodes: u8,
}

/// Run one of the nodes of `fnmesh dev --nodes`.
#[derive(Debug, Args)]
pub(in crate::cli) struct DevNode {
    #[command(flatten)]
    pub(in crate::cli) node: Node,
    #[command(flatten)]
    pub(in crate::cli) mesh: Mesh,
    /// How many nodes the mesh is to have
    #[arg(long, value_name = "N")]
    pub(in crate::cli) nodes: NonZeroUsize,
    /// Print colours though nobody sees them here
    #[arg(long)]
    pub(in crate::cli) color: bool,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct Node {
    /// Directories of functions, one app each; none serves an empty node
    #[arg(value_name = "DIR")]
    pub(in crate::cli) directories: Vec<PathBuf>,
    /// Address and port to listen on; port 0 takes a free one
    #[arg(long, value_name = "ADDRESS", env = "FNMESH_LISTEN", default_value = "127.0.0.1:8080", value_parser = address)]
    pub(in crate::cli) listen: SocketAddr,
    /// Gateway threads [default: one per core]
    #[arg(long, value_name = "N")]
    pub(in crate::cli) threads: Option<NonZeroUsize>,
    /// Python interpreter for apps without a .venv [default: python3 on PATH]
    #[arg(long, value_name = "PATH")]
    pub(in crate::cli) python: Option<PathBuf>,
    /// Node.js executable [default: node on PATH]
    #[arg(long, value_name = "PATH")]
    pub(in crate::cli) node: Option<PathBuf>,
    /// Where dependencies of apps are installed [default: ~/.cache/fnmesh]
    #[arg(long, value_name = "DIR", env = "FNMESH_CACHE")]
    pub(in crate::cli) cache: Option<PathBuf>,
    /// Log level, or levels by target such as `info,fnmesh::request=debug` [default: info]
    #[arg(long, value_name = "LEVEL", env = "FNMESH_LOG")]
    pub(in crate::cli) log: Option<String>,
    /// Origin that browsers may call from; `none` sends no CORS headers
    #[arg(long, value_name = "ORIGIN", default_value = "*")]
    pub(in crate::cli) cors_origin: String,
    /// Largest request body
    #[arg(long, value_name = "SIZE", default_value = "6MiB", value_parser = body_limit)]
    pub(in crate::cli) max_body: ByteSize,
    /// Open connections; a few more may ask for the node's state
    #[arg(long, value_name = "N", default_value = "8192", value_parser = connections)]
    pub(in crate::cli) max_connections: NonZeroUsize,
    /// How long calls in flight may take when the node stops
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = humantime::parse_duration)]
    pub(in crate::cli) drain_timeout: Duration,
    /// Confinement of workers: `auto` takes what this machine has, `strict` refuses to start with less than all
    #[arg(long, value_name = "off|auto|strict", env = "FNMESH_SANDBOX", default_value_t, value_parser = sandbox::Mode::from_str)]
    pub(in crate::cli) sandbox: sandbox::Mode,
    /// Print one JSON object per event in place of text
    #[arg(long)]
    pub(in crate::cli) json: bool,
    /// The extension module that Python workers load [default: beside the executable]
    #[arg(long, value_name = "FILE", env = "FNMESH_PYTHON_EXTENSION", hide_short_help = true)]
    pub(in crate::cli) python_extension: Option<PathBuf>,
}

/// How the node takes part in a mesh.
#[derive(Debug, Args)]
#[command(next_help_heading = "Mesh")]
pub(in crate::cli) struct Mesh {
    /// Take part in a mesh, and listen for other nodes at this UDP address; the first node makes the mesh
    #[arg(long, value_name = "ADDRESS", env = "FNMESH_MESH", value_parser = address, requires = "data")]
    pub(in crate::cli) mesh: Option<SocketAddr>,
    /// Where this node keeps its identity; a directory of its own for each node
    #[arg(long, value_name = "DIR", env = "FNMESH_DATA", requires = "mesh")]
    pub(in crate::cli) data: Option<PathBuf>,
    /// Join the mesh of the node at this address; not needed again once joined
    #[arg(long, value_name = "ADDRESS", env = "FNMESH_JOIN", value_parser = address, requires = "mesh")]
    pub(in crate::cli) join: Option<SocketAddr>,
    /// The token to join with, of `fnmesh token create`
    #[arg(long, value_name = "TOKEN", env = "FNMESH_TOKEN", hide_env_values = true, requires = "join")]
    pub(in crate::cli) token: Option<String>,
    /// The node's name for people [default: the name of the --data directory]
    #[arg(long, value_name = "NAME", requires = "mesh")]
    pub(in crate::cli) name: Option<String>,
    /// The node's zone, such as a data centre
    #[arg(long, value_name = "ZONE", default_value = "", hide_default_value = true, requires = "mesh")]
    pub(in crate::cli) zone: String,
    /// Where other nodes reach this one, behind an address translation for instance [default: by --mesh]
    #[arg(long, value_name = "ADDRESS", value_parser = address, requires = "mesh")]
    pub(in crate::cli) advertise: Option<SocketAddr>,
    /// How fast links send; `auto` goes from cubic over to BBR where a long way loses packets
    #[arg(long, value_name = "auto|cubic|bbr", value_enum, default_value_t = Congestion::Auto, requires = "mesh")]
    pub(in crate::cli) congestion: Congestion,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum Congestion {
    /// Cubic, and BBR from the first loss on where the round trip takes more than 5 ms
    Auto,
    /// For networks that lose little, or only what does not fit
    Cubic,
    /// For long ways that lose packets without being full
    Bbr,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum LogFormat {
    /// A line for people
    Text,
    /// A JSON object per line
    Json,
}

fn address(text: &str) -> Result<SocketAddr, String> {
    let resolved = text.to_socket_addrs().ok().and_then(|mut addresses| addresses.next());
    resolved.ok_or_else(|| "write ADDRESS:PORT, such as 127.0.0.1:8080 or [::1]:8080".to_owned())
}

fn connections(text: &str) -> Result<NonZeroUsize, String> {
    // The most files that Linux lets a process open, unless it is told otherwise, is a little more.
    const MOST: usize = 1_000_000;
    let count = text.parse().ok().filter(|count: &NonZeroUsize| count.get() <= MOST);
    count.ok_or_else(|| format!("it is a number from 1 to {MOST}"))
}

fn body_limit(text: &str) -> Result<ByteSize, String> {
    let size: ByteSize = text.parse().map_err(|_| "write it as 6MiB, 500kB or a number of bytes".to_owned())?;
    // A frame's length field has 32 bits, and 1 MiB of them is not the body's.
    if size > ByteSize::gib(3) { Err("it can be 3GiB at most".to_owned()) } else { Ok(size) }
}
