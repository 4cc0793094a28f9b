//! One started copy of an app's code in one language: what calling threads share about it.
//!
//! Its life is the task in [`life`]; calls are counted here, so that its owner knows when it is idle.

mod control;
pub(crate) mod life;
mod pipes;

use std::sync::{
    Arc, OnceLock,
    atomic::{
        AtomicBool, AtomicUsize,
        Ordering::{Relaxed, SeqCst},
    },
};

use tokio::sync::{Notify, watch};

use crate::pool::Pool;

/// Counters and signals of one instance.
pub(crate) struct Instance {
    pool: Arc<Pool>,
    /// Calls its worker has.
    in_flight: AtomicUsize,
    /// Those of them whose caller no longer waits.
    abandoned: AtomicUsize,
    called: AtomicBool,
    /// Set while somebody waits for `idle`.
    retiring: AtomicBool,
    idle: Notify,
    condemned: OnceLock<String>,
    condemn: Notify,
    exited: watch::Sender<Option<String>>,
}

impl Instance {
    pub(crate) fn new(pool: Arc<Pool>) -> Self {
        Self {
            pool,
            in_flight: AtomicUsize::new(0),
            abandoned: AtomicUsize::new(0),
            called: AtomicBool::new(false),
            retiring: AtomicBool::new(false),
            idle: Notify::new(),
            condemned: OnceLock::new(),
            condemn: Notify::new(),
            exited: watch::Sender::new(None),
        }
    }

    pub(crate) fn pool(&self) -> &Arc<Pool> {
        &self.pool
    }

    /// Calls its worker has.
    pub(crate) fn in_flight(&self) -> usize {
        self.in_flight.load(SeqCst)
    }

    /// Whether a call ever reached it.
    fn called(&self) -> bool {
        self.called.load(Relaxed)
    }

    /// Counts one more call, if it has room for one.
    pub(crate) fn begin(&self) -> bool {
        if !self.called.load(Relaxed) {
            self.called.store(true, Relaxed);
        }
        if self.in_flight.fetch_add(1, SeqCst) < self.pool.concurrency {
            return true;
        }
        self.in_flight.fetch_sub(1, SeqCst);
        false
    }

    /// Uncounts a call its worker answered.
    pub(crate) fn end(&self, was_abandoned: bool) {
        if was_abandoned {
            self.abandoned.fetch_sub(1, SeqCst);
        }
        self.in_flight.fetch_sub(1, SeqCst);
        self.pool.wake_one();
        self.note_idle();
    }

    /// The caller of one of its calls no longer waits.
    pub(crate) fn abandon(&self) {
        self.abandoned.fetch_add(1, SeqCst);
        self.note_idle();
    }

    /// Asks for it to be replaced: new calls go elsewhere, and it is killed once nobody waits for it.
    pub(crate) fn condemn(&self, reason: String) {
        if self.condemned.set(reason).is_ok() {
            self.condemn.notify_one();
        }
    }

    /// Resolves when it was condemned, with why. Only its owner waits.
    pub(crate) async fn condemned(&self) -> &str {
        loop {
            if let Some(reason) = self.condemned.get() {
                return reason;
            }
            self.condemn.notified().await;
        }
    }

    /// Its process has ended so.
    pub(crate) fn note_exited(&self, reason: impl Into<String>) {
        self.exited.send_replace(Some(reason.into()));
    }

    /// Resolves when its process has ended, with how.
    pub(crate) async fn exited(&self) -> String {
        let mut exited = self.exited.subscribe();
        let reason = exited.wait_for(Option::is_some).await.expect("self holds the sender");
        reason.clone().expect("waited for")
    }

    fn note_idle(&self) {
        if self.retiring.load(SeqCst) {
            self.idle.notify_one();
        }
    }

    /// Resolves when no caller waits for it. Only its owner waits.
    pub(crate) async fn idle(&self) {
        self.retiring.store(true, SeqCst);
        while self.in_flight.load(SeqCst) > self.abandoned.load(SeqCst) {
            self.idle.notified().await;
        }
    }
}
