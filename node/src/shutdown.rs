//! How a node is told to stop.

use std::{convert::Infallible, io};

use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::watch,
};

/// How much of a node is wanted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Phase {
    /// All of it.
    #[default]
    Serve,
    /// Only the calls in flight.
    Drain,
    /// Nothing.
    Stop,
}

/// Asks a node to stop; what was asked for once stays asked for.
#[derive(Clone, Debug, Default)]
pub(crate) struct Switch(watch::Sender<Phase>);

impl Switch {
    /// Moves on to `phase`; never back.
    pub(crate) fn ask(&self, phase: Phase) {
        self.0.send_if_modified(|current| {
            let moves = *current < phase;
            *current = phase.max(*current);
            moves
        });
    }

    /// Waits until at least `phase` was asked for.
    pub(crate) async fn asked(&self, phase: Phase) {
        // The sender lives as long as this, so there is no other way to end than the phase.
        let _ = self.0.subscribe().wait_for(|current| *current >= phase).await;
    }
}

/// SIGTERM and SIGINT: the first one drains, the second one stops.
#[derive(Debug)]
pub(crate) struct Signals {
    terminate: Signal,
    interrupt: Signal,
    first: Option<SignalKind>,
}

impl Signals {
    /// Takes the signals over, from now on, for the rest of the process's life.
    ///
    /// # Errors
    /// When the system refuses the handlers.
    pub(crate) fn install() -> io::Result<Self> {
        let [terminate, interrupt] = [SignalKind::terminate(), SignalKind::interrupt()].map(signal);
        Ok(Self { terminate: terminate?, interrupt: interrupt?, first: None })
    }

    /// Turns signals into phases; never returns.
    pub(crate) async fn forward(&mut self, switch: Switch) -> Infallible {
        let mut next = Phase::Drain;
        loop {
            let kind = tokio::select! {
                _ = self.terminate.recv() => SignalKind::terminate(),
                _ = self.interrupt.recv() => SignalKind::interrupt(),
            };
            self.first.get_or_insert(kind);
            switch.ask(next);
            next = Phase::Stop;
        }
    }

    /// The first one that came, if any did.
    pub(crate) fn first(&self) -> Option<SignalKind> {
        self.first
    }
}

#[cfg(test)]
mod tests {
    use std::{
        future::{Future as _, poll_fn},
        pin::pin,
        task::Poll,
    };

    use super::*;

    #[tokio::test]
    async fn phases_only_move_forward() {
        let switch = Switch::default();
        switch.ask(Phase::Stop);
        switch.ask(Phase::Drain);
        switch.asked(Phase::Drain).await;
        switch.asked(Phase::Stop).await;
    }

    #[tokio::test]
    async fn waits_for_the_phase_it_names() {
        let switch = Switch::default();
        let mut wait = pin!(switch.asked(Phase::Stop));
        switch.ask(Phase::Drain);
        assert!(poll_fn(|context| Poll::Ready(wait.as_mut().poll(context))).await.is_pending());
        switch.ask(Phase::Stop);
        wait.await;
    }
}
