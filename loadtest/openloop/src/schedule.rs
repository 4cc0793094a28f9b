//! When each call is due: decided before the first one is sent, and by nothing the server does.

use std::time::{Duration, Instant};

/// One thread's share of a constant rate: every `stride`-th arrival, beginning with number `first`.
#[derive(Debug, Clone)]
pub(crate) struct Schedule {
    start: Instant,
    /// Arrivals per second of all threads together.
    rate: f64,
    next: u64,
    stride: u64,
    /// Arrivals of all threads together.
    total: u64,
}

impl Schedule {
    /// `rate` arrivals per second for `length`, evenly spaced from `start` on; this is share `first` of `stride`.
    pub(crate) fn new(start: Instant, rate: f64, length: Duration, first: u64, stride: u64) -> Self {
        let total = (rate * length.as_secs_f64()).round() as u64;
        Self { start, rate, next: first, stride, total }
    }

    /// When the next arrival is due; `None` once there are no more.
    pub(crate) fn next_due(&self) -> Option<Instant> {
        (self.next < self.total).then(|| self.start + Duration::from_secs_f64(self.next as f64 / self.rate))
    }

    /// Takes the next arrival if it is due by `now`.
    pub(crate) fn take(&mut self, now: Instant) -> Option<Instant> {
        let due = self.next_due().filter(|due| *due <= now)?;
        self.next += self.stride;
        Some(due)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dues(mut schedule: Schedule, now: Instant) -> Vec<Duration> {
        let start = schedule.start;
        std::iter::from_fn(|| schedule.take(now)).map(|due| due - start).collect()
    }

    #[test]
    fn spaces_arrivals_evenly() {
        let start = Instant::now();
        let schedule = Schedule::new(start, 4.0, Duration::from_secs(1), 0, 1);
        let expected = [0, 250, 500, 750].map(Duration::from_millis);
        assert_eq!(dues(schedule, start + Duration::from_secs(9)), expected);
    }

    #[test]
    fn gives_nothing_before_it_is_due() {
        let start = Instant::now();
        let mut schedule = Schedule::new(start, 10.0, Duration::from_secs(1), 0, 1);
        assert_eq!(schedule.take(start), Some(start));
        assert_eq!(schedule.take(start + Duration::from_millis(99)), None);
        assert_eq!(schedule.next_due(), Some(start + Duration::from_millis(100)));
    }

    #[test]
    fn threads_share_all_arrivals() {
        let start = Instant::now();
        let length = Duration::from_secs(2);
        let share = |first| dues(Schedule::new(start, 500.0, length, first, 3), start + length);
        let mut shared: Vec<_> = (0..3).flat_map(share).collect();
        shared.sort();
        assert_eq!(shared, dues(Schedule::new(start, 500.0, length, 0, 1), start + length));
        assert_eq!(shared.len(), 1000);
    }

    #[test]
    fn does_not_drift() {
        let start = Instant::now();
        let length = Duration::from_secs(30);
        let last = dues(Schedule::new(start, 3.0, length, 0, 1), start + length).pop().unwrap();
        assert!(last.abs_diff(Duration::from_secs_f64(89.0 / 3.0)) < Duration::from_micros(1));
    }
}
