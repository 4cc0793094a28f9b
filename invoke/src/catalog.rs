use std::sync::Arc;

use serde::Serialize;

use crate::{Failure, Function, Language};

/// Whether an app can be called.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase", tag = "state")]
pub enum AppState {
    /// Dependencies are being installed or instances started.
    Loading,
    /// Calls are served.
    Ready,
    /// Calls are served by the last good version; the newest one cannot start.
    Stale {
        /// Why not.
        error: Failure,
    },
    /// Calls get [`crate::Error::StartFailed`].
    Failed {
        /// Why.
        error: Failure,
    },
}

/// The instances of one app and language on this node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PoolStatus {
    /// The language.
    pub language: Language,
    /// Process ids of ready instances.
    pub pids: Vec<u32>,
    /// Calls in flight.
    pub in_flight: usize,
    /// Calls that wait for an instance.
    pub queued: usize,
    /// Instances started since the app was loaded.
    pub started: u64,
    /// Instances that died without being asked to.
    pub lost: u64,
}

/// One app on this node.
#[derive(Clone, Debug, Serialize)]
pub struct AppStatus {
    /// Its name.
    pub name: String,
    /// Where its code lies.
    pub directory: String,
    /// Hash of the content that is served, 12 hex digits.
    pub version: String,
    /// Whether it can be called.
    #[serde(flatten)]
    pub state: AppState,
    /// Its pools, by language.
    pub pools: Vec<PoolStatus>,
    /// Its functions, sorted by name.
    pub functions: Vec<Arc<Function>>,
}

/// The at most 3 names that look most like `wanted`, best first.
pub fn nearest<'a>(wanted: &str, names: impl IntoIterator<Item = &'a str>) -> Vec<String> {
    // Below that Jaro-Winkler finds names that share little but a few letters.
    const ALIKE: f64 = 0.75;
    let mut scored: Vec<_> = names
        .into_iter()
        .map(|name| (strsim::jaro_winkler(wanted, name), name))
        .filter(|(score, _)| *score >= ALIKE)
        .collect();
    scored.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(b.1)));
    scored.truncate(3);
    scored.into_iter().map(|(_, name)| name.to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nearest_ranks_likely_typos_first() {
        assert_eq!(nearest("text/merg", ["text/marge", "text/merge", "zzz"]), ["text/merge", "text/marge"]);
        for unlike in ["qqqq", "no/pe"] {
            assert!(nearest(unlike, ["text/merge", "deps-node/newest"]).is_empty(), "{unlike}");
        }
    }
}
