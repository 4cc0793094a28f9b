//! Tells the calling threads which instances there are.
//!
//! Each thread keeps its own table, so that a call takes no lock; changes reach it as messages, in order.

use std::{
    os::unix::net::UnixStream,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{sync::mpsc, time::timeout};

use crate::{instance::Instance, pool::Pool};

/// How long a thread may take to say that it no longer uses an instance. One that does not run at all
/// has no call in flight either.
const DETACH_TIMEOUT: Duration = Duration::from_secs(5);

/// A change of a thread's table.
pub(crate) enum Message {
    /// A pool is there; its instances follow. Ids come in rising order.
    Open(Arc<Pool>),
    /// An instance takes calls on this stream.
    Attach(Arc<Instance>, UnixStream),
    /// An instance takes no new calls; the sender is dropped once this is known.
    Detach(Arc<Instance>, mpsc::Sender<()>),
    /// A pool is no longer served.
    Close(u32),
}

/// The senders to all threads, and the receivers nobody has taken yet.
pub(crate) struct Threads {
    senders: Vec<mpsc::UnboundedSender<Message>>,
    receivers: Mutex<Vec<Option<mpsc::UnboundedReceiver<Message>>>>,
}

impl Threads {
    pub(crate) fn new(count: usize) -> Self {
        let (senders, receivers) = (0..count)
            .map(|_| {
                let (sender, receiver) = mpsc::unbounded_channel();
                (sender, Some(receiver))
            })
            .unzip();
        Self { senders, receivers: Mutex::new(receivers) }
    }

    /// The inbox of thread `index`, once.
    pub(crate) fn inbox(&self, index: usize) -> Option<mpsc::UnboundedReceiver<Message>> {
        self.receivers.lock().unwrap_or_else(PoisonError::into_inner).get_mut(index)?.take()
    }

    pub(crate) fn open(&self, pool: &Arc<Pool>) {
        self.tell(|| Message::Open(Arc::clone(pool)));
    }

    pub(crate) fn close(&self, pool: &Pool) {
        self.tell(|| Message::Close(pool.id));
    }

    /// Gives each thread its stream.
    pub(crate) fn attach(&self, instance: &Arc<Instance>, streams: Vec<UnixStream>) {
        let mut streams = streams.into_iter();
        for sender in &self.senders {
            if let Some(stream) = streams.next() {
                // A thread that has ended needs no channel.
                let _ = sender.send(Message::Attach(Arc::clone(instance), stream));
            }
        }
    }

    /// Resolves when no thread starts calls on `instance` any more.
    pub(crate) async fn detach(&self, instance: &Arc<Instance>) {
        let (done, mut all_done) = mpsc::channel(1);
        self.tell(|| Message::Detach(Arc::clone(instance), done.clone()));
        drop(done);
        let _ = timeout(DETACH_TIMEOUT, all_done.recv()).await;
    }

    fn tell(&self, message: impl Fn() -> Message) {
        for sender in &self.senders {
            let _ = sender.send(message());
        }
    }
}
