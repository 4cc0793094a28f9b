//! How an app whose replicas follow its load gets more hosts.
//!
//! In steps, each at most as large as the number of hosts: 1, 2, 4, 8, ... In a step each saturated host asks at most
//! one peer, and each another one, by its place among the hosts. Hosts know their own load well and that of others as it
//! was seconds ago, so each judges by its own how many hosts are missing for each that there is, as if all were alike:
//! where that is a fifth of one, every fifth asks. The next step begins when the new hosts have had time to take their
//! share.

use std::time::Instant;

use super::{Config, Decision, Demand, Site, comes_before, rank};

/// What a host remembers of the steps.
#[derive(Debug, Default)]
pub(super) struct Growth {
    /// Since when it has been saturated.
    saturated: Option<Window>,
    /// How many hosts are missing for each that there is, summed up over the times that nobody was asked.
    missing: f64,
    /// When it asked a peer, until one has come.
    asked: Option<Instant>,
    /// How many nodes served the app the last time.
    serving: usize,
    /// From when on saturation counts: new hosts are to take their share first. Calls are counted from half of that
    /// time on, as chance matters less the more they are.
    judged_from: Option<Instant>,
}

/// A time in which a host was saturated.
#[derive(Clone, Copy, Debug)]
struct Window {
    since: Instant,
    /// The demand then.
    before: Demand,
    /// The fewest calls that ran and waited.
    fewest: usize,
}

impl Growth {
    /// Whom the host `own` asks to host `app`, if anybody.
    pub(super) fn ask(
        &mut self,
        config: &Config,
        (own, app): (&Site, &str),
        sites: &[Site],
        demand: Demand,
        now: Instant,
    ) -> Decision {
        let serving = sites.iter().filter(|site| site.serves).count();
        let has_one_come = serving > std::mem::replace(&mut self.serving, serving);
        if has_one_come {
            self.asked = None;
            self.judged_from = Some(now + config.share);
        }
        let coming = sites.iter().filter(|site| site.hosts && !site.serves).count();
        // Who has looked on since before others asked is of the same step.
        let is_under_way = coming > 0 && (self.saturated.is_none() || coming >= serving);
        let has_asked = self.asked.is_some_and(|at| now.saturating_duration_since(at) < config.start);
        let is_too_early = self.judged_from.is_some_and(|from| now + config.share / 2 < from);
        if !demand.is_saturated || is_under_way || has_asked {
            (self.saturated, self.missing) = (None, 0.0);
            return Decision::Stay;
        }
        if is_too_early {
            self.saturated = None;
            return Decision::Stay;
        }
        let window = self.saturated.get_or_insert(Window { since: now, before: demand, fewest: demand.calls });
        window.fewest = window.fewest.min(demand.calls);
        let since = self.judged_from.map_or(window.since, |from| from.max(window.since));
        if now.saturating_duration_since(since) < config.saturation {
            return Decision::Stay;
        }
        let missing = window.missing(demand);
        self.saturated = None;
        // If those whose part it is do not ask, it becomes that of others.
        self.missing = if missing > 0.0 { (self.missing + missing).min(1.0) } else { 0.0 };
        let place = sites.iter().filter(|site| site.serves && comes_before(site, own, app)).count();
        let Some(number) = part(place, serving, self.missing) else {
            self.judged_from = Some(now + config.share);
            return Decision::Stay;
        };
        // Those that are coming stay in the list, or who looks a moment later would count others.
        let mut candidates: Vec<_> =
            sites.iter().filter(|site| !site.serves && (site.has_room || site.hosts)).collect();
        candidates.sort_unstable_by_key(|site| (site.load, rank(app, site.node), site.node));
        match candidates.get(number % candidates.len().max(1)) {
            Some(site) if !site.hosts => {
                self.asked = Some(now);
                Decision::Ask(site.node)
            }
            _ => Decision::Stay,
        }
    }
}

impl Window {
    /// How many hosts more are missing for each that there is, at its end: from 0 to 1, since more is not known before
    /// the next step.
    fn missing(self, after: Demand) -> f64 {
        let grown = after.calls as f64 - self.before.calls as f64;
        // It is less than before if instances have gone.
        let begun = after.begun.saturating_sub(self.before.begun) as f64;
        let missing = if grown.abs() <= 1.0 + begun / STEADY {
            // Clients wait for answers before they call again, or no more calls may wait: had all that wait run
            // elsewhere, so many would be busy.
            match self.fewest as f64 / after.capacity.max(1) as f64 - 1.0 {
                waiting if waiting > 0.0 => waiting,
                // They wait for the machine and not for each other.
                _ => STRAINED,
            }
        } else if begun > 0.0 {
            // More come than it can run, or fewer, in which case it is enough as it is.
            grown / begun
        } else {
            grown
        };
        missing.clamp(0.0, 1.0)
    }
}

/// A number of calls that changes by less than this part of those that begin is steady.
const STEADY: f64 = 16.0;
/// How many hosts are missing for each whose machine can do no more, as nothing tells how many.
const STRAINED: f64 = 0.5;
/// Such a part of a host.
const LITTLE: f64 = 0.3;

/// Of `hosts` for each of which so many are `missing`: the number of the one that the host at `place` asks, or none.
/// What is [`LITTLE`] is not asked for at once: it may be a moment's chance.
fn part(place: usize, hosts: usize, missing: f64) -> Option<usize> {
    let before = |place: usize| (place as f64 * missing).ceil() as usize;
    let is_enough = hosts as f64 * missing >= LITTLE;
    (is_enough && before(place + 1) > before(place)).then(|| before(place))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    fn demand(calls: usize, begun: u64) -> Demand {
        Demand { is_saturated: true, idle: Duration::ZERO, calls, capacity: 10, begun }
    }

    #[test]
    fn what_is_missing_follows_from_calls_that_pile_up() {
        let missing = |before: Demand, after: Demand| {
            let fewest = before.calls.min(after.calls);
            Window { since: Instant::now(), before, fewest }.missing(after)
        };
        // A quarter more comes than runs; twice as much; less.
        assert_eq!(missing(demand(20, 0), demand(30, 40)), 0.25);
        assert_eq!(missing(demand(20, 0), demand(100, 40)), 1.0);
        assert_eq!(missing(demand(100, 0), demand(60, 40)), 0.0);
        // As many wait as may.
        assert_eq!(missing(demand(200, 0), demand(199, 40)), 1.0);
        assert_eq!(missing(demand(15, 0), demand(15, 40)), 0.5);
        // Calls that take long.
        assert_eq!(missing(demand(15, 0), demand(15, 0)), 0.5);
        assert_eq!(missing(demand(12, 0), demand(40, 0)), 1.0);
        assert_eq!(missing(demand(20, 100), demand(60, 3)), 1.0, "instances went");
        // Calls have begun and wait for a core.
        assert_eq!(missing(demand(8, 0), demand(9, 40)), 0.5);
    }

    #[test]
    fn what_is_little_is_not_asked_for() {
        assert_eq!((part(0, 1, 0.2), part(0, 1, 0.3)), (None, Some(0)));
        assert_eq!((part(0, 2, 0.1), part(0, 4, 0.1)), (None, Some(0)));
    }

    proptest! {
        #[test]
        fn hosts_share_out_what_is_missing(hosts in 1..200_usize, missing in 0.0..=1.0_f64) {
            let asked: Vec<_> = (0..hosts).filter_map(|place| part(place, hosts, missing)).collect();
            let all = hosts as f64 * missing;
            prop_assert_eq!(asked.len(), if all < LITTLE { 0 } else { all.ceil() as usize });
            prop_assert!(asked.iter().copied().eq(0..asked.len()), "each asks another one: {asked:?}");
        }
    }
}
