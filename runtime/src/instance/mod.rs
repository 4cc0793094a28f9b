//! One started copy of an app's code in one language: what calling threads share about it.
//!
//! Its life is the task in [`life`]; calls are counted here, so that its owner knows when it is idle.

mod bounds;
mod control;
pub(crate) mod life;
mod pipes;
pub(crate) mod stock;
pub(crate) mod zygote;

use std::{
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{
            AtomicBool, AtomicU16, AtomicU64, AtomicUsize,
            Ordering::{Relaxed, SeqCst},
        },
    },
    time::Instant,
};

pub(crate) use bounds::Penalty;
use fnmesh_invoke::{InstanceState, InstanceStatus};
use tokio::sync::{Notify, watch};

use crate::{
    pool::{Pool, plan::Death},
    worker::process,
};

/// Calls that one thread has sent to an instance. Written by that thread alone, on cache lines of its own.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn add_one(&self) {
        // Not `fetch_add`, which locks the bus: there is one writer.
        self.0.store(self.0.load(Relaxed) + 1, Relaxed);
    }
}

/// Counters and signals of one instance.
pub(crate) struct Instance {
    pool: Arc<Pool>,
    pid: u32,
    since: Instant,
    /// Calls its worker has.
    in_flight: AtomicUsize,
    /// Calls it may have.
    limit: AtomicUsize,
    answered: AtomicBool,
    /// The function that was called last before the first answer.
    function: AtomicU16,
    /// Calls of those in flight whose caller no longer waits.
    abandoned: AtomicUsize,
    /// One for each channel.
    counters: Mutex<Vec<Arc<Counter>>>,
    memory_bytes: AtomicU64,
    /// Set while somebody waits for `idle`.
    retiring: AtomicBool,
    idle: Notify,
    condemned: OnceLock<String>,
    condemn: Notify,
    exited: watch::Sender<Option<String>>,
}

impl Instance {
    pub(crate) fn new(pool: Arc<Pool>, pid: u32) -> Self {
        Self {
            pid,
            since: Instant::now(),
            in_flight: AtomicUsize::new(0),
            limit: AtomicUsize::new(pool.first_limit()),
            pool,
            answered: AtomicBool::new(false),
            function: AtomicU16::new(0),
            abandoned: AtomicUsize::new(0),
            counters: Mutex::default(),
            memory_bytes: AtomicU64::new(0),
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

    /// Of its worker.
    pub(crate) fn pid(&self) -> u32 {
        self.pid
    }

    /// Calls its worker has.
    pub(crate) fn in_flight(&self) -> usize {
        self.in_flight.load(SeqCst)
    }

    /// Calls that have reached it; as of the last one of each thread that the caller has synchronised with.
    pub(crate) fn calls(&self) -> u64 {
        let counters = self.counters.lock().unwrap_or_else(PoisonError::into_inner);
        counters.iter().map(|counter| counter.0.load(Relaxed)).sum()
    }

    /// Where a channel counts its calls.
    pub(crate) fn counter(&self) -> Arc<Counter> {
        let counter = Arc::<Counter>::default();
        self.counters.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::clone(&counter));
        counter
    }

    /// Whether its worker has answered a call.
    pub(crate) fn has_answered(&self) -> bool {
        self.answered.load(Relaxed)
    }

    /// Whether there is room for one more call.
    pub(crate) fn has_room(&self) -> bool {
        self.room() > 0
    }

    /// Calls there is room for.
    pub(crate) fn room(&self) -> usize {
        self.limit.load(Relaxed).saturating_sub(self.in_flight())
    }

    /// Counts one more call, of this function, if it has room for one.
    pub(crate) fn begin(&self, function: u16) -> bool {
        if !self.answered.load(Relaxed) {
            self.function.store(function, Relaxed);
        }
        // One that is too many is never counted, not even for a moment: giving it back would wake a call
        // that waits, for nothing.
        let limit = self.limit.load(Relaxed);
        self.in_flight.fetch_update(SeqCst, SeqCst, |count| (count < limit).then_some(count + 1)).is_ok()
    }

    /// Uncounts a call its worker answered.
    pub(crate) fn end(&self, was_abandoned: bool) {
        if !self.answered.load(Relaxed) {
            self.note_first_answer();
        }
        self.lose(was_abandoned);
    }

    /// Uncounts a call that died with its worker.
    pub(crate) fn lose(&self, was_abandoned: bool) {
        if was_abandoned {
            self.abandoned.fetch_sub(1, SeqCst);
        }
        self.give_back();
        self.note_idle();
    }

    fn give_back(&self) {
        self.in_flight.fetch_sub(1, SeqCst);
        if self.pool.queue().has_line() {
            self.pool.queue().wake_one();
        }
    }

    fn note_first_answer(&self) {
        self.answered.store(true, Relaxed);
        let concurrency = self.pool.bounds.concurrency;
        if self.limit.swap(concurrency, Relaxed) < concurrency {
            self.pool.queue().wake_many(concurrency);
        }
    }

    /// What its death means, if it is dead now.
    pub(crate) fn death(&self) -> Death {
        let (in_flight, answered) = (self.in_flight(), self.has_answered());
        Death { in_flight, answered, function: self.function.load(Relaxed) }
    }

    /// Looks at the memory of its worker.
    pub(crate) fn note_memory(&self) {
        self.memory_bytes.store(process::memory_bytes(self.pid).unwrap_or(0), Relaxed);
    }

    pub(crate) fn status(&self, now: Instant) -> InstanceStatus {
        let state = if self.condemned.get().is_some() {
            InstanceState::Condemned
        } else if self.retiring.load(SeqCst) {
            InstanceState::Draining
        } else {
            InstanceState::Ready
        };
        InstanceStatus {
            pid: self.pid,
            state,
            in_flight: self.in_flight(),
            calls: self.calls(),
            age_s: now.saturating_duration_since(self.since).as_secs(),
            memory_bytes: Some(self.memory_bytes.load(Relaxed)).filter(|bytes| *bytes > 0),
        }
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
