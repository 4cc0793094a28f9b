use std::{net::SocketAddr, sync::Arc};

use serde::{Deserialize, Serialize};

use crate::{NodeId, hex};

/// What a node says of itself: who it is and what it serves.
///
/// Members fetch it when they hear of a newer [`Stamp`]; gossip carries the stamp alone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Which node.
    pub node: NodeId,
    /// When it started, in ms since 1970.
    pub generation: u64,
    /// Grows with every change; begins at 1 with each generation.
    pub version: u64,
    /// What it says, below the numbers.
    #[serde(flatten)]
    pub profile: Profile,
}

impl Record {
    /// Which one of the node's records it is.
    pub fn stamp(&self) -> Stamp {
        Stamp { generation: self.generation, version: self.version }
    }
}

/// Which one of a node's records; the larger is the newer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Stamp {
    /// When the node started, in ms since 1970.
    pub generation: u64,
    /// The version in that generation.
    pub version: u64,
}

/// What a node says of itself, without the numbers that [`super::Membership`] keeps.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Profile {
    /// Its name for people.
    pub name: Arc<str>,
    /// Its zone, such as a data centre; empty if it has none.
    #[serde(default)]
    pub zone: Arc<str>,
    /// Where its gateway listens, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http: Option<SocketAddr>,
    /// Whether it takes calls.
    #[serde(default)]
    pub status: Status,
    /// What it serves. An app that is not ready to be called is not here.
    #[serde(default)]
    pub apps: Vec<App>,
    /// The deployed apps it is about to serve.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub starting: Vec<Arc<str>>,
    /// The deployed apps that do not start on it, for now.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unable: Vec<Arc<str>>,
}

impl Profile {
    /// Whether it is the same as `other` but for load.
    pub(super) fn differs_in_load_alone(&self, other: &Self) -> bool {
        let head = |profile: &Self| (profile.name.clone(), profile.zone.clone(), profile.http, profile.status);
        head(self) == head(other)
            && (&self.starting, &self.unable) == (&other.starting, &other.unable)
            && self.apps.len() == other.apps.len()
            && self.apps.iter().zip(&other.apps).all(|(a, b)| a.serves_as(b))
    }
}

/// Whether a node takes calls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// It does.
    #[default]
    Serving,
    /// It finishes what runs and takes nothing new.
    Draining,
    /// It is about to end.
    Leaving,
}

/// One version of an app that a node serves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Told", into = "Told")]
pub struct App {
    /// The app's name.
    pub name: Arc<str>,
    /// The number of the version: 1, 2, ..., or 0 where the app is served from a directory and not deployed.
    pub version: u64,
    /// The hash of its content, which identifies it. [`directory_hash`] of it where it is served from a directory.
    pub hash: [u8; 32],
    /// The names its functions are called by.
    pub functions: Vec<Arc<str>>,
    /// How busy its pools were lately.
    pub load: Load,
}

/// An [`App`] as peers are told. Nodes of the first version, which know nothing of deployments, say of what they serve
/// from a directory that it is version 1, with so much of its hash as people see. So does every node, or the same app
/// would be two: calls would not go from one to the other when a node drains.
#[derive(Serialize, Deserialize)]
struct Told {
    name: Arc<str>,
    version: u64,
    #[serde(with = "hex")]
    hash: [u8; 32],
    functions: Vec<Arc<str>>,
    #[serde(default)]
    load: Load,
}

/// How many bytes of its content's hash are told of an app that is served from a directory.
const DIRECTORY_HASH_BYTES: usize = 6;

/// What is told of the hash of an app that is served from a directory: its first 6 bytes, then zeros. The hash of a
/// deployed one never looks so but by a chance of 1 in 2^208.
pub fn directory_hash(mut hash: [u8; 32]) -> [u8; 32] {
    hash[DIRECTORY_HASH_BYTES..].fill(0);
    hash
}

impl From<App> for Told {
    fn from(App { name, version, hash, functions, load }: App) -> Self {
        match version {
            0 => Self { name, version: 1, hash: directory_hash(hash), functions, load },
            _ => Self { name, version, hash, functions, load },
        }
    }
}

impl From<Told> for App {
    fn from(Told { name, version, hash, functions, load }: Told) -> Self {
        let is_of_a_directory = version == 1 && hash == directory_hash(hash);
        Self { name, version: if is_of_a_directory { 0 } else { version }, hash, functions, load }
    }
}

impl App {
    /// Whether it is the same version with the same functions.
    pub(crate) fn serves_as(&self, other: &Self) -> bool {
        (&self.name, self.version, self.hash) == (&other.name, other.version, other.hash)
            && self.functions == other.functions
    }
}

/// How busy an app's pools are: calls in flight and waiting, in sixteenths of what all instances can run at a time.
/// 16 means that each instance is busy and nothing waits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Load(pub u16);

impl Load {
    /// Each instance is busy, and nothing waits.
    pub const FULL: Self = Self(16);
    /// Half of what can run does.
    pub const BUSY: Self = Self(8);

    /// The load of `calls` in flight and waiting, with room for `capacity` at a time.
    pub fn new(calls: usize, capacity: usize) -> Self {
        Self(u16::try_from(calls.saturating_mul(16).div_ceil(capacity.max(1))).unwrap_or(u16::MAX))
    }

    /// Waiting and running calls over capacity: 1 when all instances are busy.
    pub fn ratio(self) -> f64 {
        f64::from(self.0) / 16.0
    }

    /// Whether the change from `old` is worth to be announced: idle, busy and full tell apart, then each doubling.
    pub(super) fn is_news_after(self, old: Self) -> bool {
        let step = |load: Self| match load.0 {
            0 => 0,
            1..=8 => 1,
            9..=16 => 2,
            more => u16::BITS - more.leading_zeros(),
        };
        step(self) != step(old)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn app(load: Load) -> App {
        App { name: "shop".into(), version: 2, hash: [0xab; 32], functions: vec!["add".into()], load }
    }

    #[test]
    fn json_and_record_are_inverse() {
        let profile = Profile { name: "n1".into(), apps: vec![app(Load(3))], ..Profile::default() };
        let record = Record { node: NodeId::from_bytes([1; 16]), generation: 5, version: 7, profile };
        let json = serde_json::to_string(&record).unwrap();
        assert_eq!(serde_json::from_str::<Record>(&json).unwrap(), record);
        assert!(json.contains(&"ab".repeat(32)), "{json}");
        let bad = json.replace(&"ab".repeat(32), "abc");
        let error = serde_json::from_str::<Record>(&bad).unwrap_err().to_string();
        assert!(error.contains("\"abc\" is not a content hash"), "{error}");
    }

    #[test]
    fn app_of_a_directory_is_told_as_the_first_version_did() {
        let served = App { version: 0, hash: directory_hash([0xab; 32]), ..app(Load(3)) };
        let json = serde_json::to_string(&served).unwrap();
        assert_eq!(
            json,
            format!(
                r#"{{"name":"shop","version":1,"hash":"{}{}","functions":["add"],"load":3}}"#,
                "ab".repeat(6),
                "0".repeat(52)
            )
        );
        assert_eq!(serde_json::from_str::<App>(&json).unwrap(), served);
        // The first version of a deployed app.
        let deployed = App { version: 1, ..app(Load(3)) };
        let json = serde_json::to_string(&deployed).unwrap();
        assert_eq!(serde_json::from_str::<App>(&json).unwrap(), deployed);
    }

    #[test]
    fn a_newer_generation_beats_any_version() {
        let stamp = |generation, version| Stamp { generation, version };
        assert!(stamp(2, 1) > stamp(1, 9) && stamp(1, 2) > stamp(1, 1));
    }

    #[test]
    fn load_is_told_in_steps() {
        assert_eq!(Load::new(4, 4), Load(16));
        assert_eq!(Load::new(1, 0), Load(16));
        assert!(Load(1).is_news_after(Load(0)) && !Load(8).is_news_after(Load(1)));
        assert!(Load(32).is_news_after(Load(31)) && !Load(63).is_news_after(Load(32)));
    }

    #[test]
    fn load_alone_is_told_apart_from_routes() {
        let with = |load| Profile { apps: vec![app(load)], ..Profile::default() };
        assert!(with(Load(1)).differs_in_load_alone(&with(Load(9))));
        let draining = Profile { status: Status::Draining, ..with(Load(1)) };
        assert!(!draining.differs_in_load_alone(&with(Load(1))));
    }
}
