use std::time::Instant;

use super::TICK;

/// What counts as load that lasts, in seconds.
const LONG: usize = 60;
/// What counts as a burst, in seconds.
const BURST: usize = 6;
/// Between two looks at a pool that has calls lies no more, in seconds; after a longer pause the pool was idle.
const LONGEST_STEP: f64 = 2.0 * TICK.as_millis() as f64 / 1000.0;

/// The calls of the last minute, second by second.
#[derive(Debug)]
pub(super) struct Average {
    /// Integral of concurrency over each second.
    busy: [f64; LONG],
    /// When the first look was: seconds are counted from it.
    origin: Option<Instant>,
    last: Option<Instant>,
    second: u64,
    /// How much of this second has passed.
    fraction: f64,
}

impl Default for Average {
    fn default() -> Self {
        Self { busy: [0.0; LONG], origin: None, last: None, second: 0, fraction: 0.0 }
    }
}

impl Average {
    /// Notes that so many calls are there at `now`.
    pub(super) fn add(&mut self, busy: usize, now: Instant) {
        let origin = *self.origin.get_or_insert(now);
        let step = self.last.replace(now).map_or(0.0, |last| now.saturating_duration_since(last).as_secs_f64());
        let age = now.saturating_duration_since(origin);
        self.advance(age.as_secs());
        self.fraction = age.subsec_nanos() as f64 / 1e9;
        let slot = self.slot(0);
        self.busy[slot] += busy as f64 * step.min(LONGEST_STEP);
    }

    /// Average concurrency over the last minute, or over the last seconds if that is more.
    pub(super) fn busy(&self) -> f64 {
        let over = |seconds: usize| {
            let sum: f64 = (0..seconds).map(|ago| self.busy[self.slot(ago)]).sum();
            sum / (seconds as f64 - 1.0 + self.fraction)
        };
        over(LONG).max(over(BURST))
    }

    fn slot(&self, ago: usize) -> usize {
        (self.second as usize % LONG + LONG - ago) % LONG
    }

    fn advance(&mut self, second: u64) {
        for _ in 0..(second - self.second).min(LONG as u64) {
            self.second += 1;
            let slot = self.slot(0);
            self.busy[slot] = 0.0;
        }
        // A gap of over a minute has cleared all; where the ring stands does not matter.
        self.second = second;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// `seconds` of `busy` calls.
    fn load(average: &mut Average, now: &mut Instant, busy: usize, seconds: u64) {
        for _ in 0..seconds * 5 {
            *now += TICK;
            average.add(busy, *now);
        }
    }

    #[test]
    fn steady_load_is_its_own_average() {
        let (mut average, mut now) = (Average::default(), Instant::now());
        load(&mut average, &mut now, 7, 70);
        assert!((6.7..=7.3).contains(&average.busy()), "{}", average.busy());
    }

    #[test]
    fn burst_counts_within_seconds_and_fades_within_a_minute() {
        let (mut average, mut now) = (Average::default(), Instant::now());
        load(&mut average, &mut now, 60, 6);
        assert!(average.busy() > 50.0, "{}", average.busy());
        load(&mut average, &mut now, 0, 7);
        assert!((5.0..=7.5).contains(&average.busy()), "{}", average.busy());
        load(&mut average, &mut now, 0, 60);
        assert_eq!(average.busy(), 0.0);
    }

    #[test]
    fn pause_without_looks_was_idle() {
        let (mut average, mut now) = (Average::default(), Instant::now());
        load(&mut average, &mut now, 10, 6);
        now += Duration::from_secs(30);
        average.add(10, now);
        assert!(average.busy() < 2.0, "{}", average.busy());
        now += Duration::from_secs(3600);
        average.add(0, now);
        assert_eq!(average.busy(), 0.0);
    }
}
