//! One direction between a host and the switch.

use std::time::{Duration, Instant};

use fastrand::Rng;

use crate::Condition;

/// One direction between a host and the switch: decides when each frame comes out, and which do not.
#[derive(Clone, Debug)]
pub struct Way {
    condition: Condition,
    seed: u64,
    dice: Rng,
    /// When the last frame comes out, of those that keep their order.
    last: Option<Instant>,
    /// When a limited rate has room for the next frame.
    free: Option<Instant>,
}

impl Way {
    /// A way whose dice depend on nothing but `seed`.
    pub fn new(condition: Condition, seed: u64) -> Self {
        Self { condition, seed, dice: Rng::with_seed(seed), last: None, free: None }
    }

    /// What it does to frames.
    pub fn condition(&self) -> Condition {
        self.condition
    }

    /// Does that to frames from now on, with its dice as at the beginning. What is on the way is not changed.
    pub fn set(&mut self, condition: Condition) {
        self.condition = condition;
        self.dice = Rng::with_seed(self.seed);
        self.free = None;
    }

    /// When a frame of `bytes` comes out that goes in `now`; `None` if it does not.
    pub fn pass(&mut self, bytes: usize, now: Instant) -> Option<Instant> {
        let Condition { delay, jitter, loss, reorder, cut, .. } = self.condition;
        // Each frame takes the same dice, so that the fate of the others does not depend on its own.
        let [lost, late, overtaken] = std::array::from_fn(|_| self.dice.f64());
        if cut || lost < loss {
            return None;
        }
        let out = self.turn(bytes, now)? + delay + jitter.mul_f64(late);
        if overtaken < reorder {
            return Some(out + Condition::HELD);
        }
        let out = self.last.map_or(out, |last| out.max(last));
        self.last = Some(out);
        Some(out)
    }

    /// When a limited rate has let the frame through.
    fn turn(&mut self, bytes: usize, now: Instant) -> Option<Instant> {
        let Some(rate) = self.condition.rate else { return Some(now) };
        let begin = self.free.map_or(now, |free| free.max(now));
        if begin - now > Condition::QUEUE {
            return None;
        }
        let end = begin + Duration::from_secs_f64(bytes as f64 * 8.0 / rate.get() as f64);
        self.free = Some(end);
        Some(end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FRAMES: u32 = 10_000;

    /// How long each of many frames of 125 bytes takes, one sent every `gap`.
    fn times(condition: &str, seed: u64, gap: Duration) -> Vec<Option<Duration>> {
        let mut way = Way::new(condition.parse().unwrap(), seed);
        let start = Instant::now();
        let sent = (0..FRAMES).map(|frame| start + gap * frame);
        sent.map(|now| way.pass(125, now).map(|out| out - now)).collect()
    }

    fn millis(count: u64) -> Duration {
        Duration::from_millis(count)
    }

    #[test]
    fn delay_is_exact_without_jitter() {
        assert!(times("delay=10ms", 1, millis(0)).iter().all(|time| *time == Some(millis(10))));
    }

    #[test]
    fn jitter_adds_and_keeps_the_order() {
        let gap = Duration::from_micros(10);
        let times: Vec<_> = times("delay=10ms jitter=4ms", 1, gap).into_iter().map(Option::unwrap).collect();
        assert!(times.iter().all(|time| (millis(10)..=millis(14)).contains(time)));
        assert!(times.iter().max() > times.iter().min());
        assert!(times.windows(2).all(|pair| pair[0] <= pair[1] + gap), "a frame came before the one sent before it");
    }

    #[test]
    fn as_much_is_lost_as_is_said() {
        let lost = |loss: &str| times(loss, 7, millis(1)).iter().filter(|time| time.is_none()).count();
        assert_eq!([lost("loss=0"), lost("loss=1")], [0, FRAMES as usize]);
        // Five standard deviations.
        assert!((50..=150).contains(&lost("loss=0.01")), "{}", lost("loss=0.01"));
    }

    #[test]
    fn the_seed_decides() {
        let condition = "delay=1ms jitter=1ms loss=0.1 reorder=0.1";
        assert_eq!(times(condition, 3, millis(1)), times(condition, 3, millis(1)));
        assert_ne!(times(condition, 3, millis(1)), times(condition, 4, millis(1)));
    }

    #[test]
    fn overtaken_frames_hold_up_none() {
        let times = times("delay=10ms reorder=0.01", 5, Duration::from_micros(100));
        let held = times.iter().filter(|time| **time == Some(millis(11))).count();
        assert!((50..=150).contains(&held), "{held}");
        assert_eq!(times.iter().filter(|time| **time == Some(millis(10))).count() + held, FRAMES as usize);
    }

    #[test]
    fn rate_spaces_frames_and_bounds_what_waits() {
        // A frame is 1,000 bits: 1 ms each.
        let times = times("rate=1000000", 1, Duration::ZERO);
        let through: Vec<_> = times.iter().map_while(|time| *time).collect();
        assert_eq!(through, (1..=through.len() as u64).map(millis).collect::<Vec<_>>());
        assert_eq!(through.len(), 101, "the queue has room for 100 ms and the frame that begins then");
    }

    #[test]
    fn cut_way_lets_nothing_through_until_it_is_healed() {
        let mut way = Way::new("delay=1ms cut".parse().unwrap(), 1);
        let now = Instant::now();
        assert_eq!(way.pass(60, now), None);
        way.set(Condition { cut: false, ..way.condition() });
        assert_eq!(way.pass(60, now), Some(now + millis(1)));
    }
}
