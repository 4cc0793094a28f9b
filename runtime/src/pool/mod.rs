//! The instances of one app and language on this node, as everybody may see them.
//!
//! One task owns a pool ([`supervise`]); threads that call share this struct with it. A call that finds an instance
//! with room and no queue reads two flags of it, and writes nothing.

mod effort;
mod owned;
pub(crate) mod plan;
pub(crate) mod queue;
mod status;
pub(crate) mod supervise;

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{
            AtomicBool, AtomicU32, AtomicU64,
            Ordering::{Relaxed, SeqCst},
        },
    },
    time::{Duration, Instant},
};

use fnmesh_invoke::{Deadline, Error, Language};
pub(crate) use plan::Bounds;
use queue::{Full, Place, Queue, Turn};
use status::{ColdStarts, Published};
use tokio::sync::{Notify, Semaphore};

use crate::{instance::Instance, logs};

/// What `Retry-After` says at least, and where nothing better is known.
const RETRY_SOON: Duration = Duration::from_secs(1);
/// What `Retry-After` says at most: whatever is the matter now may have changed by then.
const RETRY_LATE: Duration = Duration::from_secs(60);

/// Facts and counters of one pool.
pub(crate) struct Pool {
    pub(crate) id: u32,
    pub(crate) app: Arc<str>,
    pub(crate) language: Language,
    pub(crate) bounds: Bounds,
    max_queue_bytes: usize,
    queue: Queue,
    /// Set while nobody looks at the load: the next call rings.
    asleep: AtomicBool,
    /// Set while the line is empty as far as the owner knows: the next call that joins it rings.
    armed: AtomicBool,
    /// Wakes the owner.
    bell: Notify,
    /// Set while there are as many instances as there may be.
    is_at_most: AtomicBool,
    /// Set while calls are to be spread evenly.
    is_spread: AtomicBool,
    /// Set while all instances compute as much as they can, and no other could help.
    is_exhausted: AtomicBool,
    /// Whether new instances take one call at a time until they have answered one.
    on_probation: AtomicBool,
    published: Mutex<Published>,
    instances: Mutex<BTreeMap<u32, Arc<Instance>>>,
    /// Per function: how many calls may be in flight, where its manifest says so.
    gates: OnceLock<Vec<Option<Arc<Semaphore>>>>,
    pub(crate) logs: logs::Budget,
    started: AtomicU64,
    lost: AtomicU64,
    /// Process id of what makes the next instance start quickly; 0 without.
    standby: AtomicU32,
    cold_starts: Mutex<ColdStarts>,
}

impl Pool {
    pub(crate) fn new(id: u32, app: Arc<str>, language: Language, bounds: Bounds, max_queue_bytes: usize) -> Self {
        Self {
            id,
            app,
            language,
            bounds,
            max_queue_bytes,
            queue: Queue::new(queue::Limits {
                calls: bounds.queue,
                quick_calls: bounds.quick_queue,
                bytes: max_queue_bytes,
            }),
            asleep: AtomicBool::new(false),
            armed: AtomicBool::new(false),
            bell: Notify::new(),
            is_at_most: AtomicBool::new(false),
            is_spread: AtomicBool::new(false),
            is_exhausted: AtomicBool::new(false),
            on_probation: AtomicBool::new(false),
            published: Mutex::default(),
            instances: Mutex::default(),
            gates: OnceLock::new(),
            logs: logs::Budget::default(),
            started: AtomicU64::new(0),
            lost: AtomicU64::new(0),
            standby: AtomicU32::new(0),
            cold_starts: Mutex::default(),
        }
    }

    /// The calls that wait.
    pub(crate) fn queue(&self) -> &Queue {
        &self.queue
    }

    /// Calls that one instance may have in flight while it has not answered any.
    pub(crate) fn first_limit(&self) -> usize {
        if self.on_probation.load(SeqCst) { 1 } else { self.bounds.concurrency }
    }

    /// To be called with each call, once it is counted on its instance: nobody looks at an idle pool.
    pub(crate) fn note_call(&self) {
        if self.asleep.load(SeqCst) && self.asleep.swap(false, SeqCst) {
            self.bell.notify_one();
        }
    }

    /// A place to wait with so many bytes of arguments.
    ///
    /// # Errors
    /// [`Error::Throttled`] when no more may wait.
    pub(crate) fn enter(&self, bytes: usize) -> Result<Place<'_>, Error> {
        let now = Instant::now();
        self.queue.enter(bytes, now).map_err(|full| self.refusal(full, now))
    }

    /// A turn in the line of those that wait for room.
    ///
    /// # Errors
    /// [`Error::Throttled`] when the deadline is sure to pass before.
    pub(crate) fn line_up<'a>(&self, place: &Place<'a>, deadline: Deadline) -> Result<Turn<'a>, Error> {
        let now = Instant::now();
        let turn = place.line_up(deadline, now).map_err(|full| self.refusal(full, now))?;
        if self.armed.load(SeqCst) && self.armed.swap(false, SeqCst) {
            self.bell.notify_one();
        }
        Ok(turn)
    }

    fn refusal(&self, full: Full, now: Instant) -> Error {
        let reason = match full {
            Full::Calls(limit) => format!("{limit} calls already wait for app {:?}, the limit", self.app),
            Full::Bytes => {
                let limit = self.max_queue_bytes;
                format!("the arguments of calls that wait for app {:?} reach the limit of {limit} bytes", self.app)
            }
            Full::TooLong(wait) => {
                let wait = wait.as_secs_f64();
                format!("the call would wait for app {:?} for about {wait:.1} s, longer than it may take", self.app)
            }
        };
        let drained = self.queue.drained_in(now).unwrap_or_default();
        Error::Throttled { reason, retry_after: drained.clamp(RETRY_SOON, RETRY_LATE), rate: false }
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

    pub(crate) fn note_ready(&self, instance: Arc<Instance>) {
        self.started.fetch_add(1, Relaxed);
        lock(&self.instances).insert(instance.pid(), instance);
        self.note_capacity();
    }

    pub(crate) fn note_gone(&self, pid: u32) {
        lock(&self.instances).remove(&pid);
        self.note_capacity();
    }

    pub(crate) fn note_lost(&self) {
        self.lost.fetch_add(1, Relaxed);
    }

    /// The zygote or the spare worker there is from now on.
    pub(crate) fn note_standby(&self, pid: Option<u32>) {
        self.standby.store(pid.unwrap_or(0), Relaxed);
    }

    /// Whether one of the instances has room.
    pub(crate) fn has_room(&self) -> bool {
        lock(&self.instances).values().any(|instance| instance.has_room())
    }

    /// Whether no instance is there to serve a call.
    pub(crate) fn is_empty(&self) -> bool {
        lock(&self.instances).is_empty()
    }

    /// A call has waited so long because no instance was there.
    pub(crate) fn note_cold_start(&self, waited: Duration) {
        lock(&self.cold_starts).add(waited);
    }

    fn note_capacity(&self) {
        let instances = lock(&self.instances).len();
        self.is_at_most.store(instances >= self.bounds.max, Relaxed);
        self.queue.set_capacity(instances * self.bounds.concurrency, Instant::now());
    }

    /// Whether its instances compute too much for one: a call is better off at the least busy one.
    pub(crate) fn is_spread(&self) -> bool {
        self.is_spread.load(Relaxed)
    }

    /// Whether calls wait, in line or for a core, and no more instances can start.
    pub(crate) fn is_saturated(&self) -> bool {
        self.is_exhausted.load(Relaxed) || (self.queue.has_line() && self.is_at_most.load(Relaxed))
    }

    /// The calls that run and wait, and how many can run at a time: where cores are what is short, one in each instance.
    pub(crate) fn occupancy(&self) -> (usize, usize) {
        let instances = lock(&self.instances);
        let in_flight: usize = instances.values().map(|instance| instance.in_flight()).sum();
        let at_a_time = if self.is_exhausted.load(Relaxed) { 1 } else { self.bounds.concurrency };
        (in_flight + self.queue.length().calls, instances.len() * at_a_time)
    }

    /// How many calls have reached the instances that are there now.
    pub(crate) fn calls(&self) -> u64 {
        lock(&self.instances).values().map(|instance| instance.calls()).sum()
    }
}

/// Locks a mutex whose data stay valid even if a holder panicked.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
