//! What is asked of a mesh: its nodes, its tokens, and what is deployed on it.

use std::{path::PathBuf, time::Duration};

use clap::{Args, Subcommand};
use fnmesh_mesh::deployments::Replicas;

use super::Query;

/// List the nodes of the mesh, or remove one.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(in crate::cli) struct Nodes {
    #[command(subcommand)]
    pub(in crate::cli) command: Option<NodesCommand>,
    #[command(flatten)]
    pub(in crate::cli) query: Query,
}

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum NodesCommand {
    /// Remove a node from the mesh: no node talks to it any more
    Rm(RemoveNode),
}

#[derive(Debug, Args)]
#[command(after_help = "\
Every node knows within seconds. The removed one can join again with a new token and a new identity.
A node that has the mesh's own key could make itself another identity: see docs/adr/0028.

Examples:
  fnmesh nodes rm n3 --data ./n1")]
pub(in crate::cli) struct RemoveNode {
    /// Its id, or its name if only one node has it
    #[arg(value_name = "NODE")]
    pub(in crate::cli) node: String,
    #[command(flatten)]
    pub(in crate::cli) own: OwnNode,
}

/// List which nodes of the mesh serve which functions.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  fnmesh routes                 every app
  fnmesh routes shop            one app, function by function")]
pub(in crate::cli) struct Routes {
    /// The app; every app if left out
    #[arg(value_name = "APP")]
    pub(in crate::cli) app: Option<String>,
    #[command(flatten)]
    pub(in crate::cli) query: Query,
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
pub(in crate::cli) struct Deploy {
    /// The app's directory
    #[arg(value_name = "DIR")]
    pub(in crate::cli) directory: PathBuf,
    /// How many nodes serve it: a number, `auto` or `all` [default: as before, or auto]
    #[arg(long, value_name = "N|auto|all")]
    pub(in crate::cli) replicas: Option<Replicas>,
    /// The app's name [default: that of its manifest, or of the directory]
    #[arg(long, value_name = "NAME")]
    pub(in crate::cli) name: Option<String>,
    #[command(flatten)]
    pub(in crate::cli) node: OwnNode,
}

/// Remove a deployed app from the mesh.
#[derive(Debug, Args)]
#[command(after_help = "\
Calls in flight end first. A later deployment of the app goes on with the next version number.

Examples:
  fnmesh rm shop")]
pub(in crate::cli) struct Rm {
    /// The app
    #[arg(value_name = "APP")]
    pub(in crate::cli) app: String,
    #[command(flatten)]
    pub(in crate::cli) node: OwnNode,
}

/// List what is deployed on the mesh.
#[derive(Debug, Args)]
pub(in crate::cli) struct Deployments {
    #[command(flatten)]
    pub(in crate::cli) query: Query,
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
pub(in crate::cli) struct Drain {
    /// Its id, or its name if only one node has it [default: the node on this machine]
    #[arg(value_name = "NODE")]
    pub(in crate::cli) name: Option<String>,
    /// Let it take calls again
    #[arg(long)]
    pub(in crate::cli) undo: bool,
    #[command(flatten)]
    pub(in crate::cli) node: OwnNode,
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
pub(in crate::cli) struct Token {
    #[command(subcommand)]
    pub(in crate::cli) command: TokenCommand,
}

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum TokenCommand {
    /// Make a token and print it with the arguments for the machine that joins
    Create(CreateToken),
    /// List the tokens of the node, those that ended in the last day included
    Ls(ListTokens),
    /// Let nobody join with a token any more
    Revoke(RevokeToken),
}

/// The running node on this machine, by its data.
#[derive(Debug, Args)]
pub(in crate::cli) struct OwnNode {
    /// The --data directory of the running node [default: that of the only one that runs on this machine]
    #[arg(long, value_name = "DIR", env = "FNMESH_DATA")]
    pub(in crate::cli) data: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    pub(in crate::cli) json: bool,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct CreateToken {
    #[command(flatten)]
    pub(in crate::cli) node: OwnNode,
    /// How long it is valid
    #[arg(long, value_name = "TIME", default_value = "10m", value_parser = humantime::parse_duration)]
    pub(in crate::cli) expires: Duration,
    /// How many nodes may join with it; 0 stands for any number
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(in crate::cli) uses: u32,
    /// Give those that join the mesh's own key, so that they can admit others too
    #[arg(long)]
    pub(in crate::cli) share_authority: bool,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct ListTokens {
    #[command(flatten)]
    pub(in crate::cli) node: OwnNode,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct RevokeToken {
    /// The token's id, as `fnmesh token ls` shows it
    #[arg(value_name = "ID")]
    pub(in crate::cli) id: String,
    #[command(flatten)]
    pub(in crate::cli) node: OwnNode,
}
