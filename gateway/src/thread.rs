//! One gateway thread: a listener, a runtime, an invoker, and the connections they serve.

use std::{
    cell::RefCell,
    io,
    net::TcpListener as StdListener,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use fnmesh_invoke::Invoke;
use http::HeaderValue;
use hyper::{
    server::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::rt::TokioTimer;
use tokio::{
    net::{TcpListener, TcpStream},
    select,
    time::{sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    Config, Control,
    connection::{self, Connection},
    executor::LocalExecutor,
    hub::Hub,
    io::{Io, Scratch},
    metrics::Counters,
    service,
};

/// What all threads of a server share.
pub(crate) struct Shared {
    pub(crate) config: Config,
    pub(crate) cors_origin: Option<HeaderValue>,
    pub(crate) control: Arc<dyn Control>,
    pub(crate) started: Instant,
    pub(crate) draining: AtomicBool,
    /// One for each thread, so that counting needs no shared cache line.
    pub(crate) counters: Box<[Counters]>,
    /// Cancelled when no more connections are to be taken.
    pub(crate) stop: CancellationToken,
    /// Cancelled when those that are left are to be dropped.
    pub(crate) abort: CancellationToken,
}

/// What all connections of a thread share.
pub(crate) struct Thread<I> {
    pub(crate) invoker: I,
    pub(crate) shared: Arc<Shared>,
    index: usize,
    hub: Hub,
    scratch: Scratch,
    tasks: TaskTracker,
}

impl<I: Invoke> Thread<I> {
    pub(crate) fn new(invoker: I, shared: Arc<Shared>, index: usize) -> Self {
        // As much as one read of a large body takes in.
        const SCRATCH_BYTES: usize = 64 * 1024;
        let scratch = Rc::new(RefCell::new(vec![0; SCRATCH_BYTES].into_boxed_slice()));
        Self { invoker, shared, index, hub: Hub::default(), scratch, tasks: TaskTracker::new() }
    }

    pub(crate) fn config(&self) -> &Config {
        &self.shared.config
    }

    pub(crate) fn counters(&self) -> &Counters {
        &self.shared.counters[self.index]
    }

    pub(crate) fn cors_origin(&self) -> Option<&HeaderValue> {
        self.shared.cors_origin.as_ref()
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.shared.draining.load(Relaxed)
    }

    /// Serves until the server has drained.
    pub(crate) async fn run(self: Rc<Self>, listener: StdListener) -> io::Result<()> {
        let listener = TcpListener::from_std(listener)?;
        loop {
            select! {
                biased;
                () = self.shared.stop.cancelled() => break,
                accepted = listener.accept() => match accepted {
                    Ok((stream, _)) => self.welcome(stream),
                    Err(error) => self.refuse_to_accept(&error).await,
                },
            }
        }
        self.empty_backlog(listener)?;
        self.hub.drain();
        self.tasks.close();
        select! {
            () = self.tasks.wait() => {}
            () = self.shared.abort.cancelled() => {}
        }
        Ok(())
    }

    /// Clients whose connection the kernel has already made are served: closing the listener
    /// would reset them.
    fn empty_backlog(self: &Rc<Self>, listener: TcpListener) -> io::Result<()> {
        let listener = listener.into_std()?;
        while let Ok((stream, _)) = listener.accept() {
            stream.set_nonblocking(true)?;
            self.welcome(TcpStream::from_std(stream)?);
        }
        Ok(())
    }

    async fn refuse_to_accept(&self, error: &io::Error) {
        // The client gave up in the queue: not our trouble.
        if matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset) {
            return;
        }
        // Out of file descriptors or memory: the connection stays queued, so trying again at once would spin.
        tracing::warn!(target: "fnmesh::gateway", %error, "cannot accept connections; trying again");
        select! {
            () = self.shared.stop.cancelled() => {}
            () = sleep(Duration::from_millis(100)) => {}
        }
    }

    fn welcome(self: &Rc<Self>, stream: TcpStream) {
        let thread = Rc::clone(self);
        self.tasks.spawn_local(async move {
            thread.counters().opened();
            thread.converse(stream).await;
            thread.counters().closed();
        });
    }

    async fn converse(self: &Rc<Self>, stream: TcpStream) {
        // Answers are written whole; waiting to fill a packet would only delay them.
        if stream.set_nodelay(true).is_err() {
            return;
        }
        let config = self.config();
        let connection = Rc::new(Connection::new());
        let mut io = Io::new(stream, Rc::clone(&connection), Rc::clone(&self.scratch), config.head_limit());
        let begun = select! {
            begun = timeout(config.header_timeout, io.is_http2()) => begun,
            () = self.last_call() => return,
        };
        let Ok(Ok(is_http2)) = begun else { return };
        let service = service_fn({
            let (thread, connection) = (Rc::clone(self), Rc::clone(&connection));
            move |request| service::serve(Rc::clone(&thread), Rc::clone(&connection), request)
        });
        if is_http2 {
            let protocol = self.http2().serve_connection(io, service);
            connection::run(protocol, &connection, &self.hub, config).await;
        } else {
            let protocol = http1().serve_connection(io, service);
            connection::run(protocol, &connection, &self.hub, config).await;
        }
    }

    /// Ends a little after accepting ends: a request that is on its way is still served.
    async fn last_call(&self) {
        const GRACE: Duration = Duration::from_millis(100);
        self.shared.stop.cancelled().await;
        sleep(GRACE).await;
    }

    fn http2(&self) -> http2::Builder<LocalExecutor> {
        let mut builder = http2::Builder::new(LocalExecutor(self.tasks.clone()));
        builder
            .timer(TokioTimer::new())
            .max_concurrent_streams(256)
            .max_header_list_size(u32::try_from(self.config().head_limit()).unwrap_or(u32::MAX))
            .keep_alive_interval(Duration::from_secs(20))
            .keep_alive_timeout(Duration::from_secs(10));
        builder
    }
}

fn http1() -> http1::Builder {
    let mut builder = http1::Builder::new();
    // `connection::run` bounds the time of heads. hyper's own limit would allocate and arm a timer
    // for each request, and answer nothing.
    // `pipeline_flush` stays off: it lifts the limit of what is buffered for a client that reads nothing.
    // One buffer and `send` cost less than `writev` of a head and a short body.
    builder.header_read_timeout(None).half_close(false).writev(false);
    builder
}
