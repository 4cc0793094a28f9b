//! A node's own registry: on disk, and read by any thread.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::SystemTime,
};

use arc_swap::ArcSwap;
use tokio::sync::watch;

use super::{Change, Deployment, Registry, TooMany};
use crate::{
    NodeId,
    identity::{Error, read_file, replace_file},
};

const FILE: &str = "deployments.json";

/// The registry of a node, kept on disk. Cheap to clone and to read.
#[derive(Clone, Debug)]
pub struct Deployments(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    path: PathBuf,
    registry: ArcSwap<Registry>,
    /// Held while registry and file change.
    writing: Mutex<()>,
    changed: watch::Sender<()>,
}

/// Why a deployment does not change.
#[derive(Debug, thiserror::Error)]
pub enum ChangeError {
    /// There is no room for another app.
    #[error(transparent)]
    TooMany(#[from] TooMany),
    /// It cannot be kept.
    #[error(transparent)]
    Disk(#[from] Error),
}

impl Deployments {
    /// Reads the registry in `directory`; it is empty if there is none. Blocks on the disk.
    ///
    /// # Errors
    /// If the file cannot be read or is damaged.
    pub fn load(directory: &Path) -> Result<Self, Error> {
        let path = directory.join(FILE);
        let records: Vec<Arc<Deployment>> = match read_file(&path)? {
            None => Vec::new(),
            Some(text) => serde_json::from_str(&text).map_err(|error| Error::Damaged {
                path: path.clone(),
                reason: format!("it does not list deployments ({error}): remove it, and other nodes tell them again"),
            })?,
        };
        let mut registry = Registry::default();
        registry.merge(records, SystemTime::now());
        let registry = ArcSwap::from_pointee(registry);
        Ok(Self(Arc::new(Inner { path, registry, writing: Mutex::new(()), changed: watch::Sender::new(()) })))
    }

    /// All of it, as of now.
    pub fn snapshot(&self) -> Arc<Registry> {
        self.0.registry.load_full()
    }

    /// Changes with the registry.
    pub fn changes(&self) -> watch::Receiver<()> {
        self.0.changed.subscribe()
    }

    /// Changes an app, as `node`; its record then, and whether anything did change. Blocks on the disk.
    ///
    /// # Errors
    /// [`ChangeError`], with nothing changed.
    pub(crate) fn change(
        &self,
        app: &str,
        change: Change,
        node: NodeId,
        now: SystemTime,
    ) -> Result<(Arc<Deployment>, bool), ChangeError> {
        let _writing = self.0.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut registry = Registry::clone(&self.0.registry.load());
        let next = registry.next(app, change, node, now)?;
        let is_news = !registry.merge([Arc::clone(&next)], now).is_empty();
        if is_news {
            self.keep(registry)?;
        }
        Ok((next, is_news))
    }

    /// Takes over what is newer in `others`; which records these are. Blocks on the disk if there are any.
    ///
    /// # Errors
    /// If the registry cannot be written; then nothing of it is taken over.
    pub(crate) fn merge(
        &self,
        others: impl IntoIterator<Item = Arc<Deployment>>,
        now: SystemTime,
    ) -> Result<Vec<Arc<Deployment>>, Error> {
        let _writing = self.0.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut registry = Registry::clone(&self.0.registry.load());
        let new = registry.merge(others, now);
        if !new.is_empty() {
            self.keep(registry)?;
        }
        Ok(new)
    }

    fn keep(&self, registry: Registry) -> Result<(), Error> {
        let records: Vec<_> = registry.all().collect();
        let text = serde_json::to_string(&records).expect("records are JSON");
        replace_file(&self.0.path, &text)?;
        self.0.registry.store(Arc::new(registry));
        self.0.changed.send_replace(());
        Ok(())
    }
}
