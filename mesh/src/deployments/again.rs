//! When a node tries again what it could not do for a deployment. The same for the node itself and in simulation.

use std::time::{Duration, Instant};

/// Nobody gave the bundle: who hears of a deployment may hear of the nodes that have it only a moment later ...
const FIRST_FETCH: Duration = Duration::from_millis(200);
/// ... and asks in vain no more often than this.
const LAST_FETCH: Duration = Duration::from_secs(5);
/// An app that does not start is tried again after this long, and then after twice as long each time ...
const FIRST_START: Duration = Duration::from_secs(5);
/// ... up to this.
const LAST_START: Duration = Duration::from_secs(300);

/// Why a deployment is not served or kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Obstacle {
    /// No node in reach gives its bundle.
    NoBundle,
    /// All else: it does not start, or there is no room on the disk.
    NoStart,
}

/// A revision that failed, and when it is tried again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retry {
    revision: u64,
    obstacle: Obstacle,
    pause: Duration,
    again: Instant,
    is_news: bool,
}

impl Retry {
    /// `revision` has failed now, and before as `last` says.
    pub fn after(last: Option<Self>, revision: u64, obstacle: Obstacle, now: Instant) -> Self {
        let (first, longest) = match obstacle {
            Obstacle::NoBundle => (FIRST_FETCH, LAST_FETCH),
            Obstacle::NoStart => (FIRST_START, LAST_START),
        };
        let last = last.filter(|last| (last.revision, last.obstacle) == (revision, obstacle));
        let pause = last.map_or(first, |last| (last.pause * 2).min(longest));
        let is_lasting = pause == longest && last.is_some_and(|last| last.pause < longest);
        Self { revision, obstacle, pause, again: now + pause, is_news: is_lasting || obstacle == Obstacle::NoStart }
    }

    /// Whether it is this revision that failed.
    pub fn is_of(&self, revision: u64) -> bool {
        self.revision == revision
    }

    /// Whether this revision is not to be tried yet.
    pub fn is_waiting(&self, revision: u64, now: Instant) -> bool {
        self.is_of(revision) && now < self.again
    }

    /// Whether people should hear of it: each time that it does not start, and once that nobody gives the bundle, when
    /// that has lasted for some seconds.
    pub fn is_news(&self) -> bool {
        self.is_news
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The pauses after so many failures in a row, in milliseconds, and which of them are told.
    fn failures(obstacle: Obstacle, count: usize) -> (Vec<u128>, Vec<bool>) {
        let now = Instant::now();
        let next = |last: &Retry| Some(Retry::after(Some(*last), 1, obstacle, now));
        let failures = std::iter::successors(Some(Retry::after(None, 1, obstacle, now)), next);
        failures.take(count).map(|it| (it.pause.as_millis(), it.is_news())).unzip()
    }

    #[test]
    fn bundle_is_asked_for_soon_and_then_every_five_seconds() {
        let (pauses, told) = failures(Obstacle::NoBundle, 8);
        assert_eq!(pauses, [200, 400, 800, 1_600, 3_200, 5_000, 5_000, 5_000]);
        assert_eq!(told, [false, false, false, false, false, true, false, false]);
    }

    #[test]
    fn pauses_between_starts_grow_to_minutes() {
        let (pauses, told) = failures(Obstacle::NoStart, 8);
        assert_eq!(pauses, [5_000, 10_000, 20_000, 40_000, 80_000, 160_000, 300_000, 300_000]);
        assert_eq!(told, [true; 8]);
    }

    #[test]
    fn another_revision_and_another_obstacle_begin_anew() {
        let now = Instant::now();
        let failed = |last, revision, obstacle| Retry::after(Some(last), revision, obstacle, now);
        let first = Retry::after(None, 1, Obstacle::NoBundle, now);
        let twice = failed(first, 1, Obstacle::NoBundle);
        assert_eq!(failed(twice, 2, Obstacle::NoBundle).pause, FIRST_FETCH);
        assert_eq!(failed(twice, 1, Obstacle::NoStart).pause, FIRST_START);
        assert!(twice.is_waiting(1, now) && !twice.is_waiting(2, now) && !twice.is_waiting(1, now + 2 * FIRST_FETCH));
    }
}
