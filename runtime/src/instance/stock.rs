//! The task that owns the spare workers of Node apps, with nothing loaded yet.
//!
//! Node.js takes far longer to start than an app to load. Where instances of an app are started there is soon a spare
//! worker for the next one. It can be one of any app with the same limits and the same of what Node reads at its start,
//! and then waits as long as the node runs. Where that cannot be it is made exactly as that app's next instance would
//! be, and goes unless it is asked for again as long as an idle instance would stay (ADR 0019).

use std::{
    future::{pending, poll_fn},
    pin::Pin,
    sync::Arc,
    task::Poll,
    time::Duration,
};

use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, sleep_until},
};

use super::life::{Started, wait_or_kill};
use crate::{pool::Pool, worker::process::Launch};

/// How many spare workers there may be. One takes about 7 MiB that it shares with nobody.
const SHELVES: usize = 2;
/// After the last start of an instance: so that a spare worker takes no time from that.
const SETTLE: Duration = Duration::from_secs(1);
/// From the last start of an instance on.
const KEEP: Duration = Duration::from_secs(600);

type Spare = Started;

/// The way to the spare workers.
#[derive(Clone)]
pub(crate) struct Handle(mpsc::UnboundedSender<Request>);

pub(crate) struct Request {
    pool: Arc<Pool>,
    launch: Arc<Launch>,
    spare: oneshot::Sender<Option<Spare>>,
}

impl Handle {
    pub(crate) fn new() -> (Self, mpsc::UnboundedReceiver<Request>) {
        let (sender, receiver) = mpsc::unbounded_channel();
        (Self(sender), receiver)
    }

    /// A worker for `pool` that was started by `launch`, if there is one. Sees to it that there will be another.
    pub(super) async fn take(&self, pool: &Arc<Pool>, launch: &Arc<Launch>) -> Option<Spare> {
        let (spare, taken) = oneshot::channel();
        self.0.send(Request { pool: Arc::clone(pool), launch: Arc::clone(launch), spare }).ok()?;
        taken.await.ok().flatten()
    }
}

/// Serves requests until all handles are gone. Spare workers have so many channels.
pub(crate) async fn run(mut requests: mpsc::UnboundedReceiver<Request>, channels: usize) {
    let mut stock = Stock { shelves: Vec::new(), channels };
    loop {
        let due = stock.due();
        tokio::select! {
            request = requests.recv() => match request {
                Some(request) => stock.serve(request).await,
                None => break,
            },
            () = due.map_or_else(|| sleep_until(Instant::now() + KEEP), sleep_until) => {}
            index = stock.ended() => stock.clear(index).await,
        }
        stock.tend(Instant::now()).await;
    }
    while !stock.shelves.is_empty() {
        stock.clear(0).await;
    }
}

struct Stock {
    /// The one asked for last comes first.
    shelves: Vec<Shelf>,
    channels: usize,
}

/// What there is for one app, or for all that are started alike.
struct Shelf {
    /// The one that asked last.
    pool: Arc<Pool>,
    launch: Arc<Launch>,
    asked: Instant,
    spare: Option<Spare>,
}

impl Shelf {
    /// When it should get a worker, or lose it.
    fn due(&self) -> Option<Instant> {
        match &self.spare {
            None => Some(self.asked + SETTLE),
            Some(spare) => spare.process.open.is_none().then(|| self.asked + KEEP),
        }
    }

    fn put(&mut self, spare: Spare) {
        self.pool.note_standby(Some(spare.process.pid()));
        self.spare = Some(spare);
    }

    fn take(mut self) -> Option<Spare> {
        self.pool.note_standby(None);
        self.spare.take()
    }
}

impl Stock {
    fn due(&self) -> Option<Instant> {
        self.shelves.iter().filter_map(Shelf::due).min()
    }

    async fn serve(&mut self, Request { pool, launch, spare }: Request) {
        let known = self.shelves.iter().position(|shelf| shelf.launch.is_like(&launch));
        let old = known.and_then(|index| self.shelves.remove(index).take());
        self.shelves.insert(0, Shelf { pool, launch, asked: Instant::now(), spare: None });
        // A request that was given up gives it back, and with that ends it.
        let _ = spare.send(old.filter(|spare| spare.process.is_running()));
        while self.shelves.len() > SHELVES {
            self.clear(SHELVES).await;
        }
    }

    /// Does what is due.
    async fn tend(&mut self, now: Instant) {
        while let Some(index) = self.shelves.iter().position(|shelf| shelf.due().is_some_and(|due| due <= now)) {
            let shelf = &mut self.shelves[index];
            // One that cannot be started is no loss: who needs a worker starts it and says why.
            let new = match &shelf.spare {
                None => Started::spawn(&shelf.launch, self.channels).await.ok(),
                Some(_) => None,
            };
            match new {
                Some(spare) => shelf.put(spare),
                None => self.clear(index).await,
            }
        }
    }

    /// Resolves when a spare worker has ended.
    async fn ended(&mut self) -> usize {
        if self.shelves.is_empty() {
            return pending().await;
        }
        let mut ends: Vec<Pin<Box<dyn Future<Output = ()> + Send + '_>>> = Vec::new();
        for shelf in &mut self.shelves {
            ends.push(Box::pin(async {
                match &mut shelf.spare {
                    Some(spare) => drop(spare.process.wait().await),
                    None => pending().await,
                }
            }));
        }
        poll_fn(|cx| match ends.iter_mut().position(|end| end.as_mut().poll(cx).is_ready()) {
            Some(index) => Poll::Ready(index),
            None => Poll::Pending,
        })
        .await
    }

    async fn clear(&mut self, index: usize) {
        if let Some(mut spare) = self.shelves.remove(index).take() {
            wait_or_kill(&mut spare.process, Duration::ZERO).await;
            spare.hold.release().await;
        }
    }
}
