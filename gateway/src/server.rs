use std::{
    io,
    net::{SocketAddr, TcpListener},
    pin::pin,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
        mpsc,
    },
    time::{Duration, Instant},
};

use fnmesh_invoke::Invoke;
use http::HeaderValue;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::{
    runtime::{Builder, LocalOptions},
    sync::oneshot,
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use crate::{
    Config, Control,
    guard::{Connections, Memory},
    metrics::Counters,
    thread::{Shared, Thread},
    turns::{Wakes, follow_load},
};

/// A running gateway. Dropping it drops its connections; [`Server::drain`] ends them properly.
pub struct Server {
    address: SocketAddr,
    handle: Handle,
    /// One for each thread, closed when the thread is done.
    done: Vec<oneshot::Receiver<()>>,
}

/// Ends the threads when dropped.
struct Handle(Arc<Shared>);

impl Drop for Handle {
    fn drop(&mut self) {
        self.0.stop.cancel();
        self.0.abort.cancel();
    }
}

impl Server {
    /// Binds and starts the threads; returns when all of them listen and have their invoker,
    /// which `invoker` makes on the thread it is for, inside its runtime, where
    /// [`tokio::task::spawn_local`] works.
    ///
    /// # Errors
    /// When the address cannot be bound, `config.cors_origin` is no header value, a thread cannot
    /// be started, or its invoker panicked.
    pub fn start<I: Invoke>(
        config: Config,
        control: Arc<dyn Control>,
        invoker: impl Fn(usize) -> I + Send + Sync + 'static,
    ) -> io::Result<Self> {
        let threads = config.threads.get();
        let listeners = listen(config.address, threads)?;
        let address = listeners[0].local_addr()?;
        let origin = config.cors_origin.as_deref().map(HeaderValue::from_str).transpose();
        let shared = Arc::new(Shared {
            cors_origin: origin.map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?,
            connections: Arc::new(Connections::new(config.max_connections.get())),
            memory: Arc::new(Memory::new(config.max_held_bytes)),
            config,
            control,
            started: Instant::now(),
            draining: AtomicBool::new(false),
            counters: (0..threads).map(|_| Counters::default()).collect(),
            stop: CancellationToken::new(),
            abort: CancellationToken::new(),
        });
        let handle = Handle(Arc::clone(&shared));
        let invoker = Arc::new(invoker);
        let (ready, all_ready) = mpsc::channel();
        let mut done = Vec::with_capacity(threads);
        for (index, listener) in listeners.into_iter().enumerate() {
            let (shared, invoker, ready) = (Arc::clone(&shared), Arc::clone(&invoker), ready.clone());
            let (end, ended) = oneshot::channel();
            done.push(ended);
            std::thread::Builder::new().name(format!("fnmesh-http-{index}")).spawn(move || {
                serve(listener, shared, index, &*invoker, &ready);
                drop(end);
            })?;
        }
        drop(ready);
        for _ in 0..threads {
            all_ready.recv().unwrap_or_else(|_| Err(io::Error::other("a gateway thread panicked while it started")))?;
        }
        Ok(Self { address, handle, done })
    }

    /// Where it listens, with the real port when 0 was asked for.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Stops accepting, says so at `/_/ready`, answers the requests in flight and closes idle
    /// connections. Returns when all connections have ended, or drops them after `limit`.
    pub async fn drain(mut self, limit: Duration) {
        // Dropping a connection takes no time worth waiting for, unless something is wrong.
        const ABORT: Duration = Duration::from_secs(1);
        let shared = &self.handle.0;
        shared.draining.store(true, Relaxed);
        shared.stop.cancel();
        let mut all_done = pin!(async {
            for done in &mut self.done {
                // The sender is only ever dropped: an error means that the thread is done.
                let _ = done.await;
            }
        });
        if timeout(limit, all_done.as_mut()).await.is_err() {
            tracing::warn!(target: "fnmesh::gateway", ?limit, "dropping connections that did not end in time");
            shared.abort.cancel();
            let _ = timeout(ABORT, all_done).await;
        }
    }
}

/// The life of a gateway thread.
fn serve<I: Invoke>(
    listener: TcpListener,
    shared: Arc<Shared>,
    index: usize,
    invoker: &impl Fn(usize) -> I,
    ready: &mpsc::Sender<io::Result<()>>,
) {
    let wakes = Arc::new(Wakes::default());
    let noted = Arc::clone(&wakes);
    let mut builder = Builder::new_current_thread();
    builder.enable_io().enable_time().on_thread_unpark(move || noted.note());
    let runtime = match builder.build_local(LocalOptions::default()) {
        Ok(runtime) => runtime,
        Err(error) => {
            let _ = ready.send(Err(error));
            return;
        }
    };
    let followed = Arc::clone(&shared);
    // Not one of the tasks that a drain waits for.
    runtime.spawn_local(async move {
        follow_load(&*followed.control, || followed.counters[index].answers(), &wakes).await;
    });
    let served = runtime.block_on(async {
        let thread = Rc::new(Thread::new(invoker(index), shared, index));
        // The receiver is gone when another thread could not start; then `stop` is cancelled.
        let _ = ready.send(Ok(()));
        thread.run(listener).await
    });
    if let Err(error) = served {
        tracing::error!(target: "fnmesh::gateway", %error, thread = index, "a gateway thread cannot go on");
    }
}

fn listen(address: SocketAddr, threads: usize) -> io::Result<Vec<TcpListener>> {
    if threads > 1 && address.port() != 0 {
        // Shared ports would let a second node bind ours and take half of its requests.
        drop(bind(address, false)?);
    }
    let first = bind(address, threads > 1)?;
    let address = first.local_addr()?.as_socket().unwrap_or(address);
    let others = (1..threads).map(|_| bind(address, true));
    std::iter::once(Ok(first)).chain(others).map(|socket| socket.and_then(start_listening)).collect()
}

fn bind(address: SocketAddr, shared: bool) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(shared)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    Ok(socket)
}

fn start_listening(socket: Socket) -> io::Result<TcpListener> {
    // The kernel cuts it to net.core.somaxconn.
    socket.listen(4096)?;
    Ok(socket.into())
}
