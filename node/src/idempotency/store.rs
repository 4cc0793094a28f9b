use std::{
    path::Path,
    sync::{Arc, Mutex, MutexGuard, Once, PoisonError},
};

use fnmesh_invoke::Deadline;
use tokio::{
    sync::{oneshot, watch},
    time::timeout_at,
};

use super::{
    answer::{Answer, Identity},
    disk::{Disk, Record},
    index::{Bounds, Ended, Found, Index, Place},
};

/// The largest answer that is stored, in bytes.
pub(super) const MAX_ANSWER_BYTES: usize = 1024 * 1024;
/// What an answer takes beside its own bytes, about.
const OVERHEAD_BYTES: usize = 128;

/// The answers of one node's calls with a key; all of its gateway threads share it.
#[derive(Debug)]
pub(crate) struct Store {
    index: Arc<Mutex<Index>>,
    /// Without one they are in memory.
    disk: Option<Disk>,
}

/// What is to be done about a call.
pub(super) enum Begun {
    /// It is to be run; others wait for that.
    Run(Run),
    /// It runs.
    Running(watch::Receiver<Option<Ended>>),
    /// It has run, with this answer.
    Stored(Place),
    /// Its arguments are not those it came with first.
    OtherArguments,
}

impl Store {
    /// Keeps answers below `data`, where that works, else in memory. Waits for the disk.
    pub(crate) fn open(data: Option<&Path>) -> Arc<Self> {
        let Some(data) = data else { return Arc::new(Self::in_memory(Bounds::MEMORY)) };
        let index = Arc::new(Mutex::new(Index::new(Bounds::DISK)));
        match Disk::start(data, Arc::clone(&index), super::unix_ms()) {
            Ok(disk) => Arc::new(Self { index, disk: Some(disk) }),
            Err(error) => {
                tracing::warn!(
                    target: "fnmesh::node", %error, directory = %data.display(),
                    "answers of calls with an Idempotency-Key are kept in memory only: they do not survive this node"
                );
                Arc::new(Self::in_memory(Bounds::MEMORY))
            }
        }
    }

    pub(super) fn in_memory(bounds: Bounds) -> Self {
        Self { index: Arc::new(Mutex::new(Index::new(bounds))), disk: None }
    }

    pub(super) fn begin(self: &Arc<Self>, id: Identity, now_ms: u64) -> Begun {
        let ended = watch::Sender::new(None);
        match lock(&self.index).begin(id, &ended, now_ms) {
            Found::New(run) => Begun::Run(Run { store: Arc::clone(self), id, run, ended }),
            Found::Running(ended) => Begun::Running(ended),
            Found::Stored(place) => Begun::Stored(place),
            Found::OtherArguments => Begun::OtherArguments,
        }
    }

    /// A stored answer; `None` where it cannot be read any more, and is forgotten.
    pub(super) async fn read(&self, id: Identity, place: Place) -> Option<Arc<Answer>> {
        match (place, &self.disk) {
            (Place::Memory(answer), _) => Some(answer),
            (Place::Row(row), Some(disk)) => {
                let answer = disk.read(row).await;
                if answer.is_none() {
                    lock(&self.index).lose(id, row);
                }
                answer.map(Arc::new)
            }
            (Place::Row(_), None) => None,
        }
    }
}

/// One run of a call, for which others may wait. Dropped without an end it is as if it had never begun: one of those
/// who wait runs it.
pub(super) struct Run {
    store: Arc<Store>,
    id: Identity,
    run: u64,
    ended: watch::Sender<Option<Ended>>,
}

impl Run {
    /// Stores the answer; returns when it is, or cannot be, or at the deadline.
    pub(super) async fn keep(&self, answer: &Arc<Answer>, deadline: Deadline, now_ms: u64) {
        if answer.bytes() > MAX_ANSWER_BYTES {
            return;
        }
        match &self.store.disk {
            Some(disk) => {
                let (stored, told) = oneshot::channel();
                let answer = Arc::clone(answer);
                disk.keep(Record { id: self.id, run: self.run, stored_ms: now_ms, answer, stored });
                // Who waits gets the answer in any case.
                let _ = timeout_at(deadline.instant().into(), told).await;
            }
            None => {
                let mut index = lock(&self.store.index);
                let bytes = cost(answer) as u64;
                if index.make_room(1, bytes, now_ms) {
                    warn_of_early();
                }
                let row = index.next_row();
                index.keep(self.id, Some(self.run), (row, bytes, now_ms), Some(Arc::new(answer.compact())));
            }
        }
    }

    /// Tells those who wait.
    pub(super) fn end(self, ended: Ended) {
        // First: who sees the end and asks again must not find it running.
        lock(&self.store.index).end(self.id, self.run);
        self.ended.send_replace(Some(ended));
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        lock(&self.store.index).end(self.id, self.run);
    }
}

/// Says once that there are more answers than the bounds allow.
pub(super) fn warn_of_early() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        tracing::warn!(
            target: "fnmesh::node",
            "so many calls have an Idempotency-Key that their oldest answers go before 24 hours are over"
        );
    });
}

/// Bytes that an answer takes in the store.
pub(super) fn cost(answer: &Answer) -> usize {
    answer.bytes() + OVERHEAD_BYTES
}

/// Nothing that is done under the lock panics halfway.
pub(super) fn lock(index: &Mutex<Index>) -> MutexGuard<'_, Index> {
    index.lock().unwrap_or_else(PoisonError::into_inner)
}
