//! The task that owns a pool's zygote: a process that has the app loaded and forks instances of it.
//!
//! It is started for the first instance and stays until the pool is closed, or has had no instance and no use for one
//! for as long as an idle instance stays. When it dies the instances go on, and the
//! next one starts another; so it is when an instance could not start or died of no call, lest a state that the import
//! left behind stays for ever. An app that cannot be forked says so once; then its instances are spawned.

use std::{
    io::{self, IoSlice},
    mem::MaybeUninit,
    os::fd::BorrowedFd,
    path::Path,
    sync::Arc,
    time::Duration,
};

use fnmesh_invoke::Failure;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use serde::{Deserialize, Serialize};
use tokio::{
    io::Interest,
    net::UnixStream,
    sync::{mpsc, oneshot},
    task::JoinSet,
    time::{Instant, sleep_until, timeout},
};

use super::{
    bounds::Hold,
    control::{Control, LoadError},
    life::{
        Start, Started, limit_exceeded, lost_while_loading, read_pipes_out, spawn_failure, start_timeout, wait_or_kill,
    },
    pipes::{LastWords, copy_output},
};
use crate::{
    pool::Pool,
    worker::{
        frame::{self, BodyFormat, Header, Kind},
        known::Expected,
        process::{Ends, Launch, Process},
        sandbox::Temporary,
    },
};

/// The control channel, and the one that descriptors go on.
const CHANNELS: usize = 2;
/// Descriptors in one frame at most; the kernel takes 253.
const MAX_DESCRIPTORS: usize = 128;

/// So many instances in a row that are lost before they are ready are no accident: the app does not survive a fork.
const LOST: u32 = 2;

/// An instance that has the app loaded, or nothing where it has to be spawned.
pub(super) type Given = Option<Started>;

/// The way to a pool's zygote.
pub(crate) struct Handle(mpsc::UnboundedSender<Request>);

pub(crate) enum Request {
    Instance(oneshot::Sender<Result<Given, Failure>>),
    Renew,
    /// What became of an instance: ready, or lost for that reason.
    Outcome(Result<(), String>),
}

/// What a zygote says when it was asked for an instance.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(super) enum Answer {
    /// This is its process id.
    Forked { pid: i32 },
    /// The zygote itself is the instance, as it must not be forked.
    Itself { reason: String },
}

impl Handle {
    pub(crate) fn new() -> (Self, mpsc::UnboundedReceiver<Request>) {
        let (sender, receiver) = mpsc::unbounded_channel();
        (Self(sender), receiver)
    }

    /// A forked instance; the app may have to be loaded for that first.
    ///
    /// # Errors
    /// What the app's code raised while it was loaded.
    pub(super) async fn instance(&self) -> Result<Given, Failure> {
        let (sender, receiver) = oneshot::channel();
        // Without a task any more, the pool is being closed.
        let _ = self.0.send(Request::Instance(sender));
        receiver.await.unwrap_or(Ok(None))
    }

    /// Has the app loaded anew for the next instance.
    pub(super) fn renew(&self) {
        let _ = self.0.send(Request::Renew);
    }

    /// Tells what became of an instance: ready, or lost before for that reason.
    pub(super) fn report(&self, outcome: Result<(), String>) {
        let _ = self.0.send(Request::Outcome(outcome));
    }
}

/// Serves requests until `retire` resolves.
pub(crate) async fn run(
    start: Arc<Start>,
    mut requests: mpsc::UnboundedReceiver<Request>,
    retire: impl Future<Output = Duration>,
) {
    let mut owner = Owner { start, zygote: None, spawns: false, lost: 0, pipes: JoinSet::new() };
    tokio::select! {
        () = owner.serve(&mut requests) => {}
        _ = retire => {}
    }
    owner.discard().await;
    read_pipes_out(&mut owner.pipes).await;
}

struct Owner {
    start: Arc<Start>,
    zygote: Option<Zygote>,
    /// Forking was given up.
    spawns: bool,
    /// Instances in a row that were lost before they were ready.
    lost: u32,
    /// What zygotes write, past their own capture.
    pipes: JoinSet<()>,
}

struct Zygote {
    process: Process,
    control: Control,
    requests: UnixStream,
    last_words: LastWords,
    hold: Hold,
}

impl Owner {
    async fn serve(&mut self, requests: &mut mpsc::UnboundedReceiver<Request>) {
        let keep_alive = self.start.pool.bounds.keep_alive;
        let mut used = Instant::now();
        loop {
            let request = tokio::select! {
                request = requests.recv() => request,
                () = sleep_until(used + keep_alive), if self.zygote.is_some() => {
                    used = Instant::now();
                    if self.start.pool.is_empty() {
                        self.discard().await;
                    }
                    continue;
                }
                () = watch(self.zygote.as_mut(), &self.start.pool) => {
                    let reason = self.discard().await;
                    let Pool { app, language, .. } = &*self.start.pool;
                    tracing::warn!(target: "fnmesh::runtime", %app, %language, reason, "zygote lost");
                    continue;
                }
            };
            match request {
                Some(Request::Instance(sender)) if sender.is_closed() => {}
                Some(Request::Instance(sender)) => {
                    // An instance that nobody waits for any more is dropped, which kills it.
                    used = Instant::now();
                    let given = self.instance().await;
                    let is_forked = matches!(given, Ok(Some(_)));
                    let _ = sender.send(given);
                    if is_forked {
                        self.leave_group().await;
                    }
                }
                Some(Request::Renew) => drop(self.discard().await),
                Some(Request::Outcome(Ok(()))) => self.lost = 0,
                Some(Request::Outcome(Err(reason))) => {
                    self.lost += 1;
                    if self.lost >= LOST {
                        self.give_up(&reason);
                    }
                    self.discard().await;
                }
                None => return,
            }
        }
    }

    async fn instance(&mut self) -> Result<Given, Failure> {
        let start = Arc::clone(&self.start);
        let limit = start.config.start_timeout;
        while !self.spawns {
            let is_new = self.zygote.is_none();
            if is_new {
                self.load(&start).await?;
            }
            let Some(zygote) = &mut self.zygote else { break };
            match timeout(limit, zygote.fork(&start)).await {
                Ok(Ok((answer, started))) => return Ok(self.born(answer, started).await),
                Ok(Err(LoadError::Failed(failure))) => {
                    self.discard().await;
                    return Err(failure);
                }
                Ok(Err(LoadError::Lost(error))) if is_new => {
                    self.give_up(&format!("its zygote ended when it was to fork: {error}"));
                }
                // It died since the last instance was asked for, and did not get as far as to say so.
                Ok(Err(LoadError::Lost(_))) => {}
                Err(_) => self.give_up(&format!("its zygote did not fork within {limit:?}")),
            }
            self.discard().await;
        }
        Ok(None)
    }

    /// Moves the zygote to the group of its next instance. That takes up to 8 ms, of which no start has to wait.
    async fn leave_group(&mut self) {
        if let Some(Zygote { hold, process, .. }) = &mut self.zygote {
            let Launch { sandbox, bounds, .. } = &*self.start.launch;
            hold.leave(sandbox, bounds, process.pid()).await;
        }
    }

    /// Makes a zygote and waits until it has loaded the app.
    async fn load(&mut self, start: &Start) -> Result<(), Failure> {
        let made = Zygote::start(start, &mut self.pipes).await;
        let zygote = self.zygote.insert(made.map_err(|error| spawn_failure(&start.launch, &error))?);
        let (limit, bounds, pid) = (start.config.start_timeout, &start.launch.bounds, zygote.process.pid());
        start.pool.note_standby(Some(pid));
        let loaded = tokio::select! {
            loaded = timeout(limit, zygote.control.loaded(&start.pool)) => loaded,
            reason = zygote.hold.exceeded(pid, bounds, &start.penalty) => {
                Ok(Err(LoadError::Failed(limit_exceeded(&reason))))
            }
        };
        let failure = match loaded {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(LoadError::Failed(failure))) => failure,
            Ok(Err(LoadError::Lost(error))) => {
                let reason = wait_or_kill(&mut zygote.process, Duration::from_secs(1)).await;
                let failure = lost_while_loading(&zygote.hold.explain(reason, bounds), &error);
                read_pipes_out(&mut self.pipes).await;
                Failure { stack: zygote.last_words.text(), ..failure }
            }
            Err(_) => start_timeout(limit),
        };
        self.discard().await;
        Err(failure)
    }

    /// Takes over the instance that the zygote spoke of.
    async fn born(&mut self, answer: Answer, started: Unborn) -> Given {
        let Unborn { ends, expected, temporary } = started;
        let zygote = self.zygote.as_ref()?;
        match answer {
            Answer::Forked { pid } => match Process::adopt(pid, expected, temporary) {
                Ok(mut process) => {
                    let hold = zygote.hold.forked(process.temporary.take());
                    return Some(Started { process, ends, hold });
                }
                Err(error) => self.give_up(&format!("its zygote named no instance: {error}")),
            },
            Answer::Itself { reason } => {
                self.give_up(&format!("{reason} while it was loaded"));
                self.start.pool.note_standby(None);
                return self.zygote.take().map(|Zygote { process, hold, .. }| Started { process, ends, hold });
            }
        }
        self.discard().await;
        None
    }

    fn give_up(&mut self, reason: &str) {
        let Pool { app, language, .. } = &*self.start.pool;
        if !self.spawns {
            tracing::info!(target: "fnmesh::runtime", %app, %language, reason, "instances are spawned instead of forked");
        }
        self.spawns = true;
    }

    /// Ends the zygote, if there is one, and says how it ended.
    async fn discard(&mut self) -> String {
        let Some(mut zygote) = self.zygote.take() else { return String::new() };
        self.start.pool.note_standby(None);
        // It has nothing to finish: hooks and exit handlers are its instances'.
        let reason = wait_or_kill(&mut zygote.process, Duration::ZERO).await;
        zygote.hold.release().await;
        reason
    }
}

/// Resolves when the zygote is on its way out; passes on what it logs.
async fn watch(zygote: Option<&mut Zygote>, pool: &Pool) {
    let Some(zygote) = zygote else { return std::future::pending().await };
    tokio::select! {
        () = zygote.control.serve(pool) => {}
        _ = zygote.process.wait() => {}
    }
}

impl Zygote {
    /// Starts it and has it load the app, which it then is at.
    async fn start(start: &Start, pipes: &mut JoinSet<()>) -> io::Result<Self> {
        let Started { process, mut ends, hold } = Started::spawn(&start.launch, CHANNELS).await?;
        let last_words = LastWords::default();
        copy_output(pipes, ends.stdout, ends.stderr, &start.pool, &last_words);
        let requests = UnixStream::from_std(ends.channels.remove(1))?;
        let mut control = Control::new(ends.channels.remove(0), &start.config)?;
        control.send_load(&start.load, frame::LOAD_ZYGOTE).await?;
        Ok(Self { process, control, requests, last_words, hold })
    }

    /// Asks for an instance.
    async fn fork(&mut self, start: &Start) -> Result<(Answer, Unborn), LoadError> {
        let (ends, theirs) = Ends::new(1 + start.config.threads)?;
        let temporary = self.hold.temporary_below().await?;
        let born = Born { temporary: temporary.as_deref().map(Temporary::path) };
        let born = serde_json::to_vec(&born).map_err(io::Error::from)?;
        let expected = Expected::new();
        let descriptors = theirs.descriptors();
        let batches = descriptors.chunks(MAX_DESCRIPTORS);
        for (index, batch) in batches.clone().enumerate() {
            let more = u16::try_from(batches.len() - 1 - index).map_err(io::Error::other)?;
            send(&self.requests, more, &born, batch).await?;
        }
        drop(descriptors);
        // The instance's own are the only ones, so that it is noticed when they close.
        drop(theirs);
        let answer = self.control.forked(&start.pool).await?;
        Ok((answer, Unborn { ends, expected, temporary }))
    }
}

/// Body of a fork frame.
#[derive(Serialize)]
struct Born<'a> {
    /// The instance's temporary directory, if it has one.
    temporary: Option<&'a Path>,
}

/// What there is of an instance before its process is known.
struct Unborn {
    ends: Ends,
    expected: Expected,
    temporary: Option<Arc<Temporary>>,
}

async fn send(stream: &UnixStream, more: u16, body: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut bytes = Vec::new();
    frame::encode(Header::new(Kind::Fork, 0).format(BodyFormat::Json).aux(more), &[], body, &mut bytes);
    let send = || {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        control.push(SendAncillaryMessage::ScmRights(descriptors));
        Ok(sendmsg(stream, &[IoSlice::new(&bytes)], &mut control, SendFlags::NOSIGNAL | SendFlags::DONTWAIT)?)
    };
    // A socket buffer that has room takes so few bytes whole.
    if stream.async_io(Interest::WRITABLE, send).await? == bytes.len() {
        return Ok(());
    }
    Err(io::ErrorKind::WriteZero.into())
}
