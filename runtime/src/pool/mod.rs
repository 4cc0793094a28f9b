//! The instances of one app and language on this node, as everybody may see them.
//!
//! One task owns a pool ([`supervise`]); threads that call share this struct of atomics with it.

pub(crate) mod plan;
pub(crate) mod supervise;

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use fnmesh_invoke::{Error, Failure, Language, PoolStatus};
use tokio::sync::{Notify, Semaphore};

use crate::instance::Instance;

/// Facts and counters of one pool.
pub(crate) struct Pool {
    pub(crate) id: u32,
    pub(crate) app: Arc<str>,
    pub(crate) language: Language,
    /// Calls in flight in one instance at most.
    pub(crate) concurrency: usize,
    max_queue: usize,
    queued: AtomicUsize,
    /// Wakes calls that wait for an instance with room.
    room: Notify,
    /// Why the last start failed; cleared by the next good one.
    failure: Mutex<Option<Failure>>,
    instances: Mutex<BTreeMap<u32, Arc<Instance>>>,
    /// Per function: how many calls may be in flight, where its manifest says so.
    gates: OnceLock<Vec<Option<Arc<Semaphore>>>>,
    started: AtomicU64,
    lost: AtomicU64,
}

impl Pool {
    pub(crate) fn new(id: u32, app: Arc<str>, language: Language, concurrency: usize, max_queue: usize) -> Self {
        Self {
            id,
            app,
            language,
            concurrency,
            max_queue,
            queued: AtomicUsize::new(0),
            room: Notify::new(),
            failure: Mutex::default(),
            instances: Mutex::default(),
            gates: OnceLock::new(),
            started: AtomicU64::new(0),
            lost: AtomicU64::new(0),
        }
    }

    /// Whether calls are waiting; newcomers then wait behind them.
    pub(crate) fn has_queue(&self) -> bool {
        self.queued.load(SeqCst) > 0
    }

    /// Tells one waiting call that there may be room.
    pub(crate) fn wake_one(&self) {
        if self.has_queue() {
            self.room.notify_one();
        }
    }

    /// Tells all waiting calls to look again.
    pub(crate) fn wake_all(&self) {
        self.room.notify_waiters();
    }

    /// A place in the queue.
    ///
    /// # Errors
    /// [`Error::Throttled`] when the queue is full.
    pub(crate) fn enqueue(&self) -> Result<Queued<'_>, Error> {
        let queued = Queued { pool: self };
        if self.queued.fetch_add(1, SeqCst) < self.max_queue {
            return Ok(queued);
        }
        Err(Error::Throttled {
            reason: format!("{} calls already wait for app {:?}, the limit", self.max_queue, self.app),
            retry_after: Duration::from_secs(1),
            rate: false,
        })
    }

    /// The limit on calls in flight of function `index`, if its manifest sets one.
    pub(crate) fn gate(&self, index: u16) -> Option<&Arc<Semaphore>> {
        self.gates.get()?.get(usize::from(index))?.as_ref()
    }

    pub(crate) fn set_gates(&self, limits: impl Iterator<Item = Option<u32>>) {
        let gates = limits.map(|limit| limit.map(|limit| Arc::new(Semaphore::new(limit as usize)))).collect();
        // Functions of a pool do not change: a second call could only say the same.
        let _ = self.gates.set(gates);
    }

    /// Why calls cannot be served, while no instance is there and the last start failed.
    pub(crate) fn failure(&self) -> Option<Error> {
        if !lock(&self.instances).is_empty() {
            return None;
        }
        let failure = Box::new(lock(&self.failure).clone()?);
        Some(Error::StartFailed { app: self.app.to_string(), failure })
    }

    pub(crate) fn note_ready(&self, pid: u32, instance: Arc<Instance>) {
        self.started.fetch_add(1, SeqCst);
        *lock(&self.failure) = None;
        lock(&self.instances).insert(pid, instance);
    }

    fn note_start_failed(&self, failure: Failure) {
        *lock(&self.failure) = Some(failure);
        self.wake_all();
    }

    pub(crate) fn note_gone(&self, pid: u32) {
        lock(&self.instances).remove(&pid);
    }

    pub(crate) fn note_lost(&self) {
        self.lost.fetch_add(1, SeqCst);
    }

    pub(crate) fn status(&self) -> PoolStatus {
        let instances = lock(&self.instances);
        PoolStatus {
            language: self.language,
            pids: instances.keys().copied().collect(),
            in_flight: instances.values().map(|instance| instance.in_flight()).sum(),
            queued: self.queued.load(SeqCst),
            started: self.started.load(SeqCst),
            lost: self.lost.load(SeqCst),
        }
    }
}

/// Locks a mutex whose data stay valid even if a holder panicked.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A place in a pool's queue; given back on drop.
pub(crate) struct Queued<'a> {
    pool: &'a Pool,
}

impl Queued<'_> {
    /// Resolves when there may be room; enable it before looking.
    pub(crate) fn room(&self) -> tokio::sync::futures::Notified<'_> {
        self.pool.room.notified()
    }
}

impl Drop for Queued<'_> {
    fn drop(&mut self) {
        self.pool.queued.fetch_sub(1, SeqCst);
        // A wake-up meant for this call may be another's.
        self.pool.wake_one();
    }
}
