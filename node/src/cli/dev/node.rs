//! One node of a mesh that `fnmesh dev` has started: a process that ends with that one.

use std::{
    io::{self, Read as _},
    path::{Path, PathBuf},
    process, thread,
    time::Duration,
};

use tokio::sync::oneshot;

use super::{
    super::{FAILED, Stop, options::DevNode, serve},
    start_logs,
};
use crate::Config;

/// How long a node may take to stop at once.
const LAST_MOMENT: Duration = Duration::from_secs(15);

pub(in crate::cli) fn run(options: DevNode) -> Result<u8, Stop> {
    if options.color {
        anstream::ColorChoice::Always.write_global();
    }
    start_logs(options.node.log.as_deref())?;
    let root = options.mesh.data.as_deref().and_then(Path::parent).map(Path::to_owned);
    let root = root.ok_or_else(|| Stop::usage("--data is missing"))?;
    let mesh = serve::mesh(options.mesh)?;
    let mut given_up = given_up(root.clone());
    let wanted = |config| Config { watch: true, mesh, deploy_to: Some(options.nodes), ..config };
    let code = serve::run(options.node, wanted, async { drop((&mut given_up).await) });
    if given_up.try_recv() != Err(oneshot::error::TryRecvError::Empty) {
        remove(&root);
    }
    code
}

/// Resolves when the other end of this process's stdin is closed: `fnmesh dev` does so to end it at once, and the
/// system when `fnmesh dev` was killed. It ends then in any case, and what the mesh has kept in `root` goes.
fn given_up(root: PathBuf) -> oneshot::Receiver<()> {
    let (sender, receiver) = oneshot::channel();
    thread::spawn(move || {
        let mut byte = [0];
        // Nothing is sent.
        while io::stdin().read(&mut byte).is_ok_and(|count| count > 0) {}
        let _ = sender.send(());
        thread::sleep(LAST_MOMENT);
        remove(&root);
        process::exit(FAILED.into());
    });
    receiver
}

/// The last one to do so leaves nothing.
fn remove(root: &Path) {
    let _ = std::fs::remove_dir_all(root);
}
