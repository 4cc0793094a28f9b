//! The switch without its devices: which frame is where, and when it comes out.

use std::{
    cmp::Reverse,
    collections::BinaryHeap,
    sync::Arc,
    time::{Duration, Instant},
};

use serde::Serialize;

use crate::{Condition, Way, table::Table};

/// More frames than this are not kept in the air.
const AIR: usize = 65_536;
/// A frame that is sent on later than this after it was due is late.
const LATE: Duration = Duration::from_micros(200);

pub(crate) type Frame = Arc<[u8]>;

/// Which way of a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From the host to the switch.
    From,
    /// From the switch to the host.
    To,
}

/// Frames so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// That hosts have sent.
    pub sent: u64,
    /// That hosts were given. A frame for all counts for each of them.
    pub delivered: u64,
    /// That a way has lost, for whatever reason.
    pub lost: u64,
    /// That were lost because too many were on their way, or because a host's device did not take them.
    pub overflowed: u64,
    /// Of those delivered, that came more than 0.2 ms after they were due.
    pub late: u64,
    /// The greatest of these delays, in microseconds.
    pub latest_us: u64,
}

/// Frames on their way between ports.
pub(crate) struct Fabric {
    ports: Vec<[Way; 2]>,
    table: Table,
    air: BinaryHeap<Reverse<Flight>>,
    /// Flights so far: of those due at once, the first one goes first.
    flights: u64,
    counts: Counts,
}

#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Flight {
    due: Instant,
    number: u64,
    port: usize,
    /// On the way to the port's host.
    is_last: bool,
    frame: Frame,
}

/// A frame that its host gets now.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Delivery {
    pub(crate) port: usize,
    pub(crate) frame: Frame,
    due: Instant,
}

impl Fabric {
    /// So many ports, with ways that do nothing.
    pub(crate) fn new(ports: usize, seed: u64) -> Self {
        let mut seeds = fastrand::Rng::with_seed(seed);
        let mut way = || Way::new(Condition::default(), seeds.u64(..));
        let ports = (0..ports).map(|_| [way(), way()]).collect();
        Self { ports, table: Table::default(), air: BinaryHeap::new(), flights: 0, counts: Counts::default() }
    }

    pub(crate) fn way(&mut self, port: usize, direction: Direction) -> &mut Way {
        &mut self.ports[port][direction as usize]
    }

    pub(crate) fn counts(&self) -> Counts {
        self.counts
    }

    /// Takes a frame that the host of `port` has sent.
    pub(crate) fn enter(&mut self, port: usize, frame: Frame, now: Instant) {
        self.counts.sent += 1;
        self.fly(port, Direction::From, frame, now);
    }

    /// When [`Fabric::next`] has to be called again.
    pub(crate) fn due(&self) -> Option<Instant> {
        self.air.peek().map(|Reverse(flight)| flight.due)
    }

    /// The next frame that has come to its end by `now`.
    pub(crate) fn next(&mut self, now: Instant) -> Option<Delivery> {
        while self.due().is_some_and(|due| due <= now) {
            let Reverse(Flight { due, port, is_last, frame, .. }) = self.air.pop()?;
            if is_last {
                return Some(Delivery { port, frame, due });
            }
            match self.table.learn(&frame, port) {
                Some(to) if to == port => {}
                Some(to) => self.fly(to, Direction::To, frame, due),
                None => {
                    let others = (0..self.ports.len()).filter(|other| *other != port);
                    others.for_each(|other| self.fly(other, Direction::To, Arc::clone(&frame), due));
                }
            }
        }
        None
    }

    /// Notes what became of a delivery.
    pub(crate) fn ended(&mut self, delivery: &Delivery, is_taken: bool, now: Instant) {
        if !is_taken {
            self.counts.overflowed += 1;
            return;
        }
        let late = now.saturating_duration_since(delivery.due);
        self.counts.delivered += 1;
        self.counts.late += u64::from(late > LATE);
        self.counts.latest_us = self.counts.latest_us.max(late.as_micros() as u64);
    }

    fn fly(&mut self, port: usize, direction: Direction, frame: Frame, now: Instant) {
        let Some(due) = self.way(port, direction).pass(frame.len(), now) else {
            self.counts.lost += 1;
            return;
        };
        if self.air.len() >= AIR {
            self.counts.overflowed += 1;
            return;
        }
        self.flights += 1;
        let is_last = direction == Direction::To;
        self.air.push(Reverse(Flight { due, number: self.flights, port, is_last, frame }));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(to: u8, from: u8, number: u8) -> Frame {
        [&[2, 0, 0, 0, 0, to][..], &[2, 0, 0, 0, 0, from], &[number]].concat().into()
    }

    /// Whom each frame reaches that is due by then, and its number.
    fn delivered(fabric: &mut Fabric, now: Instant) -> Vec<(usize, u8)> {
        std::iter::from_fn(|| fabric.next(now)).map(|delivery| (delivery.port, delivery.frame[12])).collect()
    }

    #[test]
    fn unknown_hosts_are_looked_for_everywhere_and_known_ones_are_not() {
        let (mut fabric, now) = (Fabric::new(3, 0), Instant::now());
        fabric.enter(0, frame(1, 0, 1), now);
        assert_eq!(delivered(&mut fabric, now), [(1, 1), (2, 1)]);
        fabric.enter(1, frame(0, 1, 2), now);
        fabric.enter(0, frame(1, 0, 3), now);
        assert_eq!(delivered(&mut fabric, now), [(0, 2), (1, 3)]);
    }

    #[test]
    fn ways_of_both_ports_add_up() {
        let (mut fabric, now) = (Fabric::new(2, 0), Instant::now());
        let delay = |millis| Condition { delay: Duration::from_millis(millis), ..Condition::default() };
        fabric.way(0, Direction::From).set(delay(3));
        fabric.way(1, Direction::To).set(delay(4));
        fabric.enter(0, frame(1, 0, 1), now);
        fabric.enter(1, frame(0, 1, 2), now);
        assert_eq!(delivered(&mut fabric, now), [(0, 2)]);
        assert_eq!(fabric.due(), Some(now + Duration::from_millis(3)));
        assert_eq!(delivered(&mut fabric, now + Duration::from_millis(6)), []);
        assert_eq!(delivered(&mut fabric, now + Duration::from_millis(7)), [(1, 1)]);
        assert_eq!(fabric.due(), None);
    }

    #[test]
    fn frames_due_at_once_keep_their_order() {
        let (mut fabric, now) = (Fabric::new(2, 0), Instant::now());
        (0..100).for_each(|number| fabric.enter(0, frame(1, 0, number), now));
        assert_eq!(delivered(&mut fabric, now), (0..100).map(|number| (1, number)).collect::<Vec<_>>());
    }

    #[test]
    fn every_frame_is_counted_once() {
        let (mut fabric, now) = (Fabric::new(2, 9), Instant::now());
        fabric.way(0, Direction::From).set("loss=0.5".parse().unwrap());
        (0..100).for_each(|number| fabric.enter(0, frame(1, 0, number), now));
        let later = now + 2 * LATE;
        let mut taken = true;
        while let Some(delivery) = fabric.next(later) {
            fabric.ended(&delivery, taken, later);
            taken = !taken;
        }
        let counts = fabric.counts();
        assert_eq!((counts.sent, counts.late, counts.latest_us), (100, counts.delivered, 400));
        assert_eq!(counts.delivered + counts.lost + counts.overflowed, 100);
        assert!(counts.delivered > 0 && counts.lost > 0 && counts.overflowed > 0, "{counts:?}");
    }

    #[test]
    fn the_air_has_a_bound() {
        let (mut fabric, now) = (Fabric::new(2, 0), Instant::now());
        fabric.way(0, Direction::From).set("delay=1s".parse().unwrap());
        (0..AIR + 10).for_each(|_| fabric.enter(0, frame(1, 0, 0), now));
        assert_eq!(fabric.counts().overflowed, 10);
    }
}
