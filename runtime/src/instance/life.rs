//! The task that owns one instance: Starting, Ready, Draining, Gone.

use std::{
    io,
    os::unix::net::UnixStream as StdUnixStream,
    sync::{Arc, OnceLock},
    time::Duration,
};

use fnmesh_invoke::Failure;
use tokio::{
    sync::mpsc,
    task::JoinSet,
    time::{Instant, timeout, timeout_at},
};

use super::{
    Instance,
    bounds::{Hold, Penalty},
    control::{Control, LoadError},
    pipes::{LastWords, copy_output},
    stock, zygote,
};
use crate::{
    config::Config,
    inspect::{Describe, Inspected},
    pool::{
        Pool,
        plan::{Death, Id},
    },
    threads::Threads,
    worker::{
        node,
        process::{Ends, Launch, Process},
        sandbox::Open,
    },
};

/// How long to read on what a dead worker left in its pipes: a grandchild may hold them open for ever.
const PIPE_REST: Duration = Duration::from_millis(200);

/// What the owner of a pool learns from its instances.
pub(crate) enum Report {
    /// It is loaded; this is what the language says of its functions.
    Ready(Arc<Instance>, Vec<Inspected>),
    /// It could not be loaded.
    StartFailed(Failure),
    /// It died unasked, for that reason.
    Lost(String, Death),
    /// It is given up: it still runs, but takes no more calls and is going to be killed.
    Condemned,
}

/// Where one instance reports to.
pub(crate) struct Reports {
    id: Id,
    sender: mpsc::UnboundedSender<(Id, Report)>,
}

impl Reports {
    pub(crate) fn new(id: Id, sender: mpsc::UnboundedSender<(Id, Report)>) -> Self {
        Self { id, sender }
    }

    fn send(&self, report: Report) {
        // Nobody listens any more once the pool is closed: that is fine with all of them.
        let _ = self.sender.send((self.id, report));
    }
}

/// All that starting instances of one pool takes.
pub(crate) struct Start {
    pub(crate) config: Arc<Config>,
    pub(crate) pool: Arc<Pool>,
    pub(crate) threads: Arc<Threads>,
    pub(crate) launch: Arc<Launch>,
    /// What forks its instances, where they are not spawned.
    pub(crate) zygote: Option<zygote::Handle>,
    /// Where a worker may be waiting for it, if its language is slow to start, and how such a one is started.
    pub(crate) stock: Option<(stock::Handle, Arc<Launch>)>,
    /// Body of the load frame.
    pub(crate) load: Vec<u8>,
    pub(crate) describe: Describe,
    /// The functions of the first instance: their order is their index.
    pub(crate) names: OnceLock<Vec<String>>,
    /// What they did to others, and therefore have less of.
    pub(crate) penalty: Penalty,
}

impl Start {
    /// Calls name functions by index, so all instances must have the same in the same order.
    fn check_names(&self, inspected: &[Inspected]) -> Result<(), Failure> {
        let found: Vec<_> = inspected.iter().map(|it| format!("{}.{}", it.module, it.name)).collect();
        if *self.names.get_or_init(|| found.clone()) == found {
            return Ok(());
        }
        Err(Failure {
            kind: "FunctionsChanged".to_owned(),
            message: "an instance has other functions than the first one; do imports depend on time or state?"
                .to_owned(),
            stack: String::new(),
        })
    }
}

/// Lives the life of one instance. Ends when its process is gone.
///
/// `retire` resolves when it should drain and stop, with how long its calls may take.
pub(crate) async fn live(start: Arc<Start>, reports: Reports, retire: impl Future<Output = Duration>) {
    tokio::pin!(retire);
    let loaded = tokio::select! {
        loaded = Worker::load(&start) => loaded,
        _ = &mut retire => return,
    };
    let (mut worker, channels, inspected) = match loaded {
        Ok(loaded) => loaded,
        Err(failure) => return reports.send(Report::StartFailed(failure)),
    };
    let (pool, pid) = (&start.pool, worker.process.pid());
    let instance = Arc::new(Instance::new(Arc::clone(pool), pid));
    pool.note_ready(Arc::clone(&instance));
    start.threads.attach(&instance, channels);
    tracing::debug!(target: "fnmesh::runtime", app = %pool.app, language = %pool.language, pid, "instance ready");
    reports.send(Report::Ready(Arc::clone(&instance), inspected));

    let (reason, death) = worker.serve(&start, &instance, retire, &reports).await;
    pool.note_gone(pid);
    instance.note_exited(reason.as_str());
    if let Some(death) = death {
        if let (0, Some(zygote)) = (death.in_flight, &start.zygote) {
            // No call explains it: what it was forked from may be to blame.
            zygote.renew();
        }
        reports.send(Report::Lost(reason, death));
    }
    // What it started may hold its pipes open, and be at work.
    worker.hold.release().await;
    read_pipes_out(&mut worker.pipes).await;
}

/// A worker that takes calls: itself, its channels, its functions.
type Ready = (Worker, Vec<StdUnixStream>, Vec<Inspected>);

/// Why a worker takes no calls.
enum Unready {
    /// The app's code raised.
    Failed(Failure),
    /// It went away, or is stuck.
    Lost(Failure),
}

impl Unready {
    fn into_failure(self) -> Failure {
        match self {
            Self::Failed(failure) | Self::Lost(failure) => failure,
        }
    }
}

/// A worker process and what its owner holds of it.
struct Worker {
    process: Process,
    control: Control,
    pipes: JoinSet<()>,
    hold: Hold,
}

/// A worker process on its way to being an instance.
pub(crate) struct Started {
    pub(super) process: Process,
    pub(super) ends: Ends,
    pub(super) hold: Hold,
}

impl Started {
    /// Starts a worker, which runs none of the app's code before it is told what to load.
    pub(super) async fn spawn(launch: &Launch, channels: usize) -> io::Result<Self> {
        let (mut process, ends) = Process::start(launch, channels)?;
        // While the interpreter starts.
        let hold = Hold::take(&launch.sandbox, &launch.bounds, process.pid(), process.temporary.take()).await;
        Ok(Self { process, ends, hold })
    }
}

impl Worker {
    /// Starts the process and has it load the app.
    async fn load(start: &Start) -> Result<Ready, Failure> {
        if let Some(zygote) = &start.zygote
            && let Some(forked) = zygote.instance().await?
        {
            match Self::become_ready(start, forked, None).await {
                // Not the app's code, but the fork may be to blame: perhaps it works without.
                Err(Unready::Lost(failure)) => zygote.report(Err(failure.message)),
                Err(Unready::Failed(failure)) => {
                    zygote.renew();
                    return Err(failure);
                }
                Ok(ready) => {
                    zygote.report(Ok(()));
                    return Ok(ready);
                }
            }
        }
        if let Some((stock, launch)) = &start.stock
            && let Some(spare) = stock.take(&start.pool, launch).await
        {
            let is_blank = spare.process.open.is_some();
            match Self::become_ready(start, spare, Some(&start.load)).await {
                // Not the app's code, but what the worker had yet to enter may be to blame: perhaps it works without.
                Err(Unready::Lost(failure)) if is_blank => tracing::warn!(
                    target: "fnmesh::runtime", app = %start.pool.app, reason = failure.message,
                    "a waiting worker could not be used"
                ),
                other => return other.map_err(Unready::into_failure),
            }
        }
        let started = Started::spawn(&start.launch, 1 + start.config.threads).await;
        let started = started.map_err(|error| spawn_failure(&start.launch, &error))?;
        Self::become_ready(start, started, Some(&start.load)).await.map_err(Unready::into_failure)
    }

    /// Waits until the process is an instance of the app, for which it may have to load it first.
    async fn become_ready(start: &Start, started: Started, load: Option<&[u8]>) -> Result<Ready, Unready> {
        let Started { mut process, mut ends, hold } = started;
        let enter = process.open.take().map(|open| enter(&start.launch, open));
        let mut pipes = JoinSet::new();
        let last_words = LastWords::default();
        copy_output(&mut pipes, ends.stdout, ends.stderr, &start.pool, &last_words);
        let control = Control::new(ends.channels.remove(0), &start.config)
            .map_err(|error| Unready::Failed(spawn_failure(&start.launch, &error)))?;
        let mut worker = Self { process, control, pipes, hold };
        let (limit, bounds, pid) = (start.config.start_timeout, &start.launch.bounds, worker.process.pid());
        let ready = async {
            let enter = enter.transpose()?;
            worker.control.become_ready(start, enter.as_deref(), load).await
        };
        let ready = timeout(limit, ready);
        let loaded = tokio::select! {
            loaded = ready => loaded,
            reason = worker.hold.exceeded(pid, bounds, &start.penalty) => {
                Ok(Err(LoadError::Failed(limit_exceeded(&reason))))
            }
        };
        let unready = match loaded {
            Ok(Ok(inspected)) => match start.check_names(&inspected) {
                Ok(()) => return Ok((worker, ends.channels, inspected)),
                Err(failure) => Unready::Failed(failure),
            },
            Ok(Err(LoadError::Failed(failure))) => Unready::Failed(failure),
            Ok(Err(LoadError::Lost(error))) => {
                let reason = wait_or_kill(&mut worker.process, Duration::from_secs(1)).await;
                let failure = lost_while_loading(&worker.hold.explain(reason, bounds), &error);
                read_pipes_out(&mut worker.pipes).await;
                Unready::Lost(Failure { stack: last_words.text(), ..failure })
            }
            Err(_) => Unready::Lost(start_timeout(limit)),
        };
        worker.process.kill();
        worker.process.wait().await;
        read_pipes_out(&mut worker.pipes).await;
        worker.hold.release().await;
        Err(unready)
    }

    /// Watches over a ready worker until its process is gone: how that came, and what it died of if nobody asked it to.
    async fn serve(
        &mut self,
        start: &Start,
        instance: &Arc<Instance>,
        retire: impl Future<Output = Duration>,
        reports: &Reports,
    ) -> (String, Option<Death>) {
        let Pool { app, language, .. } = &*start.pool;
        let (pid, bounds) = (self.process.pid(), &start.launch.bounds);
        let reason = tokio::select! {
            reason = self.process.wait() => self.hold.explain(reason, bounds),
            reason = self.hold.exceeded(pid, bounds, &start.penalty) => {
                self.process.kill();
                self.process.wait().await;
                reason
            }
            // A worker that closes its control channel is on its way out, or broken.
            () = self.control.serve(&start.pool) => {
                let reason = wait_or_kill(&mut self.process, start.config.grace).await;
                self.hold.explain(reason, bounds)
            }
            reason = instance.condemned() => {
                tracing::warn!(target: "fnmesh::runtime", %app, %language, pid, reason, "instance replaced");
                start.pool.note_lost();
                reports.send(Report::Condemned);
                let _ = timeout(start.config.grace, drained(start, instance)).await;
                self.process.kill();
                self.process.wait().await;
                return (format!("it was replaced, because {reason}"), None);
            }
            patience = retire => {
                let until = Instant::now() + patience;
                tokio::select! {
                    _ = timeout_at(until, drained(start, instance)) => {}
                    reason = self.process.wait() => return (reason, None),
                }
                return (self.control.stop(&mut self.process, &start.pool).await, None);
            }
        };
        start.pool.note_lost();
        tracing::warn!(target: "fnmesh::runtime", %app, %language, pid, reason, "instance lost");
        (reason, Some(instance.death()))
    }
}

/// What makes a worker that was started for no app one of `launch`.
fn enter(launch: &Launch, open: Open) -> io::Result<Vec<u8>> {
    // Without it the worker would stay outside of all rules.
    let access = launch.access.as_ref().ok_or_else(|| io::Error::other("what it may reach is not known"))?;
    node::enter(launch, launch.sandbox.close(open, access)?)
}

pub(super) async fn read_pipes_out(pipes: &mut JoinSet<()>) {
    let _ = timeout(PIPE_REST, async { while pipes.join_next().await.is_some() {} }).await;
}

/// Resolves when no caller waits for the instance and none can start to.
async fn drained(start: &Start, instance: &Arc<Instance>) {
    start.threads.detach(instance).await;
    instance.idle().await;
}

pub(super) async fn wait_or_kill(process: &mut Process, patience: Duration) -> String {
    if let Ok(reason) = timeout(patience, process.wait()).await {
        return reason;
    }
    process.kill();
    process.wait().await
}

pub(super) fn spawn_failure(launch: &Launch, error: &io::Error) -> Failure {
    Failure {
        kind: "SpawnError".to_owned(),
        message: format!("cannot run {} in {}: {error}", launch.program.display(), launch.directory.display()),
        stack: String::new(),
    }
}

pub(super) fn limit_exceeded(reason: &str) -> Failure {
    Failure {
        kind: "LimitExceeded".to_owned(),
        message: format!("{reason}, while it loaded the app"),
        stack: String::new(),
    }
}

pub(super) fn lost_while_loading(reason: &str, error: &io::Error) -> Failure {
    Failure {
        kind: "WorkerLost".to_owned(),
        message: format!("{reason} while it loaded the app ({error})"),
        stack: String::new(),
    }
}

pub(super) fn start_timeout(limit: Duration) -> Failure {
    Failure {
        kind: "StartTimeout".to_owned(),
        message: format!("the app's modules were not loaded within {limit:?}; does one of them block at import?"),
        stack: String::new(),
    }
}
