//! Apps that are deployed from their directories to all nodes, again and again.

use std::{num::NonZeroUsize, path::Path, time::Duration};

use fnmesh_invoke::Failure;
use fnmesh_mesh::deployments::Replicas;
use tokio::time::timeout;

use super::{
    Hosting,
    deploy::{DeployError, Progress},
};
use crate::app::failure;

/// How long the nodes of a mesh may take to join it.
const GATHER_PATIENCE: Duration = Duration::from_secs(10);

impl Hosting {
    /// Waits until the mesh has so many nodes, for some seconds at most: those that come later get the apps, too.
    pub(crate) async fn gather(&self, nodes: NonZeroUsize) {
        let mut news = self.mesh.member_changes();
        let complete = async { while self.view().nodes().len() + 1 < nodes.get() && news.changed().await.is_ok() {} };
        if timeout(GATHER_PATIENCE, complete).await.is_err() {
            let joined = self.view().nodes().len() + 1;
            tracing::warn!(target: "fnmesh::node", joined, of = nodes, "apps are deployed before all nodes have joined");
        }
    }

    /// Deploys the app in a directory to all nodes, and waits for them; whether it is another version.
    ///
    /// # Errors
    /// Why it is not deployed.
    pub(crate) async fn deploy_everywhere(&self, directory: &Path) -> Result<bool, Failure> {
        let deployed = self.deploy(directory, None, Some(Replicas::All), &Progress::nowhere()).await;
        match deployed {
            Ok(deployed) => Ok(deployed["changed"] == true),
            Err(DeployError::Start { failure, .. }) => Err(failure),
            Err(DeployError::Refused(reason)) => Err(failure("DeployError", reason)),
        }
    }

    /// An app whose directory has got another name.
    pub(crate) async fn forget(&self, app: &str) {
        if self.remove(app).await.is_err() {
            // It never started.
            self.host.runtime.remove(app);
        }
    }
}
