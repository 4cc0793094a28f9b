//! The task that owns a pool: it carries out what the plan says.

use std::{
    collections::BTreeMap,
    future::pending,
    sync::{Arc, atomic::Ordering::SeqCst},
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
    effort::{self, Meter},
    owned::Owned,
    plan::{Action, Effort, Event, Id, Load, Plan, Use},
};
use crate::{
    inspect::Inspected,
    instance::{
        Instance,
        life::{Report, Reports, Start, live},
    },
};

/// How long the calls of an instance that is not needed any more may take to end: as long as any call may.
pub(crate) const PATIENCE: Duration = Duration::from_secs(24 * 3600);
/// How often the memory and the CPU time of instances are looked at while calls come in.
const PROCESS_LOOK: Duration = Duration::from_secs(1);

/// Says when a pool's instances should drain and stop, and how long that may take.
pub(crate) type Retire = watch::Receiver<Option<Duration>>;

/// Keeps the instances that the plan wants until `retire` says to stop; ends when the last process is gone.
///
/// `first` gets how the first start went. A failed one is not tried again: the app is not deployed.
pub(crate) async fn supervise(
    start: Arc<Start>,
    retire: Retire,
    first: oneshot::Sender<Result<Vec<Inspected>, Failure>>,
) {
    let (reports, mut inbox) = mpsc::unbounded_channel();
    let mut owner = Owner {
        plan: Plan::new(start.pool.bounds),
        start,
        retire: retire.clone(),
        reports,
        instances: BTreeMap::new(),
        tasks: JoinSet::new(),
        first: Some(first),
        failure: None,
        looked: Instant::now(),
        idle: Meter::default(),
    };
    let actions = owner.plan.open(Instant::now());
    owner.carry_out(actions);
    loop {
        let next = owner.rest();
        tokio::select! {
            Some((id, report)) = inbox.recv() => {
                if let Some(failure) = owner.hear(id, report) {
                    owner.tasks.shutdown().await;
                    owner.first.take().map(|first| first.send(Err(failure)));
                    return;
                }
            }
            Some(_) = owner.tasks.join_next() => {}
            () = owner.start.pool.bell.notified() => owner.look(),
            () = until(next) => owner.look(),
            _ = retired(retire.clone()) => break,
        }
    }
    while owner.tasks.join_next().await.is_some() {}
}

struct Owner {
    start: Arc<Start>,
    plan: Plan,
    retire: Retire,
    reports: mpsc::UnboundedSender<(Id, Report)>,
    instances: BTreeMap<Id, Owned>,
    tasks: JoinSet<()>,
    /// Until the first start is over.
    first: Option<oneshot::Sender<Result<Vec<Inspected>, Failure>>>,
    /// The last one.
    failure: Option<Failure>,
    /// When memory and CPU time were looked at.
    looked: Instant,
    /// Runs while the machine has nothing to do.
    idle: Meter,
}

impl Owner {
    fn pool(&self) -> &Pool {
        &self.start.pool
    }

    /// Handles a report. `Some` when the app could not be started at all.
    fn hear(&mut self, id: Id, report: Report) -> Option<Failure> {
        let event = match report {
            Report::Ready(instance, inspected) => {
                // The receiver is gone when the deployment was given up; then `retire` follows.
                self.first.take().map(|first| first.send(Ok(inspected)));
                instance.note_memory();
                if let Some(owned) = self.instances.get_mut(&id) {
                    owned.note_ready(instance);
                }
                Event::Ready(id)
            }
            Report::StartFailed(failure) if self.first.is_some() => return Some(failure),
            Report::StartFailed(failure) => {
                let Pool { app, language, .. } = self.pool();
                tracing::error!(target: "fnmesh::runtime", %app, %language, %failure, "instance could not start");
                self.failure = Some(failure);
                self.instances.remove(&id);
                Event::StartFailed(id)
            }
            Report::Lost(reason, death) => {
                let message = format!("its instances keep dying: {reason}");
                self.failure = Some(Failure { kind: "CrashLoop".to_owned(), message, stack: String::new() });
                self.instances.remove(&id);
                Event::Lost(id, death)
            }
            Report::Condemned => {
                self.instances.remove(&id);
                Event::Condemned(id)
            }
        };
        self.with_load(|plan, load, now| plan.handle(event, load, now));
        None
    }

    fn look(&mut self) {
        let now = Instant::now();
        if now.saturating_duration_since(self.looked) >= PROCESS_LOOK {
            self.looked = now;
            self.ready().for_each(|(_, instance)| instance.note_memory());
            let effort = self.effort(now);
            self.plan.note_effort(&effort, &self.uses());
        }
        self.instances.values_mut().for_each(|owned| owned.give_turns(now));
        self.with_load(Plan::look);
    }

    /// What the processes have done since the last time.
    fn effort(&mut self, now: Instant) -> Effort {
        let cores = self.instances.values_mut().filter_map(|owned| owned.measure(now)).collect();
        let mut effort = Effort { cores, idle: None };
        // Reading it takes the longer the more cores there are.
        let idle = if effort.is_noteworthy() { effort::idle() } else { None };
        effort.idle = self.idle.cores(idle, now);
        effort
    }

    fn ready(&self) -> impl Iterator<Item = (Id, &Arc<Instance>)> {
        self.instances.iter().filter_map(|(id, owned)| Some((*id, owned.instance()?)))
    }

    fn with_load(&mut self, step: impl FnOnce(&mut Plan, &Load<'_>, Instant) -> Vec<Action>) {
        // Before the line is looked at: who joins it later rings.
        self.pool().armed.store(true, SeqCst);
        let (queued, head_since) = self.pool().queue.line();
        if queued > 0 {
            // The plan says when to look again.
            self.pool().armed.store(false, SeqCst);
        }
        let instances: Vec<_> = self.uses();
        let load = Load { queued, head_since, instances: &instances };
        let actions = step(&mut self.plan, &load, Instant::now());
        self.carry_out(actions);
    }

    fn uses(&self) -> Vec<Use> {
        let uses = self.ready().map(|(id, instance)| Use {
            id,
            in_flight: instance.in_flight(),
            calls: instance.calls(),
            answered: instance.has_answered(),
        });
        uses.collect()
    }

    fn carry_out(&mut self, actions: Vec<Action>) {
        // Before instances start: they shall know whether they are on probation.
        let now = Instant::now();
        self.start.pool.publish(&self.plan, self.failure.as_ref(), now);
        for action in actions {
            match action {
                Action::Start(id, at) => {
                    let (stop, stopped) = oneshot::channel();
                    self.instances.insert(id, Owned::new(stop));
                    let reports = Reports::new(id, self.reports.clone());
                    self.tasks.spawn(live_from(at, Arc::clone(&self.start), reports, self.retire.clone(), stopped));
                }
                Action::Stop(id) => drop(self.instances.remove(&id)),
            }
        }
    }

    /// When to look next. Asks for a ring if that is later than the next call.
    fn rest(&mut self) -> Option<Instant> {
        loop {
            let now = Instant::now();
            let next = self.plan.next_look(now);
            if self.plan.is_active() {
                return next;
            }
            // Before the load is looked at: a call that begins later rings.
            self.pool().asleep.store(true, SeqCst);
            let calls: u64 = self.ready().map(|(_, instance)| instance.calls()).sum();
            if calls == self.plan.calls() && self.ready().all(|(_, instance)| instance.in_flight() == 0) {
                self.instances.values_mut().for_each(Owned::rest);
                return next;
            }
            self.pool().asleep.store(false, SeqCst);
            self.look();
        }
    }
}

/// One instance, from `at` on.
async fn live_from(at: Instant, start: Arc<Start>, reports: Reports, retire: Retire, stopped: oneshot::Receiver<()>) {
    let leave = async {
        tokio::select! {
            patience = retired(retire.clone()) => patience,
            _ = stopped => PATIENCE,
        }
    };
    tokio::pin!(leave);
    tokio::select! {
        () = sleep_until(at.into()) => live(start, reports, leave).await,
        _ = &mut leave => {}
    }
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at.into()).await,
        None => pending().await,
    }
}

/// Resolves when the pool is to be closed, with how long its calls may take.
pub(crate) async fn retired(mut retire: Retire) -> Duration {
    // A pool whose handle is gone has no caller left to wait for.
    retire.wait_for(Option::is_some).await.ok().and_then(|patience| *patience).unwrap_or_default()
}
