//! The invoker of one calling thread.

mod names;

use std::{
    cell::{Cell, RefCell},
    pin::pin,
    rc::Rc,
    sync::{Arc, atomic::Ordering::Relaxed},
};

use fnmesh_invoke::{AppStatus, Error, Function, Invocation, Invoke, Reply};
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
    pool::Pool,
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
    channels: RefCell<Vec<Rc<Channel>>>,
    closed: Cell<bool>,
}

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
        loop {
            match self.inner.admit(&invocation).await {
                Ok((channel, permit)) => return channel.call(invocation, permit).await,
                Err(Refusal::Error(error)) => return Err(error),
                Err(Refusal::Gone) => {
                    let id = &invocation.function.id;
                    invocation.function = self.inner.shared.resolve(&id.app, &id.name).await?;
                }
            }
        }
    }

    fn apps(&self) -> Vec<AppStatus> {
        self.inner.shared.apps()
    }
}

impl Inner {
    /// Waits for an instance with room, at most until the deadline, and counts the call on it.
    async fn admit(&self, call: &Invocation) -> Result<(Rc<Channel>, Option<OwnedSemaphorePermit>), Refusal> {
        let deadline = call.deadline.instant().into();
        let too_late = || {
            let timeout = call.function.limits.timeout;
            Error::DeadlineExceeded { function: call.function.id.clone(), timeout }
        };
        let pool = match self.pool(call.function.target.pool) {
            Some(pool) => pool?,
            None => {
                timeout_at(deadline, self.wait_for_pool(call.function.target.pool)).await.map_err(|_| too_late())??
            }
        };
        let permit = match pool.pool.gate(call.function.target.index) {
            None => None,
            Some(gate) => {
                let acquire = Arc::clone(gate).acquire_owned();
                Some(timeout_at(deadline, acquire).await.map_err(|_| too_late())?.map_err(|_| Refusal::Gone)?)
            }
        };
        if !pool.pool.has_queue()
            && let Some(channel) = pool.pick()
        {
            return Ok((channel, permit));
        }
        let channel = timeout_at(deadline, pool.wait()).await.map_err(|_| too_late())??;
        Ok((channel, permit))
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
        pools[index] = Some(Rc::new(LocalPool { pool, channels: RefCell::default(), closed: Cell::new(false) }));
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
        pool.pool.wake_all();
        let config = &self.shared.config;
        let (limit, grace) = (config.max_frame_bytes(), config.grace);
        // Ends when the worker does; each of its calls then has an error.
        drop(spawn_local(async move {
            drive(Rc::clone(&channel), stream, limit, grace).await;
            pool.forget(channel.instance());
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
            pool.pool.wake_all();
        }
    }
}

impl LocalPool {
    /// The least busy instance with room, with the call counted on it.
    fn pick(&self) -> Option<Rc<Channel>> {
        let channels = self.channels.borrow();
        let open = channels.iter().filter(|channel| !channel.is_closed());
        let least_busy = open.min_by_key(|channel| channel.instance().in_flight())?;
        least_busy.instance().begin().then(|| Rc::clone(least_busy))
    }

    async fn wait(&self) -> Result<Rc<Channel>, Refusal> {
        let place = self.pool.enqueue()?;
        loop {
            let mut room = pin!(place.room());
            room.as_mut().enable();
            if self.closed.get() {
                return Err(Refusal::Gone);
            }
            if let Some(channel) = self.pick() {
                return Ok(channel);
            }
            if let Some(error) = self.pool.failure() {
                return Err(error.into());
            }
            room.await;
        }
    }

    fn forget(&self, instance: &Arc<Instance>) {
        self.channels.borrow_mut().retain(|channel| !Arc::ptr_eq(channel.instance(), instance));
    }
}
