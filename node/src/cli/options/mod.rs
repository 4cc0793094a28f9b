//! What can be typed, as clap reads it.

mod mesh;
mod node;

use std::time::Duration;

use clap::{Args, Parser, Subcommand, builder::Styles};

pub(super) use mesh::{
    CreateToken, Deploy, Deployments, Drain, ListTokens, Nodes, NodesCommand, OwnNode, RemoveNode, RevokeToken, Rm,
    Routes, Token, TokenCommand,
};
pub(super) use node::{Congestion, Dev, DevNode, LogFormat, Mesh, Node, Serve};

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

/// Which node a client command talks to.
#[derive(Debug, Args)]
pub(super) struct Target {
    /// The node's URL
    #[arg(long, value_name = "URL", env = "FNMESH_NODE", default_value = "http://127.0.0.1:8080")]
    pub(super) node: String,
}

/// What all commands are asked that show what a node knows.
#[derive(Debug, Args)]
pub(super) struct Query {
    #[command(flatten)]
    pub(super) target: Target,
    /// Print JSON
    #[arg(long)]
    pub(super) json: bool,
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
    pub(super) query: Query,
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
    pub(super) query: Query,
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
    pub(super) query: Query,
}

/// Print the version.
#[derive(Debug, Args)]
pub(super) struct Version {
    /// Print a JSON object
    #[arg(long)]
    pub(super) json: bool,
}

#[cfg(test)]
mod tests {
    use bytesize::ByteSize;
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
            "fnmesh serve --max-connections 0",
            "fnmesh serve --max-connections 18446744073709551615",
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
