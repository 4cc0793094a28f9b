//! What users ask for: to deploy an app, to remove one, to drain a node.

use std::{
    path::{Path, PathBuf},
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use fnmesh_invoke::Failure;
use fnmesh_mesh::{
    NodeId,
    deployments::{Change, Content, Deployment, Replicas},
};
use fnmesh_runtime::{
    app::App,
    bundle::{self, BundleError},
};
use serde_json::{Value, json};
use tokio::{
    sync::mpsc,
    task,
    time::{sleep, timeout},
};

use super::{Hosting, TICK};
use crate::mesh;

/// How long a deployment is watched until as many nodes serve it as are to.
const SPREAD_PATIENCE: Duration = Duration::from_secs(30);

/// How long a deployment waits for another node to have a copy of the bundle, at least.
const COPY_PATIENCE: Duration = Duration::from_secs(10);

/// What a user asks for, and who hears what comes of it.
#[derive(Debug)]
pub(crate) struct Command {
    pub(crate) order: Order,
    pub(crate) replies: mpsc::UnboundedSender<Reply>,
}

/// What a user asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    /// The app in this directory is to be served by the mesh.
    Deploy {
        directory: PathBuf,
        /// In place of the app's own.
        name: Option<String>,
        /// As before if left out, or [`Replicas::Auto`].
        replicas: Option<Replicas>,
    },
    /// An app is not to be served any more.
    Remove { app: String },
    /// A node is to give its calls to others, or to take them again.
    Drain { node: NodeId, on: bool },
}

/// What comes of a [`Command`]: any number of steps, then its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Reply {
    Step(String),
    End(Result<Value, String>),
}

/// Why an app is not deployed.
#[derive(Debug, thiserror::Error)]
pub(super) enum DeployError {
    #[error("{0}")]
    Refused(String),
    #[error("{app} does not start{}: {failure}\n{}", if *.is_served { "; the version before it serves on" } else { "" }, failure.stack)]
    Start { app: Arc<str>, is_served: bool, failure: Failure },
}

impl From<String> for DeployError {
    fn from(reason: String) -> Self {
        Self::Refused(reason)
    }
}

/// Where steps are told.
#[derive(Clone, Debug)]
pub(super) struct Progress(Option<mpsc::UnboundedSender<Reply>>);

impl Progress {
    pub(super) fn nowhere() -> Self {
        Self(None)
    }

    pub(super) fn tell(&self, step: impl Into<String>) {
        if let Some(replies) = &self.0 {
            // Who asked may have gone.
            let _ = replies.send(Reply::Step(step.into()));
        }
    }
}

impl Hosting {
    pub(super) async fn obey(self: Rc<Self>, Command { order, replies }: Command) {
        let progress = Progress(Some(replies.clone()));
        let ended = match order {
            Order::Deploy { directory, name, replicas } => {
                self.deploy(&directory, name, replicas, &progress).await.map_err(|error| error.to_string())
            }
            Order::Remove { app } => self.remove(&app).await,
            Order::Drain { node, on } if node == self.mesh.node() => Ok(Rc::clone(&self).drain(on, progress).await),
            Order::Drain { node, on } => self.drain_other(node, on, &progress).await,
        };
        let _ = replies.send(Reply::End(ended));
    }

    /// Ended early, it leaves everything as it was, or as it is to be.
    pub(super) async fn deploy(
        &self,
        directory: &Path,
        name: Option<String>,
        replicas: Option<Replicas>,
        progress: &Progress,
    ) -> Result<Value, DeployError> {
        if self.is_draining() {
            let reason = "this node drains; deploy at another one, or end it with `fnmesh drain --undo`".to_owned();
            return Err(reason.into());
        }
        let app = read(directory.to_owned(), name).await?;
        let name: Arc<str> = app.name.as_str().into();
        self.check_name(&name)?;
        let turn = self.turn(&name);
        let turn = turn.lock().await;
        let registry = self.mesh.deployments().snapshot();
        let known = registry.get(&name).cloned();
        let replicas = replicas.or(known.as_ref().map(|known| known.replicas)).unwrap_or_default();
        let same = known.as_ref().and_then(|known| known.content.clone()).filter(|content| content.hash == app.hash);
        // Until it is recorded whose bundle it is, it would be removed with those that nobody wants any more.
        let bundles = self.bundles.read().await;
        let new = same.is_none().then(|| known.as_ref().map_or(0, |known| known.version) + 1);
        let content = match same {
            // Otherwise it may be nowhere any more.
            Some(content) if self.mesh.bundles().contains(&content.bundle) => content,
            _ => {
                progress.tell(format!("packing {name}"));
                self.pack(app).await?
            }
        };
        let deployment = match new {
            None => self.record(&name, content, replicas).await?,
            Some(version) => {
                progress.tell(format!("starting {name} v{version} on this node"));
                // Until it is recorded, nobody but this task knows why it is served.
                let _busy = self.keep_busy(&name);
                self.try_out(&name, &content, version).await?;
                self.record(&name, content, replicas).await?
            }
        };
        drop((turn, bundles));
        let is_new = known.is_none_or(|known| known != deployment);
        let hosts = self.watch(&deployment, progress).await?;
        self.await_copy(&deployment).await;
        Ok(describe(&deployment, is_new, &hosts, self.wanted(replicas)))
    }

    async fn record(&self, app: &Arc<str>, content: Content, replicas: Replicas) -> Result<Arc<Deployment>, String> {
        let (mesh, app) = (self.mesh.clone(), Arc::clone(app));
        let change = Change { content: Some(content), replicas };
        let changed = task::spawn_blocking(move || mesh.change(&app, change)).await;
        let (deployment, heard) = changed.map_err(|error| error.to_string())?.map_err(|error| error.to_string())?;
        heard.by_all().await;
        Ok(deployment)
    }

    /// An app served from a directory is not to be had under the same name as a deployed one.
    fn check_name(&self, name: &str) -> Result<(), String> {
        let served = |by: String| {
            Err(format!(
                "{by} serves an app {name:?} from a directory; stop that, or deploy under another name with --name"
            ))
        };
        if self.is_served_from_a_directory(name) {
            return served("this node".to_owned());
        }
        match self.view().serving_from_a_directory(name) {
            Some(node) => served(format!("node {node}")),
            None => Ok(()),
        }
    }

    async fn pack(&self, app: App) -> Result<Content, String> {
        let (bundles, hash) = (self.mesh.bundles().clone(), app.hash);
        let packed = task::spawn_blocking(move || bundles.add(|out| bundle::pack(&app, out))).await;
        let refused = |error: BundleError| match error {
            BundleError::Stream(error) => format!("the bundle cannot be kept below the --data of this node: {error}"),
            error => error.to_string(),
        };
        let (bundle, bundle_bytes) = packed.map_err(|error| error.to_string())?.map_err(refused)?;
        Ok(Content { hash, bundle, bundle_bytes })
    }

    /// Serves a version that is not deployed yet; what was served until then goes on if it does not start.
    async fn try_out(&self, app: &Arc<str>, content: &Content, version: u64) -> Result<(), DeployError> {
        let begin = Instant::now();
        let before = self.host.serving(app);
        self.unpack_own(app, content).await?;
        match self.serve(app, content, version).await {
            Ok(()) => {
                self.host.tell_serving(app, before.as_ref(), begin.elapsed());
                Ok(())
            }
            Err(failure) => {
                if before.is_none() {
                    // Calls of an app that was never deployed are calls of an app that is not there.
                    self.host.runtime.remove(app);
                }
                Err(DeployError::Start { app: Arc::clone(app), is_served: before.is_some(), failure })
            }
        }
    }

    /// Waits until as many nodes serve the deployment as are to; which do.
    ///
    /// # Errors
    /// When it is replaced meanwhile.
    async fn watch(&self, deployment: &Deployment, progress: &Progress) -> Result<Vec<String>, String> {
        let mut told = 0;
        let replaced = || {
            let registry = self.mesh.deployments().snapshot();
            let newer = registry.get(&deployment.app).filter(|newer| newer.content != deployment.content)?;
            let (app, version, by) = (&deployment.app, newer.version, self.name_of(newer.node));
            Some(format!("{app} was changed on {by} at the same time: v{version} of there counts"))
        };
        let watch = async {
            loop {
                if replaced().is_some() {
                    return;
                }
                let (hosts, wanted) = (self.hosts(deployment), self.wanted(deployment.replicas));
                if hosts.len() >= wanted {
                    return;
                }
                if hosts.len() != told {
                    told = hosts.len();
                    progress.tell(format!("{told} of {wanted} nodes serve {} v{}", deployment.app, deployment.version));
                }
                sleep(TICK).await;
            }
        };
        let _ = timeout(SPREAD_PATIENCE, watch).await;
        replaced().map_or_else(|| Ok(self.hosts(deployment)), Err)
    }

    /// Waits until another node keeps the bundle, so that the deployment outlives this one; some seconds at most.
    async fn await_copy(&self, deployment: &Deployment) {
        let Some(content) = &deployment.content else { return };
        let copied = async {
            loop {
                let keepers = self.keepers(&deployment.app, &self.view());
                let others: Vec<_> = keepers.into_iter().filter(|node| *node != self.mesh.node()).collect();
                for node in &others {
                    if self.mesh.has_bundle(*node, content).await {
                        return;
                    }
                }
                if others.is_empty() {
                    return;
                }
                sleep(TICK).await;
            }
        };
        if timeout(COPY_PATIENCE, copied).await.is_err() {
            let app = &deployment.app;
            tracing::warn!(target: "fnmesh::node", %app, "no other node keeps a copy of what was deployed so far");
        }
    }

    /// The names of the nodes that serve a deployment.
    fn hosts(&self, deployment: &Deployment) -> Vec<String> {
        let view = self.view();
        let own = self.apps.borrow().get(&deployment.app).and_then(|hosted| hosted.serving);
        let own = own.filter(|(version, _)| *version == deployment.version).map(|_| self.mesh.node());
        let nodes = own.into_iter().chain(view.serving(&deployment.app, deployment.version));
        nodes.map(|node| self.name_of(node)).collect()
    }

    /// What people call a node.
    pub(super) fn name_of(&self, node: NodeId) -> String {
        let members = self.mesh.members();
        let record = members.iter().find(|member| member.node == node).and_then(|member| member.record.as_ref());
        record.map_or_else(|| node.to_string(), |record| record.profile.name.to_string())
    }

    pub(super) async fn remove(&self, app: &str) -> Result<Value, String> {
        let registry = self.mesh.deployments().snapshot();
        let known = registry.get(app).filter(|deployment| deployment.content.is_some());
        let Some(known) = known else {
            let names = registry.deployed().map(|(deployment, _)| &*deployment.app);
            let alike = fnmesh_invoke::nearest(app, names);
            let hint = if alike.is_empty() { String::new() } else { format!("; did you mean {}?", alike.join(" or ")) };
            return Err(format!("no app {app:?} is deployed{hint}"));
        };
        let (mesh, name) = (self.mesh.clone(), Arc::clone(&known.app));
        let change = Change { content: None, replicas: known.replicas };
        let changed = task::spawn_blocking(move || mesh.change(&name, change)).await;
        changed.map_err(|error| error.to_string())?.map_err(|error| error.to_string())?;
        Ok(json!({ "app": app, "version": known.version }))
    }
}

async fn read(directory: PathBuf, name: Option<String>) -> Result<App, String> {
    let read = task::spawn_blocking(move || App::read(&directory, name.as_deref())).await;
    read.map_err(|error| error.to_string())?.map_err(|error| error.to_string())
}

fn describe(deployment: &Deployment, is_new: bool, hosts: &[String], wanted: usize) -> Value {
    json!({
        "app": deployment.app,
        "version": deployment.version,
        "hash": deployment.content.as_ref().map(|content| mesh::short(&content.hash)),
        "replicas": deployment.replicas,
        "changed": is_new,
        "nodes": hosts,
        "wanted": wanted,
    })
}

#[cfg(test)]
mod tests {
    use fnmesh_mesh::deployments::MAX_BUNDLE_BYTES;
    use fnmesh_runtime::bundle::Limits;

    #[test]
    fn bundle_of_the_largest_app_may_be_deployed() {
        assert!(Limits::default().bundle_size().as_u64() <= MAX_BUNDLE_BYTES);
    }
}
