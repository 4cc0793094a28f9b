//! How much processes and the machine compute, from proc(5).

use std::{
    fs,
    time::{Duration, Instant},
};

/// A clock that runs while something computes, or does not, on all cores together.
#[derive(Debug, Default)]
pub(super) struct Meter(Option<(Instant, Duration)>);

impl Meter {
    /// Cores on average since the last look. `None` at the first one, or without a `reading`.
    pub(super) fn cores(&mut self, reading: Option<Duration>, now: Instant) -> Option<f64> {
        let before = std::mem::replace(&mut self.0, reading.map(|reading| (now, reading)));
        let ((before_at, before), (at, after)) = (before?, self.0?);
        let passed = at.saturating_duration_since(before_at).as_secs_f64();
        (passed > 0.0).then(|| after.saturating_sub(before).as_secs_f64() / passed)
    }
}

/// The CPU time that a process has used, with all its threads; `None` once it has ended.
pub(super) fn used_by(pid: u32) -> Option<Duration> {
    used(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// The time that the cores of this machine have been idle, all together.
pub(super) fn idle() -> Option<Duration> {
    idle_in(&fs::read_to_string("/proc/stat").ok()?)
}

/// The second field of `/proc/PID/stat`, a name in parentheses, may hold anything.
fn used(stat: &str) -> Option<Duration> {
    let (_, rest) = stat.rsplit_once(')')?;
    sum(rest.split_ascii_whitespace().skip(11).take(2), 2)
}

/// Idle, and waiting for a disk.
fn idle_in(stat: &str) -> Option<Duration> {
    let all = stat.lines().next()?.strip_prefix("cpu ")?;
    sum(all.split_ascii_whitespace().skip(3).take(2), 2)
}

fn sum<'a>(ticks: impl Iterator<Item = &'a str>, count: usize) -> Option<Duration> {
    let ticks: Vec<u64> = ticks.map(|field| field.parse().ok()).collect::<Option<_>>()?;
    let seconds = ticks.iter().sum::<u64>() as f64 / rustix::param::clock_ticks_per_second() as f64;
    (ticks.len() == count).then(|| Duration::from_secs_f64(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_whatever_a_process_is_called() {
        let ticks = rustix::param::clock_ticks_per_second();
        let stat = format!("7 (a) b (c)) R 1 7 7 0 -1 4194304 93 0 0 0 {} {} 0 0 20 0 1 0 3 4 5", 2 * ticks, ticks);
        assert_eq!(used(&stat), Some(Duration::from_secs(3)));
        assert_eq!(used("7 (a) R 1 7"), None);
        assert_eq!(used(""), None);
        let stat = format!("cpu  1 2 3 {} {ticks} 6 7 8 9 10\ncpu0 1 1 1 1", 4 * ticks);
        assert_eq!(idle_in(&stat), Some(Duration::from_secs(5)));
        assert_eq!(idle_in("cpu  1 2 3 4"), None);
        assert_eq!(idle_in("intr 1 2 3 4 5"), None);
    }

    #[test]
    fn meters_say_what_happened_between_two_looks() {
        let (mut meter, start) = (Meter::default(), Instant::now());
        let second = Duration::from_secs(1);
        assert_eq!(meter.cores(Some(second), start), None);
        assert_eq!(meter.cores(Some(2 * second), start + 2 * second), Some(0.5));
        assert_eq!(meter.cores(Some(5 * second), start + 3 * second), Some(3.0));
        assert_eq!(meter.cores(Some(6 * second), start + 3 * second), None, "no time has passed");
        assert_eq!(meter.cores(None, start + 4 * second), None, "it has ended");
        assert_eq!(meter.cores(Some(second), start + 5 * second), None, "another one");
    }

    #[test]
    fn what_this_process_computes_is_seen() {
        let own = std::process::id();
        let before = used_by(own).unwrap();
        let computes = Instant::now();
        while used_by(own).unwrap() < before + Duration::from_millis(50) {
            assert!(computes.elapsed() < Duration::from_secs(30), "it computes all the time");
        }
        assert!(idle().is_some());
        assert_eq!(used_by(u32::MAX), None);
    }
}
