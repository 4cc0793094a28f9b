use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use arc_swap::ArcSwap;
use serde::{Deserialize, Serialize};

use super::{CLOCK_SKEW, Error, LEAF_LIFE, files};
use crate::NodeId;

/// How long a node stays denied: until any certificate it could have had is over, and a day more for the way
/// that news take.
const KEPT: Duration = LEAF_LIFE.saturating_add(CLOCK_SKEW).saturating_add(Duration::from_secs(24 * 3600));

/// What to do about a list that cannot be read.
const REMEDY: &str = "Copy the file from another member";

/// How many nodes are denied at most: the ones removed last.
const MAX_DENIED: usize = 10_000;

/// Which nodes were removed from the mesh, and when: what members tell each other.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Denied {
    /// Seconds since 1970.
    since: BTreeMap<NodeId, u64>,
}

impl Denied {
    /// Whether this node was removed.
    pub fn contains(&self, node: NodeId) -> bool {
        self.since.contains_key(&node)
    }

    /// The removed nodes and when they were removed.
    pub fn iter(&self) -> impl Iterator<Item = (NodeId, SystemTime)> + '_ {
        self.since.iter().map(|(node, since)| (*node, UNIX_EPOCH + Duration::from_secs(*since)))
    }

    /// Takes over what `other` has and this has not, and tells which nodes these are. Of two times
    /// the later one counts. Entries that are over are left out, on both sides, and so are those of
    /// the far future, which would stay for ever. Of more than 10,000 the latest stay.
    #[must_use = "links to these nodes are to be closed"]
    pub fn merge(&mut self, other: &Self, now: SystemTime) -> Vec<NodeId> {
        let now = seconds(now);
        let kept = now.saturating_sub(KEPT.as_secs())..=now.saturating_add(KEPT.as_secs());
        let mut new = Vec::new();
        for (&node, &since) in other.since.iter().filter(|(_, since)| kept.contains(since)) {
            let known = self.since.entry(node).or_insert_with(|| {
                new.push(node);
                since
            });
            *known = since.max(*known);
        }
        self.since.retain(|_, since| *kept.start() <= *since);
        if self.since.len() > MAX_DENIED {
            let mut latest: Vec<_> = self.since.iter().map(|(node, since)| (*since, *node)).collect();
            latest.sort_unstable();
            for (_, node) in &latest[..latest.len() - MAX_DENIED] {
                self.since.remove(node);
            }
            new.retain(|node| self.contains(*node));
        }
        new
    }
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// The nodes that this node does not talk to any more, kept on disk. Cheap to clone and to ask.
///
/// Who holds it closes the links to the nodes that [`DenyList::deny`] and [`DenyList::merge`] name.
#[derive(Clone, Debug)]
pub struct DenyList(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    path: PathBuf,
    denied: ArcSwap<Denied>,
    /// Held while the file is replaced.
    writing: Mutex<()>,
}

impl DenyList {
    /// Reads the list from the directory of an identity; it is empty if there is none. Blocks on
    /// the disk.
    ///
    /// # Errors
    /// If the file cannot be read or is damaged: without it, removed nodes would be let in.
    pub fn load(directory: &Path) -> Result<Self, Error> {
        let path = directory.join(files::DENIED);
        let denied: Denied = match files::read(&path)? {
            None => Denied::default(),
            Some(text) => serde_json::from_str(&text)
                .map_err(|error| Error::Damaged { path: path.clone(), reason: format!("{error}. {REMEDY}") })?,
        };
        files::check_times(&path, denied.since.values().copied(), REMEDY)?;
        Ok(Self(Arc::new(Inner { path, denied: ArcSwap::from_pointee(denied), writing: Mutex::new(()) })))
    }

    /// Whether this node was removed from the mesh.
    pub fn contains(&self, node: NodeId) -> bool {
        self.0.denied.load().contains(node)
    }

    /// All of it, to tell other members.
    pub fn snapshot(&self) -> Arc<Denied> {
        self.0.denied.load_full()
    }

    /// Denies a node from now on; whether that is new. Blocks on the disk.
    ///
    /// # Errors
    /// If the list cannot be written; the node is denied nevertheless, until a restart.
    pub fn deny(&self, node: NodeId, now: SystemTime) -> Result<bool, Error> {
        let news = Denied { since: BTreeMap::from([(node, seconds(now))]) };
        let (new, written) = self.merge(&news, now);
        written.map(|()| !new.is_empty())
    }

    /// Takes over another member's list and tells which nodes are denied from now on, and whether the list could be
    /// written: if not, they are denied nevertheless, until a restart. Blocks on the disk if there are any.
    #[must_use = "links to these nodes are to be closed"]
    pub fn merge(&self, news: &Denied, now: SystemTime) -> (Vec<NodeId>, Result<(), Error>) {
        let _writing = self.0.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let before = self.0.denied.load_full();
        let mut denied = Denied::clone(&before);
        let new = denied.merge(news, now);
        if denied == *before {
            return (new, Ok(()));
        }
        let text = serde_json::to_string(&denied).expect("a map of texts to numbers is JSON");
        // First in memory: better denied until a restart than not at all.
        self.0.denied.store(Arc::new(denied));
        (new, files::replace(&self.0.path, &text))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NODE: NodeId = NodeId::from_bytes([7; 16]);

    #[test]
    fn denied_node_stays_denied_after_a_restart() {
        let root = tempfile::tempdir().unwrap();
        let now = SystemTime::now();
        let list = DenyList::load(root.path()).unwrap();
        assert!(!list.contains(NODE));
        assert!(list.deny(NODE, now).unwrap());
        assert!(!list.deny(NODE, now).unwrap());
        assert!(list.clone().contains(NODE));
        assert!(DenyList::load(root.path()).unwrap().contains(NODE));
    }

    #[test]
    fn merged_list_names_what_is_new() {
        let root = tempfile::tempdir().unwrap();
        let now = SystemTime::now();
        let list = DenyList::load(root.path()).unwrap();
        list.deny(NODE, now).unwrap();
        let other = NodeId::from_bytes([8; 16]);
        let news: Denied = serde_json::from_value(
            serde_json::json!({ NODE.to_string(): seconds(now), other.to_string(): seconds(now) }),
        )
        .unwrap();
        assert_eq!(list.merge(&news, now).0, [other]);
        assert_eq!(list.merge(&news, now).0, []);
        assert_eq!(*list.snapshot(), news);
    }

    #[test]
    fn nodes_are_denied_though_the_disk_fails() {
        let root = tempfile::tempdir().unwrap();
        let list = DenyList::load(root.path()).unwrap();
        // Nothing can be renamed to it.
        std::fs::create_dir(root.path().join(files::DENIED)).unwrap();
        let now = SystemTime::now();
        let (new, written) = list.merge(&Denied { since: BTreeMap::from([(NODE, seconds(now))]) }, now);
        assert_eq!(new, [NODE], "who holds links to it closes them");
        assert!(matches!(written, Err(Error::Io { .. })), "{written:?}");
        assert!(list.contains(NODE));
    }

    #[test]
    fn entry_ends_when_no_certificate_can_be_left() {
        let root = tempfile::tempdir().unwrap();
        let now = SystemTime::now();
        let list = DenyList::load(root.path()).unwrap();
        list.deny(NODE, now).unwrap();
        let old = list.snapshot();
        assert!(list.merge(&Denied::default(), now + LEAF_LIFE + CLOCK_SKEW).0.is_empty());
        assert!(list.contains(NODE));
        let end = now + KEPT + Duration::from_secs(2);
        assert!(list.merge(&old, end).0.is_empty());
        assert!(!list.contains(NODE));
    }

    #[test]
    fn latest_stay_when_there_are_too_many() {
        let root = tempfile::tempdir().unwrap();
        let now = SystemTime::now();
        let list = DenyList::load(root.path()).unwrap();
        let node = |number: u64| NodeId::from_bytes([number.to_be_bytes(), [0; 8]].concat().try_into().unwrap());
        let max = MAX_DENIED as u64;
        let many = |range: std::ops::Range<u64>| Denied {
            since: range.map(|number| (node(number), seconds(now) - 2 * max + number)).collect(),
        };
        assert_eq!(list.merge(&many(1..max + 1), now).0.len(), MAX_DENIED);
        assert_eq!(list.merge(&many(0..1), now).0, []);
        assert_eq!(list.merge(&many(max + 1..max + 2), now).0, [node(max + 1)]);
        assert!(!list.contains(node(1)) && list.contains(node(2)));
        // What is written can be read.
        assert_eq!(*DenyList::load(root.path()).unwrap().snapshot(), *list.snapshot());
    }

    #[test]
    fn damaged_list_lets_nobody_in() {
        let root = tempfile::tempdir().unwrap();
        for text in ["{".to_owned(), format!(r#"{{"{NODE}":{}}}"#, u64::MAX)] {
            std::fs::write(root.path().join(files::DENIED), text).unwrap();
            assert!(matches!(DenyList::load(root.path()), Err(Error::Damaged { .. })));
        }
    }

    fn denied() -> impl Strategy<Value = Denied> {
        proptest::collection::btree_map(0_u8..8, 0..2 * KEPT.as_secs(), 0..8).prop_map(|since| Denied {
            since: since.into_iter().map(|(node, since)| (NodeId::from_bytes([node; 16]), since)).collect(),
        })
    }

    proptest! {
        #[test]
        fn merging_is_a_union_in_any_order(lists in proptest::collection::vec(denied(), 0..5)) {
            let now = UNIX_EPOCH + KEPT + KEPT / 2;
            let merged = |lists: &mut dyn Iterator<Item = &Denied>| {
                let mut all = Denied::default();
                for list in lists {
                    let _ = all.merge(list, now);
                    let _ = all.merge(list, now);
                }
                all
            };
            prop_assert_eq!(merged(&mut lists.iter()), merged(&mut lists.iter().rev()));
        }
    }
}
