//! The task that owns a pool: it carries out what the plan says.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use fnmesh_invoke::Failure;
use tokio::{
    sync::{mpsc, oneshot, watch},
    task::JoinSet,
    time::sleep_until,
};

use super::{
    Pool,
    plan::{Action, Event, Plan},
};
use crate::{
    inspect::Inspected,
    instance::life::{Report, Start, live},
};

/// Says when a pool's instances should drain and stop, and how long that may take.
pub(crate) type Retire = watch::Receiver<Option<Duration>>;

/// Keeps `want` instances until `retire` says to stop; ends when the last process is gone.
///
/// `first` gets how the first start went. A failed one is not tried again: the app is not deployed.
pub(crate) async fn supervise(
    start: Arc<Start>,
    want: usize,
    retire: Retire,
    first: oneshot::Sender<Result<Vec<Inspected>, Failure>>,
) {
    let (reports, mut inbox) = mpsc::unbounded_channel();
    let mut plan = Plan::new(want);
    let mut instances = JoinSet::new();
    let mut first = Some(first);
    let mut actions = plan.open(Instant::now());
    loop {
        for Action::StartAt(at) in actions.drain(..) {
            instances.spawn(live_from(at, Arc::clone(&start), reports.clone(), retire.clone()));
        }
        let report = tokio::select! {
            report = inbox.recv() => report.expect("this task holds a sender"),
            Some(_) = instances.join_next(), if !instances.is_empty() => continue,
            _ = retired(retire.clone()) => break,
        };
        let event = match report {
            Report::Changed(event) => event,
            Report::Ready(inspected) => {
                // The receiver is gone when the deployment was given up; then `retire` follows.
                first.take().map(|first| first.send(Ok(inspected)));
                Event::Ready
            }
            Report::StartFailed(failure) => {
                if let Some(first) = first.take() {
                    instances.shutdown().await;
                    let _ = first.send(Err(failure));
                    return;
                }
                let Pool { app, language, .. } = &*start.pool;
                tracing::error!(target: "fnmesh::runtime", %app, %language, %failure, "instance could not start");
                start.pool.note_start_failed(failure);
                Event::StartFailed
            }
        };
        actions = plan.handle(event, Instant::now());
    }
    while instances.join_next().await.is_some() {}
}

/// One instance, from `at` on.
async fn live_from(at: Instant, start: Arc<Start>, reports: mpsc::UnboundedSender<Report>, retire: Retire) {
    tokio::select! {
        () = sleep_until(at.into()) => live(start, reports, retired(retire)).await,
        _ = retired(retire.clone()) => {}
    }
}

async fn retired(mut retire: Retire) -> Duration {
    // A pool whose handle is gone has no caller left to wait for.
    retire.wait_for(Option::is_some).await.ok().and_then(|patience| *patience).unwrap_or_default()
}
