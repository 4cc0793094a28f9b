use std::{
    net::{SocketAddr, ToSocketAddrs as _},
    num::NonZeroUsize,
    path::PathBuf,
    str::FromStr,
    time::Duration,
};

use bytesize::ByteSize;
use clap::{Args, Parser, Subcommand, ValueEnum, builder::Styles};
use fnmesh_mesh::deployments::Replicas;
use fnmesh_runtime::sandbox;

use crate::terminal;

const STYLES: Styles =
    Styles::styled().header(terminal::HEADING).usage(terminal::HEADING).literal(terminal::NAME).error(terminal::ERROR);

/// Turns directories of plain functions into a service.
#[derive(Debug, Parser)]
#[command(name = "fnmesh", version, styles = STYLES, disable_help_subcommand = true, arg_required_else_help = true)]
#[command(after_help = "\
Examples:
  fnmesh dev ./shop                       serve ./shop, reload it on every change
  fnmesh serve ./shop ./billing           serve two apps
  fnmesh call shop/total items:='[1,2]'   call a function
  fnmesh ls                               list the functions of a running node
  fnmesh deploy ./shop --replicas 2       deploy to the mesh of the node on this machine")]
pub(super) struct Cli {
    #[command(subcommand)]
    pub(super) command: Command,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Serve directories of functions over HTTP
    Serve(Box<Serve>),
    /// Serve directories, reload them on every change and show what happens
    Dev(Dev),
    /// Run one of the nodes of `fnmesh dev --nodes`
    #[command(hide = true)]
    DevNode(Box<DevNode>),
    /// Call a function of a running node
    Call(Call),
    /// List the functions of a running node
    Ls(Ls),
    /// List the instances of a running node
    Ps(Ps),
    /// Show all that is known of apps and functions of a running node
    Inspect(Inspect),
    /// Deploy an app to the mesh
    Deploy(Deploy),
    /// Remove a deployed app from the mesh
    Rm(Rm),
    /// List what is deployed on the mesh
    Deployments(Deployments),
    /// Let a node give all its calls to others
    Drain(Drain),
    /// List the nodes of the mesh, or remove one
    Nodes(Nodes),
    /// List which nodes of the mesh serve which functions
    Routes(Routes),
    /// Make, list and revoke tokens with which machines join the mesh
    Token(Token),
    /// Print the version
    Version(Version),
}

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
Exit codes: 0 stopped cleanly, 1 could not start or calls were cut off, 2 wrong usage.")]
pub(super) struct Serve {
    #[command(flatten)]
    pub(super) node: Node,
    #[command(flatten)]
    pub(super) mesh: Mesh,
    /// How logs are written to stderr
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t = LogFormat::Text)]
    pub(super) log_format: LogFormat,
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
pub(super) struct Dev {
    #[command(flatten)]
    pub(super) node: Node,
    /// How many nodes of one mesh to start on this machine
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=16))]
    pub(super) nodes: u8,
}

/// Run one of the nodes of `fnmesh dev --nodes`.
#[derive(Debug, Args)]
pub(super) struct DevNode {
    #[command(flatten)]
    pub(super) node: Node,
    #[command(flatten)]
    pub(super) mesh: Mesh,
    /// How many nodes the mesh is to have
    #[arg(long, value_name = "N")]
    pub(super) nodes: NonZeroUsize,
    /// Print colours though nobody sees them here
    #[arg(long)]
    pub(super) color: bool,
}

#[derive(Debug, Args)]
pub(super) struct Node {
    /// Directories of functions, one app each; none serves an empty node
    #[arg(value_name = "DIR")]
    pub(super) directories: Vec<PathBuf>,
    /// Address and port to listen on; port 0 takes a free one
    #[arg(long, value_name = "ADDRESS", env = "FNMESH_LISTEN", default_value = "127.0.0.1:8080", value_parser = address)]
    pub(super) listen: SocketAddr,
    /// Gateway threads [default: one per core]
    #[arg(long, value_name = "N")]
    pub(super) threads: Option<NonZeroUsize>,
    /// Python interpreter for apps without a .venv [default: python3 on PATH]
    #[arg(long, value_name = "PATH")]
    pub(super) python: Option<PathBuf>,
    /// Node.js executable [default: node on PATH]
    #[arg(long, value_name = "PATH")]
    pub(super) node: Option<PathBuf>,
    /// Where dependencies of apps are installed [default: ~/.cache/fnmesh]
    #[arg(long, value_name = "DIR", env = "FNMESH_CACHE")]
    pub(super) cache: Option<PathBuf>,
    /// Log level, or levels by target such as `info,fnmesh::request=debug` [default: info]
    #[arg(long, value_name = "LEVEL", env = "FNMESH_LOG")]
    pub(super) log: Option<String>,
    /// Origin that browsers may call from; `none` sends no CORS headers
    #[arg(long, value_name = "ORIGIN", default_value = "*")]
    pub(super) cors_origin: String,
    /// Largest request body
    #[arg(long, value_name = "SIZE", default_value = "6MiB", value_parser = body_limit)]
    pub(super) max_body: ByteSize,
    /// Open connections; a few more may ask for the node's state
    #[arg(long, value_name = "N", default_value = "8192")]
    pub(super) max_connections: NonZeroUsize,
    /// How long calls in flight may take when the node stops
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = humantime::parse_duration)]
    pub(super) drain_timeout: Duration,
    /// Confinement of workers: `auto` takes what this machine has, `strict` refuses to start with less than all
    #[arg(long, value_name = "off|auto|strict", env = "FNMESH_SANDBOX", default_value_t, value_parser = sandbox::Mode::from_str)]
    pub(super) sandbox: sandbox::Mode,
    /// Print one JSON object per event in place of text
    #[arg(long)]
    pub(super) json: bool,
    /// The extension module that Python workers load [default: beside the executable]
    #[arg(long, value_name = "FILE", env = "FNMESH_PYTHON_EXTENSION", hide_short_help = true)]
    pub(super) python_extension: Option<PathBuf>,
}

/// How the node takes part in a mesh.
#[derive(Debug, Args)]
#[command(next_help_heading = "Mesh")]
pub(super) struct Mesh {
    /// Take part in a mesh, and listen for other nodes at this UDP address; the first node makes the mesh
    #[arg(long, value_name = "ADDRESS", env = "FNMESH_MESH", value_parser = address, requires = "data")]
    pub(super) mesh: Option<SocketAddr>,
    /// Where this node keeps its identity; a directory of its own for each node
    #[arg(long, value_name = "DIR", env = "FNMESH_DATA", requires = "mesh")]
    pub(super) data: Option<PathBuf>,
    /// Join the mesh of the node at this address; not needed again once joined
    #[arg(long, value_name = "ADDRESS", env = "FNMESH_JOIN", value_parser = address, requires = "mesh")]
    pub(super) join: Option<SocketAddr>,
    /// The token to join with, of `fnmesh token create`
    #[arg(long, value_name = "TOKEN", env = "FNMESH_TOKEN", hide_env_values = true, requires = "join")]
    pub(super) token: Option<String>,
    /// The node's name for people [default: the name of the --data directory]
    #[arg(long, value_name = "NAME", requires = "mesh")]
    pub(super) name: Option<String>,
    /// The node's zone, such as a data centre
    #[arg(long, value_name = "ZONE", default_value = "", hide_default_value = true, requires = "mesh")]
    pub(super) zone: String,
    /// Where other nodes reach this one, behind an address translation for instance [default: by --mesh]
    #[arg(long, value_name = "ADDRESS", value_parser = address, requires = "mesh")]
    pub(super) advertise: Option<SocketAddr>,
    /// How fast links send; `auto` goes from cubic over to BBR where a long way loses packets
    #[arg(long, value_name = "auto|cubic|bbr", value_enum, default_value_t = Congestion::Auto, requires = "mesh")]
    pub(super) congestion: Congestion,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Congestion {
    /// Cubic, and BBR from the first loss on where the round trip takes more than 5 ms
    Auto,
    /// For networks that lose little, or only what does not fit
    Cubic,
    /// For long ways that lose packets without being full
    Bbr,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum LogFormat {
    /// A line for people
    Text,
    /// A JSON object per line
    Json,
}

/// Which node a client command talks to.
#[derive(Debug, Args)]
pub(super) struct Target {
    /// The node's URL
    #[arg(long, value_name = "URL", env = "FNMESH_NODE", default_value = "http://127.0.0.1:8080")]
    pub(super) node: String,
}

/// Call a function of a running node.
#[derive(Debug, Args)]
#[command(after_help = "\
Arguments:
  name=value      text, converted by the parameter's type hint or default
  name:=json      a JSON value; with one of these, plain values stay strings
  -d JSON         the whole body: an array is positional, an object named

Examples:
  fnmesh call text/merge a=Hello b=world
  fnmesh call shop/total items:='[1, 2]' currency=EUR
  fnmesh call text/merge -d '[\"Hello\", \"world\"]'
  fnmesh call images/resize -d @photo.png > small.png
  cat order.json | fnmesh call shop/submit -d -

Exit codes: 0 answered, 1 the call failed, 2 wrong usage, 3 no node answers.")]
pub(super) struct Call {
    /// The function, as `app/function`
    #[arg(value_name = "APP/FUNCTION")]
    pub(super) function: String,
    /// Arguments by name, `name=value` or `name:=json`
    #[arg(value_name = "NAME=VALUE", conflicts_with = "data")]
    pub(super) arguments: Vec<String>,
    /// The body: JSON text, `@FILE`, or `-` for standard input
    #[arg(short, long, value_name = "JSON|@FILE|-", allow_hyphen_values = true)]
    pub(super) data: Option<String>,
    /// Media type of the body [default: by its content]
    #[arg(long, value_name = "TYPE", requires = "data")]
    pub(super) content_type: Option<String>,
    #[command(flatten)]
    pub(super) target: Target,
    /// Give up after this time, such as 500ms or 2m [default: the function's own timeout]
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    pub(super) timeout: Option<Duration>,
    /// Media type to ask for, such as text/event-stream
    #[arg(long, value_name = "TYPE")]
    pub(super) accept: Option<String>,
    /// Print the answer's status and headers first
    #[arg(short, long)]
    pub(super) include: bool,
}

/// List the functions of a running node.
#[derive(Debug, Args)]
pub(super) struct Ls {
    #[command(flatten)]
    pub(super) target: Target,
    /// Print the node's JSON
    #[arg(long)]
    pub(super) json: bool,
}

/// List the instances of a running node.
#[derive(Debug, Args)]
#[command(after_help = "\
The first table has a line for each app and language: its instances and the bounds between which
their number follows the load, calls in flight and waiting, cold starts with the time calls waited
for one on average, instances that died, and the state. The second has a line for each instance.

Examples:
  fnmesh ps
  fnmesh ps shop --json         the pools of one app, for a program")]
pub(super) struct Ps {
    /// The app; every app if left out
    #[arg(value_name = "APP")]
    pub(super) app: Option<String>,
    #[command(flatten)]
    pub(super) target: Target,
    /// Print a JSON array with an object for each pool
    #[arg(long)]
    pub(super) json: bool,
}

/// Show all that is known of apps and functions of a running node.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  fnmesh inspect                every app
  fnmesh inspect shop           one app
  fnmesh inspect shop/total     one function, with its limits and a curl line")]
pub(super) struct Inspect {
    /// The app or function; every app if left out
    #[arg(value_name = "APP[/FUNCTION]")]
    pub(super) name: Option<String>,
    #[command(flatten)]
    pub(super) target: Target,
    /// Print the node's JSON
    #[arg(long)]
    pub(super) json: bool,
}

/// List the nodes of the mesh, or remove one.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(super) struct Nodes {
    #[command(subcommand)]
    pub(super) command: Option<NodesCommand>,
    #[command(flatten)]
    pub(super) target: Target,
    /// Print the node's JSON
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Debug, Subcommand)]
pub(super) enum NodesCommand {
    /// Remove a node from the mesh: no node talks to it any more
    Rm(RemoveNode),
}

#[derive(Debug, Args)]
#[command(after_help = "\
Every node knows within seconds. The removed one can join again with a new token and a new identity.
A node that has the mesh's own key could make itself another identity: see docs/adr/0028.

Examples:
  fnmesh nodes rm n3 --data ./n1")]
pub(super) struct RemoveNode {
    /// Its id, or its name if only one node has it
    #[arg(value_name = "NODE")]
    pub(super) node: String,
    #[command(flatten)]
    pub(super) own: OwnNode,
}

/// List which nodes of the mesh serve which functions.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  fnmesh routes                 every app
  fnmesh routes shop            one app, function by function")]
pub(super) struct Routes {
    /// The app; every app if left out
    #[arg(value_name = "APP")]
    pub(super) app: Option<String>,
    #[command(flatten)]
    pub(super) target: Target,
    /// Print the node's JSON
    #[arg(long)]
    pub(super) json: bool,
}

/// Deploy an app to the mesh.
#[derive(Debug, Args)]
#[command(after_help = "\
The node on this machine packs the directory and starts it. Once it serves, all nodes know the new
version, and those that are to serve it fetch it from each other. A version that does not start is
not deployed, and what served before serves on. The same content again changes nothing but, where
they are named, the replicas.

Replicas:
  auto     on one node; on more while it is busier than one can serve, and on fewer again
  N        on N nodes, or all where there are fewer
  all      on every node

Examples:
  fnmesh deploy ./shop                    as before, or auto the first time
  fnmesh deploy ./shop --replicas 2
  fnmesh deploy . --name shop-test --replicas all

Exit codes: 0 deployed, 1 not deployed or not on all nodes yet, 2 wrong usage, 3 no node runs here.")]
pub(super) struct Deploy {
    /// The app's directory
    #[arg(value_name = "DIR")]
    pub(super) directory: PathBuf,
    /// How many nodes serve it: a number, `auto` or `all` [default: as before, or auto]
    #[arg(long, value_name = "N|auto|all")]
    pub(super) replicas: Option<Replicas>,
    /// The app's name [default: that of its manifest, or of the directory]
    #[arg(long, value_name = "NAME")]
    pub(super) name: Option<String>,
    #[command(flatten)]
    pub(super) node: OwnNode,
}

/// Remove a deployed app from the mesh.
#[derive(Debug, Args)]
#[command(after_help = "\
Calls in flight end first. A later deployment of the app goes on with the next version number.

Examples:
  fnmesh rm shop")]
pub(super) struct Rm {
    /// The app
    #[arg(value_name = "APP")]
    pub(super) app: String,
    #[command(flatten)]
    pub(super) node: OwnNode,
}

/// List what is deployed on the mesh.
#[derive(Debug, Args)]
pub(super) struct Deployments {
    #[command(flatten)]
    pub(super) target: Target,
    /// Print the node's JSON
    #[arg(long)]
    pub(super) json: bool,
}

/// Let a node give all its calls to others.
#[derive(Debug, Args)]
#[command(after_help = "\
What only this node serves is started on others first; then it takes no calls of other nodes, and
those that come over its own HTTP address are answered by others. It stays in the mesh until it is
stopped. Apps served from a directory stay where they are. A node that is stopped by SIGTERM drains
by itself; after a restart it takes calls again.

Examples:
  fnmesh drain                  the node on this machine
  fnmesh drain n2               another one
  fnmesh drain n2 --undo        let it take calls again")]
pub(super) struct Drain {
    /// Its id, or its name if only one node has it [default: the node on this machine]
    #[arg(value_name = "NODE")]
    pub(super) name: Option<String>,
    /// Let it take calls again
    #[arg(long)]
    pub(super) undo: bool,
    #[command(flatten)]
    pub(super) node: OwnNode,
}

/// Make, list and revoke tokens with which machines join the mesh.
#[derive(Debug, Args)]
#[command(after_help = "\
Tokens are the business of the node that makes them: joining goes by its address.

Examples:
  fnmesh token create --data ./n1                     for one machine, within 10 minutes
  fnmesh token create --data ./n1 --uses 5 --expires 1h
  fnmesh token ls --data ./n1
  fnmesh token revoke 5f3c0a1b2d4e6f70 --data ./n1")]
pub(super) struct Token {
    #[command(subcommand)]
    pub(super) command: TokenCommand,
}

#[derive(Debug, Subcommand)]
pub(super) enum TokenCommand {
    /// Make a token and print it with the arguments for the machine that joins
    Create(CreateToken),
    /// List the tokens of the node, those that ended in the last day included
    Ls(ListTokens),
    /// Let nobody join with a token any more
    Revoke(RevokeToken),
}

/// The running node on this machine, by its data.
#[derive(Debug, Args)]
pub(super) struct OwnNode {
    /// The --data directory of the running node [default: that of the only one that runs on this machine]
    #[arg(long, value_name = "DIR", env = "FNMESH_DATA")]
    pub(super) data: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Debug, Args)]
pub(super) struct CreateToken {
    #[command(flatten)]
    pub(super) node: OwnNode,
    /// How long it is valid
    #[arg(long, value_name = "TIME", default_value = "10m", value_parser = humantime::parse_duration)]
    pub(super) expires: Duration,
    /// How many nodes may join with it; 0 stands for any number
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(super) uses: u32,
    /// Give those that join the mesh's own key, so that they can admit others too
    #[arg(long)]
    pub(super) share_authority: bool,
}

#[derive(Debug, Args)]
pub(super) struct ListTokens {
    #[command(flatten)]
    pub(super) node: OwnNode,
}

#[derive(Debug, Args)]
pub(super) struct RevokeToken {
    /// The token's id, as `fnmesh token ls` shows it
    #[arg(value_name = "ID")]
    pub(super) id: String,
    #[command(flatten)]
    pub(super) node: OwnNode,
}

/// Print the version.
#[derive(Debug, Args)]
pub(super) struct Version {
    /// Print a JSON object
    #[arg(long)]
    pub(super) json: bool,
}

fn address(text: &str) -> Result<SocketAddr, String> {
    let resolved = text.to_socket_addrs().ok().and_then(|mut addresses| addresses.next());
    resolved.ok_or_else(|| "write ADDRESS:PORT, such as 127.0.0.1:8080 or [::1]:8080".to_owned())
}

fn body_limit(text: &str) -> Result<ByteSize, String> {
    let size: ByteSize = text.parse().map_err(|_| "write it as 6MiB, 500kB or a number of bytes".to_owned())?;
    // A frame's length field has 32 bits, and 1 MiB of them is not the body's.
    if size > ByteSize::gib(3) { Err("it can be 3GiB at most".to_owned()) } else { Ok(size) }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    fn parse(line: &str) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(line.split_whitespace())
    }

    #[test]
    fn definition_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn serve_without_directory_is_an_empty_node() {
        let Command::Serve(serve) = parse("fnmesh serve --listen 127.0.0.1:0").unwrap().command else { panic!() };
        assert!(serve.node.directories.is_empty());
        assert_eq!(serve.node.max_body, ByteSize::mib(6));
        assert_eq!(serve.node.max_connections, fnmesh_gateway::Config::default().max_connections);
        assert_eq!(serve.node.drain_timeout, Duration::from_secs(30));
    }

    #[test]
    fn body_and_named_arguments_exclude_each_other() {
        assert!(parse("fnmesh call a/b x=1 -d {}").is_err());
        assert!(parse("fnmesh call a/b -d -").is_ok());
    }

    #[test]
    fn host_names_are_addresses_too() {
        let Command::Serve(serve) = parse("fnmesh serve --listen localhost:9000").unwrap().command else { panic!() };
        assert!(serve.node.listen.ip().is_loopback() && serve.node.listen.port() == 9000);
    }

    #[test]
    fn bad_values_are_refused() {
        for line in [
            "fnmesh serve --listen nowhere",
            "fnmesh serve --listen :8080",
            "fnmesh serve --threads 0",
            "fnmesh serve --max-body lots",
            "fnmesh serve --max-body 5GiB",
            "fnmesh serve --drain-timeout 30",
            "fnmesh serve --log-format xml",
            "fnmesh serve --sandbox on",
            "fnmesh dev --nodes 0",
            "fnmesh dev --nodes 17",
        ] {
            assert!(parse(line).is_err(), "{line}");
        }
    }
}
