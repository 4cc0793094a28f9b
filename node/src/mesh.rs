//! The node's part in a mesh: what it says of itself there, and what it tells of others.

use std::{
    fs::{DirBuilder, File, OpenOptions},
    io,
    net::SocketAddr,
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::Path,
    rc::Rc,
};

use fnmesh_mesh::{
    Ask, Config, Handle, Mesh, StartError as MeshError,
    identity::TokenOptions,
    membership::{Profile, Status},
};
use fnmesh_runtime::Runtime;
use rustix::fs::{FlockOperation, flock};
use serde_json::{Value, json};
use tokio::{
    sync::mpsc,
    task::{self, JoinSet},
};

use crate::{
    error::StartError,
    event::{Event, Observer},
    hosting::Command,
    running::Mark,
    shutdown::{Phase, Switch},
    socket,
};

/// Below the node's data: what makes it a node of its mesh.
const IDENTITY: &str = "mesh";

/// A running part.
pub(crate) struct Part {
    mesh: Mesh,
    commands: Option<mpsc::UnboundedReceiver<Command>>,
    _mark: Option<Mark>,
    /// Keeps other nodes out of the directory.
    _lock: File,
    _socket: JoinSet<()>,
}

/// Takes part in the mesh, as thread `index` of the runtime; `config.directory` is the node's data.
///
/// # Errors
/// When the directory cannot be used, the mesh cannot be made or joined, or the node is to stop before it has joined.
pub(crate) async fn start(
    config: Config,
    runtime: &Runtime,
    index: usize,
    observer: &Observer,
    switch: &Switch,
) -> Result<Part, StartError> {
    let data = config.directory.clone();
    let lock = lock(&data)?;
    let config = Config { directory: data.join(IDENTITY), ..config };
    let (local, switch) = (runtime.clone(), switch.clone());
    let stopped = async move { switch.asked(Phase::Drain).await };
    let started = task::spawn_blocking(move || {
        Mesh::start_unless(stopped, config, Profile::default(), move || Rc::new(local.attach(index)))
    });
    let mesh = started.await.map_err(|error| MeshError::Thread(io::Error::other(error)))??;
    let handle = mesh.handle();
    let join = if handle.is_founder() { Some(join_arguments(handle).await?) } else { None };
    observer(&Event::Meshed { node: handle.node().to_string(), address: handle.address(), join });
    let (orders, commands) = mpsc::unbounded_channel();
    let socket = socket::serve(&data, handle.clone(), orders)
        .map_err(|source| StartError::Data { directory: data.clone(), source })?;
    let mark = Mark::leave(&data, &handle.node().to_string());
    if let Err(error) = &mark {
        tracing::warn!(target: "fnmesh::node", %error, "commands will need --data to find this node");
    }
    Ok(Part { mesh, commands: Some(commands), _mark: mark.ok(), _lock: lock, _socket: socket })
}

impl Part {
    pub(crate) fn handle(&self) -> &Handle {
        self.mesh.handle()
    }

    /// What users and peers ask of the node from now on.
    ///
    /// # Panics
    /// The second time.
    pub(crate) fn asked(&mut self) -> (mpsc::UnboundedReceiver<Command>, mpsc::Receiver<Ask>) {
        let both = self.commands.take().zip(self.mesh.asks());
        both.expect("asked once")
    }

    /// Asks peers to send no more calls.
    pub(crate) fn say_draining(&self, http: SocketAddr) {
        let profile = Profile { http: Some(http), status: Status::Draining, ..Profile::default() };
        self.handle().announce(profile);
    }

    /// Waits until this node takes no part any more though nobody has asked for it.
    pub(crate) async fn ended(&self) {
        self.mesh.ended().await;
    }

    /// Says goodbye.
    pub(crate) async fn leave(self) {
        // It only fails when it panics, which has been printed.
        let _ = task::spawn_blocking(move || self.mesh.leave()).await;
    }
}

/// Makes the directory if need be, and keeps other nodes out of it.
fn lock(data: &Path) -> Result<File, StartError> {
    let failed = |source| StartError::Data { directory: data.to_owned(), source };
    DirBuilder::new().recursive(true).mode(0o700).create(data).map_err(failed)?;
    let options = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).clone();
    let lock = options.open(data.join("lock")).map_err(failed)?;
    match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(lock),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(StartError::DataInUse { directory: data.to_owned() }),
        Err(error) => Err(failed(error.into())),
    }
}

/// The arguments with which one more machine joins.
async fn join_arguments(handle: &Handle) -> Result<String, StartError> {
    let mesh = handle.clone();
    let created = task::spawn_blocking(move || socket::create_token(&mesh, TokenOptions::default())).await;
    let token = created.map_err(io::Error::other)?.map_err(io::Error::other)?;
    Ok(format!("--mesh 0.0.0.0:7100 --data DIR --join {} --token {token}", handle.address()))
}

/// `/_/nodes`: who is in the mesh, this node first.
pub(crate) fn nodes(mesh: &Handle) -> Value {
    let nodes = mesh
        .members()
        .iter()
        .map(|member| {
            let profile = member.record.as_ref().map(|record| &record.profile);
            let apps: Vec<_> =
                profile.map(|profile| profile.apps.iter().map(|app| &app.name).collect()).unwrap_or_default();
            json!({
                "node": member.node,
                "name": profile.map(|profile| &profile.name),
                "zone": profile.map(|profile| &profile.zone),
                "address": member.address,
                "http": profile.and_then(|profile| profile.http),
                "status": profile.map(|profile| profile.status),
                "reachable": member.is_reachable,
                "self": member.is_self,
                "apps": apps,
            })
        })
        .collect::<Vec<_>>();
    Value::Array(nodes)
}

/// `/_/routes`: which nodes serve which app, newest version first.
pub(crate) fn routes(mesh: &Handle) -> Value {
    let table = mesh.routes().load();
    let routes = table.apps().into_iter().flat_map(|(name, app)| {
        app.versions().map(move |version| {
            let nodes: Vec<_> = version.peers().iter().map(|peer| peer.node).collect();
            let functions: Vec<_> = version.functions().collect();
            json!({ "app": name, "version": version.number(), "hash": short(version.hash()), "functions": functions, "nodes": nodes })
        })
    });
    Value::Array(routes.collect())
}

/// `/_/deployments`: what is deployed on the mesh, and which nodes serve it.
pub(crate) fn deployments(mesh: &Handle) -> Value {
    let (registry, table) = (mesh.deployments().snapshot(), mesh.routes().load());
    let deployments = registry.deployed().map(|(deployment, content)| {
        let versions = table.app(&deployment.app).into_iter().flat_map(|app| app.versions());
        let current = versions.filter(|version| *version.hash() == content.hash);
        let nodes: Vec<_> = current.flat_map(|version| version.peers()).map(|peer| peer.node).collect();
        json!({
            "app": deployment.app,
            "version": deployment.version,
            "hash": short(&content.hash),
            "replicas": deployment.replicas,
            "bundle_bytes": content.bundle_bytes,
            "deployed_unix_ms": deployment.changed_ms,
            "nodes": nodes,
        })
    });
    Value::Array(deployments.collect())
}

/// A hash as people see it.
pub(crate) fn short(hash: &[u8; 32]) -> String {
    hash[..6].iter().map(|byte| format!("{byte:02x}")).collect()
}
