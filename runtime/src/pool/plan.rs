//! How many instances a pool should have, and when they start and stop. Pure: (event, now) -> actions.
//!
//! The rule: `want = ceil(average concurrency / (0.7 * concurrency of one instance))`, over the last 60 s, or over the
//! last 6 s where that is more; at once as many as there are calls for, when the first call of the queue waits longer
//! than a start takes; and more than there are when all of them compute without a pause and the machine has cores left.
//! Nothing but time makes a pool smaller: an instance stops when no call has reached it for `keep_alive`, and the pool
//! does not want it. Callers fill one instance before the next, so the others get there.

mod average;
mod health;
mod strain;
#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use average::Average;
use health::Health;
pub(crate) use health::{Circuit, Death};
pub(crate) use strain::Effort;
use strain::Strain;

/// How often the load of a pool that has calls is looked at.
pub(crate) const TICK: Duration = Duration::from_millis(200);

/// How much of an instance's concurrency is meant to be used.
pub(crate) const UTILISATION: f64 = 0.7;

/// An instance stops only if the others could carry so much more than there is: what starts and stops with every
/// change of the load is of no use.
const SLACK: f64 = 1.2;

/// What an instance is called here.
pub(crate) type Id = u32;

/// What the manifest says of a pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Bounds {
    /// Instances it keeps.
    pub(crate) min: usize,
    /// Instances it may have; at least 1 and at least `min`.
    pub(crate) max: usize,
    /// Calls in flight in one instance.
    pub(crate) concurrency: usize,
    /// How long an instance beyond `min` may be without a call.
    pub(crate) keep_alive: Duration,
    /// Calls that may wait.
    pub(crate) queue: usize,
    /// Calls that may wait if they are served within a second.
    pub(crate) quick_queue: usize,
}

/// What happened to an instance of the pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// It is loaded and takes calls.
    Ready(Id),
    /// It could not be started.
    StartFailed(Id),
    /// A ready one died unasked.
    Lost(Id, Death),
    /// A ready one is given up: it still runs, but takes no more calls and is going to be killed.
    Condemned(Id),
}

/// The calls of a pool at one moment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Load<'a> {
    /// Calls that wait for an instance.
    pub(crate) queued: usize,
    /// Since when the first of them has waited.
    pub(crate) head_since: Option<Instant>,
    /// The ready instances.
    pub(crate) instances: &'a [Use],
}

/// What a ready instance does.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Use {
    pub(crate) id: Id,
    pub(crate) in_flight: usize,
    /// Calls that have reached it.
    pub(crate) calls: u64,
    /// Whether it has answered one.
    pub(crate) answered: bool,
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// Start an instance then.
    Start(Id, Instant),
    /// Let an instance finish its calls and stop. It is no part of the pool any more.
    Stop(Id),
}

#[derive(Clone, Copy, Debug)]
enum State {
    Starting { at: Instant },
    Ready { since: Instant, used: Instant, calls: u64 },
}

/// The pool's instances and the load they had.
///
/// Invariants: there are at most `max`, starting ones included; at least `min` but for a pause after a failure.
#[derive(Debug)]
pub(crate) struct Plan {
    bounds: Bounds,
    instances: BTreeMap<Id, State>,
    next: Id,
    want: usize,
    average: Average,
    strain: Strain,
    health: Health,
    /// How long starts take.
    start_time: Option<Duration>,
    active: bool,
    /// When the call that waits first will have waited as long as a start takes.
    impatient: Option<Instant>,
}

impl Plan {
    pub(crate) fn new(bounds: Bounds) -> Self {
        Self {
            bounds,
            instances: BTreeMap::new(),
            next: 0,
            // One is needed to learn the functions.
            want: bounds.min.max(1),
            average: Average::default(),
            strain: Strain::default(),
            health: Health::default(),
            start_time: None,
            active: false,
            impatient: None,
        }
    }

    /// The first starts.
    pub(crate) fn open(&mut self, now: Instant) -> Vec<Action> {
        self.fill(now)
    }

    /// What `event` calls for while the pool has this load. Events of instances that are no part of the pool any more
    /// change nothing.
    pub(crate) fn handle(&mut self, event: Event, load: &Load<'_>, now: Instant) -> Vec<Action> {
        match event {
            Event::Ready(id) => {
                if let Some(state @ &mut State::Starting { at }) = self.instances.get_mut(&id) {
                    *state = State::Ready { since: now, used: now, calls: 0 };
                    self.note_start_time(now.saturating_duration_since(at));
                }
            }
            Event::StartFailed(id) => {
                if self.instances.remove(&id).is_some() {
                    self.health.start_failed(now);
                }
            }
            Event::Lost(id, death) => {
                if let Some(State::Ready { since, .. }) = self.instances.remove(&id) {
                    self.health.died(death, since, now);
                }
            }
            Event::Condemned(id) => drop(self.instances.remove(&id)),
        }
        self.look(load, now)
    }

    /// Notes how much the ready instances, whose uses these are, have computed lately: the next look heeds it.
    pub(crate) fn note_effort(&mut self, effort: &Effort, uses: &[Use]) {
        let answers = uses.iter().map(|it| it.calls.saturating_sub(it.in_flight as u64)).sum();
        self.strain.note(effort, answers, self.instances.len());
    }

    /// What `load` calls for. To be called at [`Plan::next_look`], and when calls begin after a pause.
    pub(crate) fn look(&mut self, load: &Load<'_>, now: Instant) -> Vec<Action> {
        let (in_flight, new_calls) = self.note_uses(load.instances, now);
        let busy = in_flight + load.queued;
        self.active = busy > 0 || new_calls > 0;
        self.average.add(busy, now);
        if !self.active {
            self.strain.clear();
            if self.is_forgotten(now) {
                self.average = Average::default();
            }
        }
        self.impatient = load.head_since.map(|since| since + self.start_time.unwrap_or_default());
        self.want = self.wanted(load, busy, now);
        let mut actions = self.fill(now);
        self.shrink(now, &mut actions);
        actions
    }

    /// When to look again even if nothing happens; `None`: never.
    pub(crate) fn next_look(&self, now: Instant) -> Option<Instant> {
        let tick = self.active.then(|| now + TICK);
        let expiries = self.ready().map(|(_, _, used)| used + self.bounds.keep_alive);
        let expiry = if self.ready().count() > self.bounds.min { expiries.filter(|at| *at > now).min() } else { None };
        let proof = self.ready().filter_map(|(_, since, _)| self.health.stable_at(since)).filter(|at| *at > now).min();
        let impatient = self.impatient.filter(|at| *at > now);
        [tick, expiry, proof, impatient].into_iter().flatten().min()
    }

    /// Whether the last look found calls.
    pub(crate) fn is_active(&self) -> bool {
        self.active
    }

    /// Calls that have reached its instances, as far as it knows.
    pub(crate) fn calls(&self) -> u64 {
        let calls = self.instances.values().map(|state| match state {
            State::Ready { calls, .. } => *calls,
            State::Starting { .. } => 0,
        });
        calls.sum()
    }

    /// Instances it would have if all starts went well.
    pub(crate) fn want(&self) -> usize {
        self.want
    }

    /// Whether the instances compute too much for one, so that calls have to be spread evenly.
    pub(crate) fn is_spread(&self) -> bool {
        self.strain.is_spread()
    }

    /// Whether they compute as much as they can, and no other instance could help.
    pub(crate) fn is_exhausted(&self) -> bool {
        let is_at_most = self.ready().count() >= self.bounds.max;
        self.strain.is_high() && (is_at_most || self.strain.is_machine_full())
    }

    /// Instances that start, or wait to.
    pub(crate) fn starting(&self) -> usize {
        self.instances.len() - self.ready().count()
    }

    /// How long a start takes, on average.
    pub(crate) fn start_time(&self) -> Option<Duration> {
        self.start_time
    }

    /// Whether calls are refused because instances keep failing.
    pub(crate) fn circuit(&self, now: Instant) -> Circuit {
        if !self.health.is_open() {
            return Circuit::Closed;
        }
        if self.ready().next().is_some() {
            return Circuit::HalfOpen;
        }
        let starts = self.instances.values().filter_map(|state| match state {
            State::Starting { at } => Some(*at),
            State::Ready { .. } => None,
        });
        let until = starts.min().or(self.health.not_before()).unwrap_or(now);
        if until > now { Circuit::Open { until } } else { Circuit::HalfOpen }
    }

    /// How often in a row instances failed.
    pub(crate) fn failures(&self) -> u32 {
        self.health.failures()
    }

    /// Whether new instances should take one call at a time until they have answered one.
    pub(crate) fn on_probation(&self) -> bool {
        self.health.on_probation()
    }

    fn ready(&self) -> impl Iterator<Item = (Id, Instant, Instant)> {
        self.instances.iter().filter_map(|(id, state)| match state {
            State::Ready { since, used, .. } => Some((*id, *since, *used)),
            State::Starting { .. } => None,
        })
    }

    fn note_start_time(&mut self, took: Duration) {
        // The last few starts say best how long the next one takes.
        self.start_time = Some(self.start_time.map_or(took, |average| (average * 3 + took) / 4));
    }

    /// Takes down who was used; returns calls in flight and calls that came since the last look.
    fn note_uses(&mut self, uses: &[Use], now: Instant) -> (usize, u64) {
        let (mut in_flight, mut new_calls) = (0, 0);
        for it in uses {
            // One that is being stopped has calls to end, but is no part of the pool.
            let Some(State::Ready { since, used, calls }) = self.instances.get_mut(&it.id) else { continue };
            in_flight += it.in_flight;
            let new = it.calls.saturating_sub(*calls);
            new_calls += new;
            *calls = it.calls;
            if it.in_flight > 0 || new > 0 {
                *used = now;
            }
            let since = *since;
            self.health.look(it.answered, since, now);
        }
        (in_flight, new_calls)
    }

    /// Whether nobody has called for so long that past load says nothing about the next calls.
    fn is_forgotten(&self, now: Instant) -> bool {
        self.starting() == 0 && self.ready().all(|(_, _, used)| used + self.bounds.keep_alive <= now)
    }

    fn wanted(&self, load: &Load<'_>, busy: usize, now: Instant) -> usize {
        let Bounds { min, max, concurrency, .. } = self.bounds;
        let ready = self.ready().count();
        let mut want = self.carrying(self.average.busy()).max(self.strain.want());
        let waits_long = self.impatient.is_some_and(|at| at <= now);
        if waits_long || (load.queued > 0 && ready == 0) {
            want = want.max(busy.div_ceil(concurrency));
        }
        want.clamp(min, max)
    }

    /// Instances that carry so many calls at once.
    fn carrying(&self, busy: f64) -> usize {
        (busy / (UTILISATION * self.bounds.concurrency as f64)).ceil() as usize
    }

    fn fill(&mut self, now: Instant) -> Vec<Action> {
        let mut missing = self.want.saturating_sub(self.instances.len());
        if self.health.is_failing() {
            // Whether it works is found out with one at a time.
            missing = missing.min(1_usize.saturating_sub(self.starting()));
        }
        let at = self.health.not_before().map_or(now, |at| at.max(now));
        let start = |_| {
            let id = self.next;
            self.next += 1;
            self.instances.insert(id, State::Starting { at });
            Action::Start(id, at)
        };
        (0..missing).map(start).collect()
    }

    /// Stops what is wanted neither by callers nor by the bounds, the least recently used first.
    fn shrink(&mut self, now: Instant, actions: &mut Vec<Action>) {
        let mut ready: Vec<_> = self.ready().map(|(id, _, used)| (used, id)).collect();
        let surplus = ready.len().saturating_sub(self.want.max(self.carrying(self.average.busy() * SLACK)));
        // Of those that were never used, the newest: the oldest one comes first for callers.
        ready.sort_by(|(a_used, a), (b_used, b)| a_used.cmp(b_used).then(b.cmp(a)));
        let expired = ready.into_iter().take(surplus).filter(|(used, _)| *used + self.bounds.keep_alive <= now);
        for (_, id) in expired {
            self.instances.remove(&id);
            actions.push(Action::Stop(id));
        }
    }
}
