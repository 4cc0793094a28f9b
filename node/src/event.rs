use std::{net::SocketAddr, sync::Arc};

use fnmesh_invoke::{AppStatus, Failure};
use serde::Serialize;

/// What a node tells the one who started it. As JSON, `event` names the variant.
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// The address is bound. Calls of the apps named here wait until they are loaded.
    Listening {
        /// Where, without a slash at its end.
        url: String,
        /// The node's process.
        pid: u32,
        /// Names of the apps that are being loaded.
        apps: Vec<String>,
    },
    /// The node takes part in a mesh.
    Meshed {
        /// Its id.
        node: String,
        /// Where peers reach it (UDP).
        address: SocketAddr,
        /// With which arguments of `fnmesh serve` one more machine joins, within 10 minutes; only where the mesh was
        /// made just now.
        #[serde(skip_serializing_if = "Option::is_none")]
        join: Option<String>,
    },
    /// An app's dependencies are being installed.
    Installing {
        /// The app.
        app: String,
        /// What is being done.
        step: String,
    },
    /// An app's first version serves.
    Ready {
        /// The app, with its functions.
        #[serde(flatten)]
        app: AppStatus,
        /// Milliseconds it took to load.
        elapsed_ms: u64,
    },
    /// Another version of an app serves.
    Reloaded {
        /// The app, with its functions.
        #[serde(flatten)]
        app: AppStatus,
        /// Milliseconds it took to load.
        elapsed_ms: u64,
        /// Functions the version before did not have.
        added: Vec<String>,
        /// Functions it no longer has.
        removed: Vec<String>,
    },
    /// A version of an app cannot start.
    Failed {
        /// The app.
        app: String,
        /// Its directory.
        directory: String,
        /// Why.
        error: Failure,
        /// The version that keeps serving; without one, calls are answered with this error.
        serving: Option<String>,
    },
    /// A deployed app is not served by this node any more.
    Removed {
        /// The app.
        app: String,
    },
    /// Every app was loaded or has failed once.
    Settled {
        /// All of them.
        apps: Vec<AppStatus>,
    },
    /// An app's directory is no longer there; its last version keeps serving.
    DirectoryGone {
        /// The app.
        app: String,
        /// Its directory.
        directory: String,
    },
    /// It is there again.
    DirectoryBack {
        /// The app.
        app: String,
        /// Its directory.
        directory: String,
    },
    /// The node stops: no new calls.
    Draining {
        /// Calls that still run.
        in_flight: usize,
    },
    /// The node has stopped and its workers are gone.
    Stopped {
        /// Calls that did not end in time.
        cut_off: usize,
    },
}

/// Hears every [`Event`], on the node's control thread; should return soon.
pub type Observer = Arc<dyn Fn(&Event) + Send + Sync>;
