//! When a peer to which there is no own link is dialled again.

use std::time::{Duration, Instant};

/// After the first failure; then twice as long each time ...
const FIRST: Duration = Duration::from_secs(1);
/// ... up to this.
const LONGEST: Duration = Duration::from_secs(300);
/// For a peer that does not know own links. Dialled more often, its log would fill with refusals.
const UNKNOWN: Duration = Duration::from_secs(600);
/// Where the thread has as many as it may.
const NO_ROOM: Duration = Duration::from_secs(10);

/// A pause. It is over at once when the node has a new link to the peer, which then may be another program.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rest {
    /// The link of the node at that time.
    beside: usize,
    until: Instant,
    failures: u32,
}

impl Rest {
    /// After a failure that followed on `last`.
    pub(super) fn after(last: Option<Self>, beside: usize, is_unknown: bool, now: Instant) -> Self {
        let failures = last.filter(|last| last.beside == beside).map_or(0, |last| last.failures);
        let pause = if is_unknown { UNKNOWN } else { FIRST.saturating_mul(1 << failures.min(16)).min(LONGEST) };
        Self { beside, until: now + pause, failures: failures.saturating_add(1) }
    }

    /// Until others may have ended.
    pub(super) fn for_room(beside: usize, now: Instant) -> Self {
        Self { beside, until: now + NO_ROOM, failures: 0 }
    }

    pub(super) fn is_over(&self, beside: usize, now: Instant) -> bool {
        self.beside != beside || self.has_passed(now)
    }

    /// Whether it is over on any link.
    pub(super) fn has_passed(&self, now: Instant) -> bool {
        now >= self.until
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rests_twice_as_long_after_each_failure() {
        let now = Instant::now();
        let mut last = None;
        let pauses: Vec<_> = (0..11)
            .map(|_| {
                let rest = Rest::after(last, 1, false, now);
                last = Some(rest);
                (rest.until - now).as_secs()
            })
            .collect();
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]);
    }

    #[test]
    fn new_link_of_the_node_ends_the_rest() {
        let now = Instant::now();
        let rest = Rest::after(None, 1, true, now);
        assert!(!rest.is_over(1, now + UNKNOWN - Duration::from_secs(1)) && rest.is_over(1, now + UNKNOWN));
        assert!(rest.is_over(2, now));
        assert_eq!(Rest::after(Some(rest), 2, false, now).until, now + FIRST);
    }
}
