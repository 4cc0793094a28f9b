//! What is deployed on the mesh: for each app one record, of which the newest counts.
//!
//! [`Registry`] is pure. Each node keeps all records, tells the others what changed, and tells a peer everything when a
//! link to it comes up ([`Cause`]); merging is the same in any order, so that all end with the same. [`Deployments`] is a
//! node's own registry, on disk and read by any thread.

mod again;
mod shared;
mod spread;
#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    fmt,
    num::NonZero,
    str::FromStr,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use fnmesh_invoke::app_name_fault;
use serde::{Deserialize, Serialize};

pub use again::{Obstacle, Retry};
pub use shared::{ChangeError, Deployments};
pub use spread::Cause;

use crate::{NodeId, hex};

/// How long a removal is remembered. A node that was away for longer brings the app back.
const REMOVALS_KEPT: Duration = Duration::from_secs(90 * 24 * 3600);

/// How many apps are deployed at most, removed ones included.
pub const MAX_APPS: usize = 10_000;

/// How long a bundle is at most: longer than that of any app may get, and less than what fills a disk.
pub const MAX_BUNDLE_BYTES: u64 = 1 << 30;

/// How many nodes host an app.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Replicas {
    /// As many as its load asks for, and at least one.
    #[default]
    Auto,
    /// So many, or all where there are fewer.
    Count(NonZero<usize>),
    /// All.
    All,
}

/// What is not a number of replicas.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no number of replicas: write a number from 1, `auto` or `all`")]
pub struct InvalidReplicas(String);

/// One app as it was deployed last, or that it was removed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deployment {
    /// The app's name.
    pub app: Arc<str>,
    /// Grows with every change of the record; the larger one is the newer.
    pub revision: u64,
    /// When it was changed, in ms since 1970. Decides between two of one revision, made on both sides of a cut.
    pub changed_ms: u64,
    /// On which node it was changed.
    pub node: NodeId,
    /// The number of the version: 1, 2, ... Of a removed app that of the last one.
    pub version: u64,
    /// How many nodes host it.
    #[serde(default)]
    pub replicas: Replicas,
    /// What is served; nothing once the app is removed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content: Option<Content>,
}

/// What a version consists of.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Content {
    /// The hash of the app's files, which identifies the version.
    #[serde(with = "hex")]
    pub hash: [u8; 32],
    /// The BLAKE3 hash of its bundle, by which it is fetched.
    #[serde(with = "hex")]
    pub bundle: [u8; 32],
    /// How long the bundle is.
    pub bundle_bytes: u64,
}

impl Deployment {
    /// Whether it counts and `other` does not. Of two different records one is newer, whoever asks.
    fn is_newer_than(&self, other: &Self) -> bool {
        let key = |it: &Self| (it.revision, it.changed_ms, it.content.clone(), it.node, it.version, it.replicas);
        key(self) > key(other)
    }

    /// Whether a node may act on it, whoever says it: the name becomes one of a directory, and as many bytes are fetched.
    fn is_sound(&self) -> bool {
        let is_short = |content: &Content| content.bundle_bytes <= MAX_BUNDLE_BYTES;
        app_name_fault(&self.app).is_none() && self.content.as_ref().is_none_or(is_short)
    }

    /// Whether it is a removal that is remembered no longer.
    fn is_over(&self, now: SystemTime) -> bool {
        let age = now.duration_since(UNIX_EPOCH + Duration::from_millis(self.changed_ms)).unwrap_or_default();
        self.content.is_none() && age > REMOVALS_KEPT
    }
}

/// What a change of an app asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// What is to be served; nothing removes the app.
    pub content: Option<Content>,
    /// How many nodes are to host it.
    pub replicas: Replicas,
}

/// The newest record of each app. No I/O, no clock.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Registry {
    by_app: BTreeMap<Arc<str>, Arc<Deployment>>,
}

impl Registry {
    /// The record of an app, also if it was removed.
    pub fn get(&self, app: &str) -> Option<&Arc<Deployment>> {
        self.by_app.get(app)
    }

    /// The apps that are deployed, sorted by name.
    pub fn deployed(&self) -> impl Iterator<Item = (&Arc<Deployment>, &Content)> {
        self.by_app.values().filter_map(|deployment| Some((deployment, deployment.content.as_ref()?)))
    }

    /// All records, those of removed apps too, sorted by name.
    pub fn all(&self) -> impl ExactSizeIterator<Item = &Arc<Deployment>> {
        self.by_app.values()
    }

    /// The record that follows when `app` changes so, at `node`; the present one if that says all of it already.
    ///
    /// # Errors
    /// [`MAX_APPS`] are known already.
    pub fn next(&self, app: &str, change: Change, node: NodeId, now: SystemTime) -> Result<Arc<Deployment>, TooMany> {
        let known = self.get(app);
        if known.is_none() && self.by_app.len() >= MAX_APPS {
            return Err(TooMany);
        }
        if let Some(known) = known
            && known.content == change.content
            && (known.replicas == change.replicas || change.content.is_none())
        {
            return Ok(Arc::clone(known));
        }
        let (revision, version) = known.map_or((0, 0), |known| (known.revision, known.version));
        let is_same = known.is_some_and(|known| {
            known.content.as_ref().map(|content| content.hash) == change.content.as_ref().map(|content| content.hash)
        });
        let is_new = change.content.is_some() && !is_same;
        let now_ms = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        Ok(Arc::new(Deployment {
            app: app.into(),
            revision: revision.saturating_add(1),
            changed_ms: u64::try_from(now_ms).unwrap_or(u64::MAX),
            node,
            version: version.saturating_add(is_new.into()),
            replicas: change.replicas,
            content: change.content,
        }))
    }

    /// Takes over what is newer in `others`; which records these are. Of more than [`MAX_APPS`] apps those that would
    /// be new are left out, and so are records that no node makes.
    pub fn merge(
        &mut self,
        others: impl IntoIterator<Item = Arc<Deployment>>,
        now: SystemTime,
    ) -> Vec<Arc<Deployment>> {
        let mut new = Vec::new();
        for other in others.into_iter().filter(|other| other.is_sound()) {
            let is_news = match self.by_app.get(&other.app) {
                Some(known) => other.is_newer_than(known),
                None => self.by_app.len() < MAX_APPS && !other.is_over(now),
            };
            if is_news {
                self.by_app.insert(Arc::clone(&other.app), Arc::clone(&other));
                new.push(other);
            }
        }
        self.by_app.retain(|_, deployment| !deployment.is_over(now));
        new
    }
}

/// There are as many apps as there can be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{MAX_APPS} apps are deployed already, which is the limit (apps that were removed count for 90 days)")]
pub struct TooMany;

impl fmt::Display for Replicas {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Count(count) => write!(f, "{count}"),
            Self::All => f.write_str("all"),
        }
    }
}

impl FromStr for Replicas {
    type Err = InvalidReplicas;

    fn from_str(text: &str) -> Result<Self, InvalidReplicas> {
        match text {
            "auto" => Ok(Self::Auto),
            "all" => Ok(Self::All),
            count => count.parse().map(Self::Count).map_err(|_| InvalidReplicas(text.to_owned())),
        }
    }
}

impl Serialize for Replicas {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Replicas {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}
