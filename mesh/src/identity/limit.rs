//! How often somebody may show a wrong proof. Secrets have 128 bits and need no such help: it
//! bounds the work and the log lines that guessing makes.

use std::{
    collections::HashMap,
    hash::Hash,
    net::{IpAddr, Ipv6Addr},
    time::{Duration, SystemTime},
};

/// Failures in a [`WINDOW`] after which no more proofs are looked at.
const LIMIT: u32 = 10;

const WINDOW: Duration = Duration::from_secs(60);

/// What is remembered at most. When it is full of running windows, the oldest is forgotten: that
/// takes as many addresses, each of which has completed a handshake.
const CAPACITY: usize = 1024;

/// Failures in the current window of each key, with a bound on memory.
#[derive(Debug)]
pub(super) struct Failures<K> {
    windows: HashMap<K, Window>,
}

#[derive(Clone, Copy, Debug)]
struct Window {
    began: SystemTime,
    failures: u32,
}

impl Window {
    fn is_running(self, now: SystemTime) -> bool {
        // A clock that was set back ends it, too.
        now.duration_since(self.began).is_ok_and(|age| age < WINDOW)
    }
}

impl<K> Default for Failures<K> {
    fn default() -> Self {
        Self { windows: HashMap::new() }
    }
}

impl<K: Copy + Eq + Hash> Failures<K> {
    /// Whether this key has failed too often to be looked at now.
    pub(super) fn is_blocked(&self, key: K, now: SystemTime) -> bool {
        self.windows.get(&key).is_some_and(|window| window.failures >= LIMIT && window.is_running(now))
    }

    /// Counts a failure.
    pub(super) fn record(&mut self, key: K, now: SystemTime) {
        if !self.windows.contains_key(&key) && self.windows.len() >= CAPACITY {
            self.make_room(now);
        }
        let window = self.windows.entry(key).or_insert(Window { began: now, failures: 0 });
        if !window.is_running(now) {
            *window = Window { began: now, failures: 0 };
        }
        window.failures += 1;
    }

    fn make_room(&mut self, now: SystemTime) {
        self.windows.retain(|_, window| window.is_running(now));
        if self.windows.len() >= CAPACITY {
            let oldest = self.windows.iter().min_by_key(|(_, window)| window.began).map(|(key, _)| *key);
            oldest.map(|key| self.windows.remove(&key));
        }
    }
}

/// What counts as one source: an IPv4 address, or an IPv6 network, of which a host has all addresses.
pub(super) fn source(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() & !u128::from(u64::MAX)).into(),
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: SystemTime = SystemTime::UNIX_EPOCH;

    #[test]
    fn blocks_after_the_limit_until_the_window_ends() {
        let mut failures = Failures::default();
        for _ in 0..LIMIT {
            assert!(!failures.is_blocked('a', START));
            failures.record('a', START);
        }
        assert!(failures.is_blocked('a', START + WINDOW / 2));
        assert!(!failures.is_blocked('b', START));
        assert!(!failures.is_blocked('a', START + WINDOW));
        failures.record('a', START + WINDOW);
        assert!(!failures.is_blocked('a', START + WINDOW));
    }

    #[test]
    fn memory_is_bounded_and_the_oldest_goes_first() {
        let mut failures = Failures::default();
        for key in 0..3 * CAPACITY {
            for _ in 0..LIMIT {
                failures.record(key, START + Duration::from_millis(key as u64));
            }
        }
        assert_eq!(failures.windows.len(), CAPACITY);
        let now = START + Duration::from_millis(3 * CAPACITY as u64);
        assert!(failures.is_blocked(3 * CAPACITY - 1, now));
        assert!(!failures.is_blocked(0, now));
    }

    #[test]
    fn one_host_is_one_source() {
        let source = |text: &str| source(text.parse().unwrap());
        assert_eq!(source("2001:db8::1"), source("2001:db8::ffff:1"));
        assert_ne!(source("2001:db8::1"), source("2001:db8:0:1::1"));
        assert_eq!(source("::ffff:10.0.0.1"), source("10.0.0.1"));
        assert_ne!(source("10.0.0.1"), source("10.0.0.2"));
    }
}
