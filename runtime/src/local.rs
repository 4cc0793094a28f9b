//! The invoker of one calling thread.

mod names;

use std::{
    cell::{Cell, RefCell},
    future::poll_fn,
    rc::Rc,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Instant,
};

use fnmesh_invoke::{AppStatus, Error, Function, Invocation, Invoke, Reply, Room};
use tokio::{
    net::UnixStream,
    sync::{Notify, OwnedSemaphorePermit, mpsc},
    task::{JoinHandle, spawn_local},
    time::timeout_at,
};

use names::Names;

use crate::{
    channel::{Channel, drive},
    instance::Instance,
    pool::{Pool, plan::UTILISATION, queue::Look},
    runtime::Shared,
    threads::Message,
};

/// Calls functions from one thread, over channels of its own. Clones share them.
#[derive(Clone)]
pub struct Local {
    inner: Rc<Inner>,
    /// Keeps the table up to date for as long as a clone is there.
    _updates: Rc<Abort>,
}

struct Abort(JoinHandle<()>);

impl Drop for Abort {
    fn drop(&mut self) {
        self.0.abort();
    }
}

struct Inner {
    shared: Arc<Shared>,
    names: Names,
    /// By pool id; `None` where the pool is closed.
    pools: RefCell<Vec<Option<Rc<LocalPool>>>>,
    opened: Notify,
}

/// A pool as one thread sees it.
struct LocalPool {
    pool: Arc<Pool>,
    /// In the order the instances came, which is the same on all threads.
    channels: RefCell<Vec<Rc<Channel>>>,
    /// Calls in flight up to which an instance is filled before the next one.
    share: usize,
    closed: Cell<bool>,
}

/// Where a call goes, and its permit where its function has a limit of its own.
type Admitted = (Rc<Channel>, Option<OwnedSemaphorePermit>);

/// Why a call did not get to an instance.
enum Refusal {
    /// The app was deployed anew meanwhile: ask for the function again.
    Gone,
    Error(Error),
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        Self::Error(error)
    }
}

impl Local {
    pub(crate) fn new(shared: Arc<Shared>, inbox: mpsc::UnboundedReceiver<Message>) -> Self {
        let inner =
            Rc::new(Inner { shared, names: Names::default(), pools: RefCell::default(), opened: Notify::new() });
        let updates = spawn_local(Rc::clone(&inner).update(inbox));
        Self { inner, _updates: Rc::new(Abort(updates)) }
    }
}

impl Invoke for Local {
    async fn resolve(&self, app: &str, name: &str) -> Result<Arc<Function>, Error> {
        let Inner { shared, names, .. } = &*self.inner;
        if let Some(function) = names.get(shared.generation(), app, name) {
            return Ok(function);
        }
        let function = Box::pin(shared.resolve(app, name)).await?;
        Ok(names.keep(app, name, &function))
    }

    async fn call(&self, mut invocation: Invocation) -> Result<Reply, Error> {
        if self.inner.shared.draining.load(Relaxed) {
            return Err(Error::Draining);
        }
        let (channel, permit) = match self.inner.admit_at_once(&invocation) {
            Some(admitted) => admitted,
            // Boxed, so that a call that need not wait does not carry it along.
            None => Box::pin(self.inner.admit(&mut invocation)).await?,
        };
        channel.call(invocation, permit).await
    }

    fn room(&self, function: &Function) -> Room {
        match self.inner.pools.borrow().get(function.target.pool as usize) {
            Some(None) => Room::Gone,
            Some(Some(local)) if local.pool.is_saturated() => {
                let (calls, capacity) = local.pool.occupancy();
                Room::Full { calls, capacity }
            }
            // A thread that has not heard of the pool yet will.
            Some(Some(_)) | None => Room::Free,
        }
    }

    fn apps(&self) -> Vec<AppStatus> {
        self.inner.shared.apps()
    }
}

impl Inner {
    /// An instance for a call that need not wait, with the call counted on it.
    fn admit_at_once(&self, call: &Invocation) -> Option<Admitted> {
        let pool = self.pool(call.function.target.pool)?.ok()?;
        if pool.pool.queue().has_line() {
            return None;
        }
        let index = call.function.target.index;
        let permit = match pool.pool.gate(index) {
            Some(gate) => Some(Arc::clone(gate).try_acquire_owned().ok()?),
            None => None,
        };
        Some((pool.pick(index)?, permit))
    }

    /// Waits for an instance with room, at most until the deadline, and counts the call on it. Asks for the
    /// function again when its app is deployed anew meanwhile.
    async fn admit(&self, call: &mut Invocation) -> Result<Admitted, Error> {
        let limit = call.deadline.instant().into();
        loop {
            let error = match timeout_at(limit, self.wait(call)).await {
                Ok(Ok(admitted)) => return Ok(admitted),
                Ok(Err(Refusal::Gone)) => {
                    let id = &call.function.id;
                    call.function = self.shared.resolve(&id.app, &id.name).await?;
                    continue;
                }
                Ok(Err(Refusal::Error(error))) => error,
                Err(_) => {
                    let timeout = call.function.limits.timeout;
                    Error::DeadlineExceeded { function: call.function.id.clone(), timeout }
                }
            };
            return Err(error);
        }
    }

    async fn wait(&self, call: &Invocation) -> Result<Admitted, Refusal> {
        let pool = match self.pool(call.function.target.pool) {
            Some(pool) => pool?,
            None => self.wait_for_pool(call.function.target.pool).await?,
        };
        pool.wait(call).await
    }

    /// `None` while this thread has not heard of the pool.
    fn pool(&self, id: u32) -> Option<Result<Rc<LocalPool>, Refusal>> {
        self.pools.borrow().get(id as usize).map(|pool| pool.clone().ok_or(Refusal::Gone))
    }

    async fn wait_for_pool(&self, id: u32) -> Result<Rc<LocalPool>, Refusal> {
        loop {
            let opened = self.opened.notified();
            if let Some(pool) = self.pool(id) {
                return pool;
            }
            opened.await;
        }
    }

    async fn update(self: Rc<Self>, mut inbox: mpsc::UnboundedReceiver<Message>) {
        while let Some(message) = inbox.recv().await {
            match message {
                Message::Open(pool) => self.open(pool),
                Message::Attach(instance, stream) => self.attach(instance, stream),
                Message::Detach(instance, _done) => self.detach(&instance),
                Message::Close(id) => self.close(id),
            }
        }
    }

    fn open(&self, pool: Arc<Pool>) {
        let index = pool.id as usize;
        let mut pools = self.pools.borrow_mut();
        if pools.len() <= index {
            pools.resize_with(index + 1, || None);
        }
        let share = (pool.bounds.concurrency as f64 * UTILISATION) as usize;
        let closed = Cell::new(false);
        pools[index] = Some(Rc::new(LocalPool { pool, channels: RefCell::default(), share, closed }));
        self.opened.notify_waiters();
    }

    fn attach(&self, instance: Arc<Instance>, stream: std::os::unix::net::UnixStream) {
        let Some(Ok(pool)) = self.pool(instance.pool().id) else { return };
        let stream = match UnixStream::from_std(stream) {
            Ok(stream) => stream,
            Err(error) => return instance.condemn(format!("its channel cannot be watched: {error}")),
        };
        let channel = Channel::new(instance);
        pool.channels.borrow_mut().push(Rc::clone(&channel));
        pool.pool.queue().wake_many(pool.pool.bounds.concurrency);
        let config = &self.shared.config;
        let (limit, grace) = (config.max_frame_bytes(), config.grace);
        // Ends when the worker does; each of its calls then has an error.
        drop(spawn_local(async move {
            drive(Rc::clone(&channel), stream, limit, grace).await;
            pool.forget(channel.instance());
            // Those that wait may have to be refused now.
            pool.pool.queue().wake_many(usize::MAX);
        }));
    }

    fn detach(&self, instance: &Arc<Instance>) {
        if let Some(Ok(pool)) = self.pool(instance.pool().id) {
            pool.forget(instance);
        }
    }

    fn close(&self, id: u32) {
        if let Some(pool) = self.pools.borrow_mut().get_mut(id as usize).and_then(Option::take) {
            pool.closed.set(true);
            pool.pool.queue().wake_many(usize::MAX);
        }
    }
}

impl LocalPool {
    /// An instance with room, with the call counted on it.
    ///
    /// The first one that answers quickly and is not full up to the share that sizing aims at: load that one instance
    /// can carry stays there, so that the others can go. Beyond that share, for slow calls, and where instances compute
    /// too much for one, the least busy one.
    fn pick(&self, function: u16) -> Option<Rc<Channel>> {
        let channels = self.channels.borrow();
        let best = match &channels[..] {
            [only] if !only.is_closed() => only,
            several => several.iter().filter(|channel| !channel.is_closed()).min_by_key(|it| self.rank(it))?,
        };
        if !best.begin(function) {
            return None;
        }
        self.pool.note_call();
        Some(Rc::clone(best))
    }

    fn rank(&self, channel: &Channel) -> (bool, bool, usize) {
        let in_flight = channel.instance().in_flight();
        let is_slow = channel.is_slow();
        let share = if is_slow || self.pool.is_spread() { 0 } else { self.share };
        (!channel.instance().has_room(), is_slow, in_flight.saturating_sub(share))
    }

    /// Calls that could begin now.
    fn room(&self) -> usize {
        let channels = self.channels.borrow();
        channels.iter().filter(|channel| !channel.is_closed()).map(|channel| channel.instance().room()).sum()
    }

    /// Waits for the function's gate, if it has one, and then in line for an instance with room.
    async fn wait(&self, call: &Invocation) -> Result<Admitted, Refusal> {
        let place = self.pool.enter(call.payload.body.len())?;
        let permit = match self.pool.gate(call.function.target.index) {
            Some(gate) => Some(Arc::clone(gate).acquire_owned().await.map_err(|_| Refusal::Gone)?),
            None => None,
        };
        let mut turn = self.pool.line_up(&place, call.deadline)?;
        let cold_since = if self.pool.is_empty() { turn.since() } else { None };
        let channel = poll_fn(|cx| turn.poll(cx, || self.look(call.function.target.index))).await?;
        if let Some(since) = cold_since {
            self.pool.note_cold_start(since.elapsed());
        }
        Ok((channel, permit))
    }

    /// What there is for the call whose turn it is, and how much room is left.
    fn look(&self, function: u16) -> Look<Result<Rc<Channel>, Refusal>> {
        if self.closed.get() {
            return Look::FoundByAll(Err(Refusal::Gone));
        }
        if let Some(channel) = self.pick(function) {
            return Look::Found { what: Ok(channel), room: self.room() };
        }
        if self.channels.borrow().iter().all(|channel| channel.is_closed())
            && let Some(error) = self.pool.refused(Instant::now())
        {
            return Look::FoundByAll(Err(error.into()));
        }
        Look::Nothing { elsewhere: self.pool.has_room() }
    }

    fn forget(&self, instance: &Arc<Instance>) {
        self.channels.borrow_mut().retain(|channel| !Arc::ptr_eq(channel.instance(), instance));
    }
}

#[cfg(test)]
mod tests;
