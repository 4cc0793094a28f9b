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

/// What an instance is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum InstanceState {
    /// It takes calls.
    Ready,
    /// It finishes its calls and stops.
    Draining,
    /// It did not give up a call in time, and is killed once nobody waits for it.
    Condemned,
}

/// One instance whose app is loaded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct InstanceStatus {
    /// Process id of its worker.
    pub pid: u32,
    /// What it is doing.
    pub state: InstanceState,
    /// Calls in flight.
    pub in_flight: usize,
    /// Calls that have reached it.
    pub calls: u64,
    /// Seconds since it was ready.
    pub age_s: u64,
    /// Resident memory of its worker when it was last looked at: once a second while there are calls.
    pub memory_bytes: Option<u64>,
}

/// Whether a pool takes calls, with regard to failures of its instances.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum CircuitState {
    /// As usual.
    #[default]
    Closed,
    /// Calls are refused until the next try.
    Open,
    /// The next try is on.
    HalfOpen,
}

/// The instances of one app and language on this node.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PoolStatus {
    /// The language.
    pub language: Language,
    /// Those that are loaded, by process id.
    pub instances: Vec<InstanceStatus>,
    /// Instances that start, or wait to after a failure.
    pub starting: usize,
    /// Instances it would have if all starts went well.
    pub want: usize,
    /// Instances it keeps at least.
    pub min_instances: usize,
    /// Instances it has at most.
    pub max_instances: usize,
    /// Calls in flight.
    pub in_flight: usize,
    /// Calls that wait.
    pub queued: usize,
    /// Bytes of their arguments.
    pub queued_bytes: usize,
    /// Calls that may wait at the present pace.
    pub max_queued: usize,
    /// Bytes of arguments that may wait.
    pub max_queued_bytes: usize,
    /// Process id of what makes the next instance start quickly and serves no calls: the one that instances are forked
    /// from (Python), or a worker that waits to be one (Node.js).
    pub standby: Option<u32>,
    /// Instances started since the app was loaded.
    pub started: u64,
    /// Instances that died without being asked to.
    pub lost: u64,
    /// How long a start takes on average, in milliseconds.
    pub start_ms: Option<f64>,
    /// Calls that waited because no instance was there.
    pub cold_starts: u64,
    /// How long all of them waited, in milliseconds.
    pub cold_start_total_ms: f64,
    /// How long the last of them waited, in milliseconds.
    pub cold_start_last_ms: Option<f64>,
    /// Whether it takes calls, with regard to failures.
    pub circuit: CircuitState,
    /// Instances in a row that failed.
    pub failures: u32,
    /// What the last of them said.
    pub failure: Option<Failure>,
    /// How long calls are refused, in milliseconds.
    pub retry_after_ms: Option<u64>,
}

impl PoolStatus {
    /// A pool without instances and calls.
    pub fn empty(language: Language) -> Self {
        Self {
            language,
            instances: Vec::new(),
            starting: 0,
            want: 0,
            min_instances: 0,
            max_instances: 1,
            in_flight: 0,
            queued: 0,
            queued_bytes: 0,
            max_queued: 0,
            max_queued_bytes: 0,
            standby: None,
            started: 0,
            lost: 0,
            start_ms: None,
            cold_starts: 0,
            cold_start_total_ms: 0.0,
            cold_start_last_ms: None,
            circuit: CircuitState::Closed,
            failures: 0,
            failure: None,
            retry_after_ms: None,
        }
    }
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
    /// The whole of that hash; zero when nothing is served.
    #[serde(skip)]
    pub hash: [u8; 32],
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
