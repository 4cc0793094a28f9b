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
    bounds::Hold,
    control::{Control, LoadError},
    pipes::{LastWords, copy_lines},
};
use crate::{
    config::Config,
    inspect::{Describe, Inspected},
    logs,
    pool::{
        Pool,
        plan::{Death, Id},
    },
    threads::Threads,
    worker::process::{Launch, Process},
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
    pub(crate) launch: Launch,
    /// Body of the load frame.
    pub(crate) load: Vec<u8>,
    pub(crate) describe: Describe,
    /// The functions of the first instance: their order is their index.
    pub(crate) names: OnceLock<Vec<String>>,
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
        reports.send(Report::Lost(reason, death));
    }
    worker.read_pipes_out().await;
    worker.hold.release().await;
}

/// A worker process and what its owner holds of it.
struct Worker {
    process: Process,
    control: Control,
    pipes: JoinSet<()>,
    hold: Hold,
}

impl Worker {
    /// Starts the process and has it load the app.
    async fn load(start: &Start) -> Result<(Self, Vec<StdUnixStream>, Vec<Inspected>), Failure> {
        let spawn_failure = |error: io::Error| spawn_failure(&start.launch, &error);
        let mut process = Process::start(&start.launch).map_err(spawn_failure)?;
        let mut pipes = JoinSet::new();
        let last_words = LastWords::default();
        pipes.spawn(copy_lines(process.stdout.take(), Arc::clone(&start.pool), logs::STDOUT, None));
        pipes.spawn(copy_lines(process.stderr.take(), Arc::clone(&start.pool), logs::STDERR, Some(last_words.clone())));
        let mut channels = std::mem::take(&mut process.channels);
        let control = Control::new(channels.remove(0), &start.config).map_err(spawn_failure)?;
        let Launch { sandbox, bounds, .. } = &start.launch;
        let pid = process.pid();
        // While the interpreter starts: it runs none of the app's code before it is told what to load.
        let hold = Hold::take(sandbox, bounds, pid, process.temporary.take()).await;
        let mut worker = Self { process, control, pipes, hold };
        let limit = start.config.start_timeout;
        let loaded = tokio::select! {
            loaded = timeout(limit, worker.control.load(start)) => loaded,
            reason = worker.hold.exceeded(pid, bounds) => Ok(Err(LoadError::Failed(limit_exceeded(&reason)))),
        };
        let failure = match loaded {
            Ok(Ok(inspected)) => match start.check_names(&inspected) {
                Ok(()) => return Ok((worker, channels, inspected)),
                Err(failure) => failure,
            },
            Ok(Err(LoadError::Failed(failure))) => failure,
            Ok(Err(LoadError::Lost(error))) => {
                let reason = wait_or_kill(&mut worker.process, Duration::from_secs(1)).await;
                let failure = lost_while_loading(&worker.hold.explain(reason, bounds), &error);
                worker.read_pipes_out().await;
                Failure { stack: last_words.text(), ..failure }
            }
            Err(_) => start_timeout(limit),
        };
        worker.process.kill();
        worker.process.wait().await;
        worker.read_pipes_out().await;
        worker.hold.release().await;
        Err(failure)
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
            reason = self.hold.exceeded(pid, bounds) => {
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

    async fn read_pipes_out(&mut self) {
        let _ = timeout(PIPE_REST, async { while self.pipes.join_next().await.is_some() {} }).await;
    }
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

fn spawn_failure(launch: &Launch, error: &io::Error) -> Failure {
    Failure {
        kind: "SpawnError".to_owned(),
        message: format!("cannot run {} in {}: {error}", launch.program.display(), launch.directory.display()),
        stack: String::new(),
    }
}

fn limit_exceeded(reason: &str) -> Failure {
    Failure {
        kind: "LimitExceeded".to_owned(),
        message: format!("{reason}, while it loaded the app"),
        stack: String::new(),
    }
}

fn lost_while_loading(reason: &str, error: &io::Error) -> Failure {
    Failure {
        kind: "WorkerLost".to_owned(),
        message: format!("{reason} while it loaded the app ({error})"),
        stack: String::new(),
    }
}

fn start_timeout(limit: Duration) -> Failure {
    Failure {
        kind: "StartTimeout".to_owned(),
        message: format!("the app's modules were not loaded within {limit:?}; does one of them block at import?"),
        stack: String::new(),
    }
}
