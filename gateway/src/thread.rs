//! One gateway thread: a listener, a runtime, an invoker, and the connections they serve.

use std::{
    future::poll_fn,
    io,
    net::TcpListener as StdListener,
    pin::Pin,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    task::Context,
    time::{Duration, Instant},
};

use fnmesh_invoke::Invoke;
use http::HeaderValue;
use tokio::{
    net::{TcpListener, TcpStream},
    select,
    time::{sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    Config, Control,
    connection::{self, Connection},
    guard::{Admission, Connections, Memory},
    http1::{self, Buffers, Wire},
    http2,
    hub::Hub,
    metrics::Counters,
};

/// What all threads of a server share.
pub(crate) struct Shared {
    pub(crate) config: Config,
    pub(crate) cors_origin: Option<HeaderValue>,
    pub(crate) control: Arc<dyn Control>,
    pub(crate) connections: Arc<Connections>,
    pub(crate) memory: Arc<Memory>,
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
    buffers: Rc<Buffers>,
    tasks: TaskTracker,
}

impl<I: Invoke> Thread<I> {
    /// The calling one.
    pub(crate) fn new(invoker: I, shared: Arc<Shared>, index: usize) -> Self {
        Self {
            invoker,
            shared,
            index,
            hub: Hub::default(),
            buffers: Rc::new(Buffers::new()),
            tasks: TaskTracker::new(),
        }
    }

    pub(crate) fn config(&self) -> &Config {
        &self.shared.config
    }

    pub(crate) fn counters(&self) -> &Counters {
        &self.shared.counters[self.index]
    }

    pub(crate) fn hub(&self) -> &Hub {
        &self.hub
    }

    /// Those of its connections.
    pub(crate) fn tasks(&self) -> &TaskTracker {
        &self.tasks
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
        let connections = &self.shared.connections;
        let (admission, open) = connections.open();
        self.hub.set_scarce(connections.are_scarce());
        if admission == Admission::Refused {
            return;
        }
        let thread = Rc::clone(self);
        self.tasks.spawn_local(async move {
            let _open = open;
            thread.counters().opened();
            thread.converse(stream, admission).await;
            thread.counters().closed();
        });
    }

    async fn converse(self: &Rc<Self>, stream: TcpStream, admission: Admission) {
        // Answers are written whole; waiting to fill a packet would only delay them.
        if stream.set_nodelay(true).is_err() {
            return;
        }
        let connection = Rc::new(Connection::new());
        connection.control_only.set(admission == Admission::ControlOnly);
        let wire = Wire::new(stream, Rc::clone(&connection), Rc::clone(&self.buffers));
        let begun = select! {
            begun = timeout(self.config().header_timeout, begin(&wire)) => begun,
            () = self.last_call() => return,
        };
        let Ok(Ok(input)) = begun else { return };
        if input.starts_with(http2::PREFACE) {
            return http2::converse(self, wire.into_stream(), &connection, input).await;
        }
        let protocol = http1::converse(self, &wire, input);
        let shut_down = |_: Pin<&mut _>| connection.closing.set(true);
        let gone = |cx: &mut Context<'_>| wire.poll_gone(cx);
        connection::run(protocol, shut_down, gone, &connection, &self.hub, self.config()).await;
        if connection.reset.get() {
            wire.reset();
        }
    }

    /// Ends a little after accepting ends: a request that is on its way is still served.
    async fn last_call(&self) {
        const GRACE: Duration = Duration::from_millis(100);
        self.shared.stop.cancelled().await;
        sleep(GRACE).await;
    }
}

/// Reads as much as it takes to know the protocol.
async fn begin(wire: &Wire) -> io::Result<Vec<u8>> {
    let mut input = Vec::new();
    while http2::PREFACE.starts_with(&input) && input.len() < http2::PREFACE.len() {
        let read = poll_fn(|cx| wire.poll_read(cx, usize::MAX, |bytes| input.extend_from_slice(bytes)));
        if read.await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(input)
}
