//! The node's control socket, `DATA/control.sock`: what only the node's own user may ask for.
//!
//! One request a connection, a line of JSON each way: `{"key": ..., "method": ..., "params": {...}}`, answered by
//! `{"result": ...}` or `{"error": "..."}`. What takes a while says how it goes on in lines before that one,
//! `{"step": "..."}`. The key is the content of `DATA/control.key`: workers run as the node's
//! user and may connect to any socket of its, but Landlock keeps them from reading its files.

mod ask;
mod serve;

use std::{
    num::NonZeroU32,
    path::{Path, PathBuf},
    time::Duration,
};

use fnmesh_mesh::deployments::Replicas;
use serde::{Deserialize, Serialize};
use serde_json::Value;

pub(crate) use ask::{AskError, ask};
pub(crate) use serve::{create_token, serve};

/// How long a request may take to be sent, and to be carried out where nothing else bounds it.
const PATIENCE: Duration = Duration::from_secs(10);

/// What can be asked for.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "method", content = "params")]
pub(crate) enum Request {
    /// A new join token; answered by its id, its text and the address to join by.
    #[serde(rename = "token.create")]
    CreateToken {
        /// How long it is valid.
        expires_in_s: u64,
        /// How many nodes may join with it; any number if left out.
        uses: Option<NonZeroU32>,
        /// Whether they can admit others.
        shares_authority: bool,
    },
    /// The join tokens of this node.
    #[serde(rename = "token.list")]
    ListTokens,
    /// The node with this id or name is no longer of the mesh; answered by its id.
    #[serde(rename = "nodes.remove")]
    RemoveNode {
        /// Which one.
        node: String,
    },
    /// The mesh is to serve the app in this directory; answered by its version and who serves it.
    #[serde(rename = "deploy")]
    Deploy {
        /// Absolute.
        directory: PathBuf,
        /// In place of the app's own.
        name: Option<String>,
        /// As before if left out.
        replicas: Option<Replicas>,
    },
    /// A deployed app is not to be served any more; answered by its last version.
    #[serde(rename = "remove")]
    Remove {
        /// Its name.
        app: String,
    },
    /// A node is to give its calls to others, or to take them again; answered by the apps it serves nevertheless.
    #[serde(rename = "drain")]
    Drain {
        /// Its id or name; the node itself if left out.
        node: Option<String>,
        /// Whether to drain.
        on: bool,
    },
    /// No more joins with this one; answered by whether it is known.
    #[serde(rename = "token.revoke")]
    RevokeToken {
        /// Which one.
        id: String,
    },
}

/// A request with the proof that it comes from who can read the node's files.
#[derive(Debug, Serialize, Deserialize)]
struct Signed<R> {
    key: String,
    #[serde(flatten)]
    request: R,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Answer {
    Step(String),
    Result(Value),
    Error(String),
}

/// Where the socket of the node with this data is.
pub(crate) fn path(data: &Path) -> PathBuf {
    data.join("control.sock")
}

fn key_path(data: &Path) -> PathBuf {
    data.join("control.key")
}
