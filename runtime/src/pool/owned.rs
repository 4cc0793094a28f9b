//! What the owner of a pool knows of one instance.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::sync::oneshot;

use super::effort::{self, Meter};
use crate::{instance::Instance, worker::turns::Turns};

/// Calls are counted for at least so long before that says how many come.
const COUNT: Duration = Duration::from_millis(100);

/// An instance that is part of the pool.
pub(super) struct Owned {
    /// Dropped, it lets the instance finish its calls and stop.
    _stop: oneshot::Sender<()>,
    /// Once it is ready.
    instance: Option<Arc<Instance>>,
    /// Runs while it computes.
    meter: Meter,
    /// How much that was when it was last looked at; `None` where nobody knows.
    cores: Option<f64>,
    /// How its worker runs beside others.
    turns: Turns,
    /// The calls it had when that was looked at.
    counted: Option<(Instant, u64)>,
}

impl Owned {
    pub(super) fn new(stop: oneshot::Sender<()>) -> Self {
        let (meter, turns) = (Meter::default(), Turns::default());
        Self { _stop: stop, instance: None, meter, cores: None, turns, counted: None }
    }

    pub(super) fn note_ready(&mut self, instance: Arc<Instance>) {
        self.instance = Some(instance);
    }

    /// Once it is ready.
    pub(super) fn instance(&self) -> Option<&Arc<Instance>> {
        self.instance.as_ref()
    }

    /// On how much of a core it has computed since the last time. `None` until it is ready.
    pub(super) fn measure(&mut self, now: Instant) -> Option<Option<f64>> {
        let pid = self.instance.as_ref()?.pid();
        self.cores = self.meter.cores(effort::used_by(pid), now);
        Some(self.cores)
    }

    /// Gives its worker the turns that become its load.
    pub(super) fn give_turns(&mut self, now: Instant) {
        let Some(instance) = &self.instance else { return };
        let calls = instance.calls();
        let Some((at, before)) = self.counted else { return self.counted = Some((now, calls)) };
        let passed = now.saturating_duration_since(at);
        if passed < COUNT {
            return;
        }
        self.counted = Some((now, calls));
        let calls_per_second = (calls - before) as f64 / passed.as_secs_f64();
        self.change_turns(self.turns.at(calls_per_second, self.cores.unwrap_or(0.0)));
    }

    /// Nobody calls it, and nobody will look until somebody does.
    pub(super) fn rest(&mut self) {
        (self.cores, self.counted) = (None, None);
        self.change_turns(Turns::Prompt);
    }

    fn change_turns(&mut self, turns: Turns) {
        if let Some(instance) = &self.instance
            && self.turns != turns
        {
            turns.give(instance.pid());
            self.turns = turns;
        }
    }
}
