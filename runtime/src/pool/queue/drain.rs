use std::time::{Duration, Instant};

/// What the estimate is made of is no older than that, once there is enough of it.
const WINDOW: Duration = Duration::from_secs(1);

/// How fast a line gets shorter. Pure.
///
/// The estimate errs on the fast side by what is in flight, which may be done at any moment: calls that could make it
/// shall not be refused.
#[derive(Debug, Default)]
pub(super) struct Drain {
    /// Calls that can be in flight.
    capacity: usize,
    /// Since when there has been a line, or the part of it that counts.
    since: Option<Instant>,
    /// Calls that left the line since then to be served.
    left: usize,
}

impl Drain {
    /// A line begins.
    pub(super) fn begin(&mut self, now: Instant) {
        self.since = Some(now);
        self.left = 0;
    }

    /// The line is empty.
    pub(super) fn end(&mut self) {
        self.since = None;
    }

    /// With another number of instances everything is different.
    pub(super) fn set_capacity(&mut self, calls: usize, now: Instant) {
        if calls != self.capacity {
            self.capacity = calls;
            self.left = 0;
            self.since = self.since.map(|_| now);
        }
    }

    /// A call left to be served.
    pub(super) fn leave(&mut self, now: Instant) {
        self.left += 1;
        let Some(since) = &mut self.since else { return };
        let elapsed = now.saturating_duration_since(*since);
        // Four rounds of calls say enough about the rate now.
        if elapsed >= WINDOW && self.left >= 4 * self.capacity {
            self.left /= 2;
            *since = now - elapsed / 2;
        }
    }

    /// How many calls of a line are served within `time`, as far as one can tell: 0 where nothing is known.
    pub(super) fn served_within(&self, time: Duration, now: Instant) -> usize {
        let Some(since) = self.since.filter(|_| self.capacity > 0) else { return 0 };
        let elapsed = now.saturating_duration_since(since).as_secs_f64();
        // Saturates where no time has passed yet.
        ((self.left + self.capacity) as f64 * (time.as_secs_f64() / elapsed)) as usize
    }

    /// How long a call waits at least, as far as one can tell, that is at `position` of the line, counted from 1.
    /// `None` where nothing is known, as long as no instance is there.
    pub(super) fn wait(&self, position: usize, now: Instant) -> Option<Duration> {
        let elapsed = now.saturating_duration_since(self.since?);
        let served = self.left + self.capacity;
        (self.capacity > 0).then(|| elapsed.mul_f64(position as f64 / served as f64))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn nothing_is_known_without_a_line_or_an_instance() {
        let now = Instant::now();
        let mut drain = Drain::default();
        drain.begin(now);
        assert_eq!((drain.wait(1000, now + SECOND), drain.served_within(SECOND, now + SECOND)), (None, 0));
        drain.end();
        drain.set_capacity(1, now);
        assert_eq!((drain.wait(1000, now + SECOND), drain.served_within(SECOND, now + SECOND)), (None, 0));
    }

    #[test]
    fn steady_rate_is_found() {
        let start = Instant::now();
        let mut drain = Drain::default();
        drain.set_capacity(10, start);
        drain.begin(start);
        // 100 calls/s, whatever they were before.
        let mut now = start + 5 * SECOND;
        for _ in 0..3000 {
            now += Duration::from_millis(10);
            drain.leave(now);
        }
        let wait = drain.wait(200, now).unwrap().as_secs_f64();
        assert!((1.5..=2.05).contains(&wait), "{wait}");
        let served = drain.served_within(2 * SECOND, now);
        assert!((195..=270).contains(&served), "{served}");
    }

    #[test]
    fn calls_in_flight_may_all_end_at_once() {
        let start = Instant::now();
        let mut drain = Drain::default();
        drain.set_capacity(100, start);
        drain.begin(start);
        // Nothing has left in 2 s: all the 100 may be sleepers that are nearly done.
        assert_eq!(drain.wait(50, start + 2 * SECOND), Some(SECOND));
    }

    #[test]
    fn new_instance_is_a_new_beginning() {
        let start = Instant::now();
        let mut drain = Drain::default();
        drain.set_capacity(1, start);
        drain.begin(start);
        assert_eq!(drain.wait(5, start + 10 * SECOND), Some(50 * SECOND));
        drain.set_capacity(2, start + 10 * SECOND);
        assert_eq!(drain.wait(5, start + 10 * SECOND), Some(Duration::ZERO));
    }
}
