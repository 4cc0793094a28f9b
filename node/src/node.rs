//! A whole node: its control thread, its gateway, its apps, and how they end.

use std::{
    cell::{Cell, RefCell},
    convert::Infallible,
    future::{self, Future},
    io,
    net::{IpAddr, SocketAddr},
    rc::Rc,
    sync::{Arc, mpsc},
    thread::{self, JoinHandle},
    time::Duration,
};

use fnmesh_gateway::Server;
use fnmesh_mesh::{Dispatch, StartError as MeshError};
use fnmesh_runtime::{
    Runtime,
    sandbox::{Levels, Mode},
};
use tokio::{
    sync::Notify,
    task::{self, JoinSet, LocalSet},
    time,
};

use crate::{
    admin::Admin,
    app::{self, Host},
    config::Config,
    discover::{self, Found},
    error::StartError,
    event::{Event, Observer},
    hosting::Hosting,
    idempotency::{Idempotent, Store},
    mesh, port,
    shutdown::{Phase, Signals, Switch},
    watch::Watcher,
};

/// How long workers may take to end when nobody wants to wait.
const LAST_MOMENT: Duration = Duration::from_secs(2);

/// How long other nodes may take to start what only this one serves, before it stops.
const HAND_OVER_PATIENCE: Duration = Duration::from_secs(10);

/// Below the node's data: the deployed apps it hosts.
const APPS: &str = "apps";

/// A node in this process, with a control thread of its own. Dropped, it stops at once.
#[derive(Debug)]
pub struct Node {
    address: SocketAddr,
    switch: Switch,
    thread: Option<JoinHandle<Result<usize, StartError>>>,
}

impl Node {
    /// Starts a node; returns as soon as it listens, while its apps are still being loaded.
    ///
    /// # Errors
    /// [`StartError`], with nothing left running.
    pub fn start(config: Config, observer: Observer) -> Result<Self, StartError> {
        let switch = Switch::default();
        let (listening, address) = mpsc::channel();
        let wanted = switch.clone();
        let control = move || {
            block_on(control(config, observer, wanted, move |address| {
                // Its receiver waits right below.
                let _ = listening.send(address);
            }))
        };
        let thread = thread::Builder::new().name("fnmesh-control".to_owned()).spawn(control)?;
        match address.recv() {
            Ok(address) => Ok(Self { address, switch, thread: Some(thread) }),
            Err(_) => match join(thread) {
                Err(error) => Err(error),
                Ok(_) => Err(io::Error::other("the node stopped before it listened").into()),
            },
        }
    }

    /// Where it listens; the port is the real one when 0 was asked for.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Finishes the calls in flight, for at most [`Config::drain_timeout`], stops, and returns how
    /// many calls were cut off.
    ///
    /// # Errors
    /// What the control thread failed with.
    pub fn shutdown(mut self) -> Result<usize, StartError> {
        self.switch.ask(Phase::Drain);
        self.thread.take().map_or(Ok(0), join)
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.switch.ask(Phase::Stop);
        if let Some(thread) = self.thread.take() {
            // A panic has been printed, and the thread that drops may be panicking itself.
            let _ = thread.join();
        }
    }
}

fn join(thread: JoinHandle<Result<usize, StartError>>) -> Result<usize, StartError> {
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// Runs a node on this thread until a signal ends it, or `given_up`, at once; returns how many calls were cut off.
///
/// # Errors
/// [`StartError`], with nothing left running.
pub(crate) fn run(config: Config, observer: Observer, given_up: impl Future<Output = ()>) -> Result<usize, StartError> {
    block_on(async {
        let switch = Switch::default();
        let mut signals = Signals::install()?;
        let stop = async {
            given_up.await;
            switch.ask(Phase::Stop);
            future::pending::<Infallible>().await
        };
        let ended = tokio::select! {
            ended = control(config, observer, switch.clone(), |_| {}) => ended,
            never = signals.forward(switch.clone()) => match never {},
            never = stop => match never {},
        };
        match (ended, signals.first()) {
            (Err(StartError::Mesh(MeshError::GivenUp(address))), Some(signal)) => {
                Err(StartError::Interrupted { signal, address })
            }
            (ended, _) => ended,
        }
    })
}

fn block_on(node: impl Future<Output = Result<usize, StartError>>) -> Result<usize, StartError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    LocalSet::new().block_on(&runtime, node)
}

async fn control(
    mut config: Config,
    observer: Observer,
    switch: Switch,
    listening: impl FnOnce(SocketAddr),
) -> Result<usize, StartError> {
    config.settle();
    let found = discover::discover(&config.directories)?;
    let runtime = Runtime::new(config.runtime.clone());
    check_sandbox(&runtime.levels())?;
    for app in &found {
        runtime.expect(&app.name, &app.directory);
    }
    let data = config.mesh.as_ref().map(|mesh| mesh.directory.clone());
    let mut mesh = match config.mesh.take() {
        Some(wanted) => Some(mesh::start(wanted, &runtime, config.gateway.threads.get(), &observer, &switch).await?),
        None => None,
    };
    let kept = data.clone();
    // Reading what is stored takes a second at most, in which signals are taken but not acted on.
    let answers = task::spawn_blocking(move || Store::open(kept.as_deref())).await.map_err(io::Error::other)?;
    let server = listen(&config, &runtime, mesh.as_ref(), answers)?;
    let address = server.address();
    listening(address);
    let apps = found.iter().map(|app| app.name.clone()).collect();
    observer(&Event::Listening { url: url(address), pid: std::process::id(), apps });
    let drain_timeout = config.drain_timeout;
    let is_deployed = config.deploy_to.is_some() && mesh.is_some();
    let (host, apps) = host(config, runtime.clone(), Arc::clone(&observer), found)?;
    let mut tasks = JoinSet::new();
    let hosting = mesh.as_mut().zip(data).map(|(mesh, data)| {
        let (commands, asks) = mesh.asked();
        let hosting = Hosting::new(Rc::clone(&host), mesh.handle().clone(), address, data.join(APPS));
        tasks.spawn_local(Rc::clone(&hosting).run(commands, asks));
        hosting
    });
    for (found, changed) in apps {
        let target = hosting.clone().filter(|_| is_deployed);
        tasks.spawn_local(app::keep(Rc::clone(&host), target, found, changed));
    }
    let is_lost = tokio::select! {
        () = switch.asked(Phase::Drain) => false,
        () = ended(mesh.as_ref()) => true,
    };
    if is_lost {
        // Alone it would go on for ever, with routes of now: whoever looks after it shall start it anew.
        tracing::error!(target: "fnmesh::node", "the thread of the mesh has failed; this node stops");
    } else if let Some(hosting) = hosting {
        let patience = drain_timeout.min(HAND_OVER_PATIENCE);
        tokio::select! {
            () = hosting.leave(patience) => {}
            () = switch.asked(Phase::Stop) => {}
        }
    }
    drop(tasks);
    if let Some(mesh) = &mesh {
        mesh.say_draining(address);
    }
    let cut_off = stop(server, &runtime, &observer, &switch, drain_timeout).await;
    if let Some(mesh) = mesh {
        mesh.leave().await;
    }
    if is_lost { Err(StartError::MeshLost) } else { Ok(cut_off) }
}

/// Waits until the part in the mesh ends by itself; for ever without one.
async fn ended(mesh: Option<&mesh::Part>) {
    match mesh {
        Some(mesh) => mesh.ended().await,
        None => future::pending().await,
    }
}

/// Says how workers are confined, and refuses to go on with less than was demanded.
fn check_sandbox(levels: &Levels) -> Result<(), StartError> {
    let missing = levels.missing();
    if levels.mode == Mode::Strict && !missing.is_empty() {
        return Err(StartError::Sandbox { missing });
    }
    tracing::info!(target: "fnmesh::node", mode = %levels.mode, %levels, "sandbox of workers");
    Ok(())
}

fn listen(
    config: &Config,
    runtime: &Runtime,
    mesh: Option<&mesh::Part>,
    answers: Arc<Store>,
) -> Result<Server, StartError> {
    let mesh = mesh.map(|mesh| mesh.handle().clone());
    let admin = Arc::new(Admin::new(config.gateway.threads.get(), runtime.levels(), mesh.clone()));
    let local = runtime.clone();
    let address = config.gateway.address;
    let invoker =
        move |thread| Idempotent::new(Dispatch::new(local.attach(thread), mesh.clone()), Arc::clone(&answers));
    Server::start(config.gateway.clone(), admin, invoker).map_err(|source| {
        let holder = (source.kind() == io::ErrorKind::AddrInUse).then(|| port::holder(address.port())).flatten();
        StartError::Bind { address, source, holder }
    })
}

/// An app, and who tells of its changes.
type Kept = (Found, Arc<Notify>);

/// What the tasks of all apps share, and the apps they are for.
fn host(
    config: Config,
    runtime: Runtime,
    observer: Observer,
    found: Vec<Found>,
) -> Result<(Rc<Host>, Vec<Kept>), StartError> {
    let found: Vec<_> = found.into_iter().map(|found| (found, Arc::new(Notify::new()))).collect();
    let watcher = config.watch.then(|| watcher(&found)).transpose()?;
    if found.is_empty() {
        observer(&Event::Settled { apps: Vec::new() });
    }
    let host = Rc::new(Host {
        config,
        runtime,
        observer,
        watcher: watcher.map(RefCell::new),
        names: RefCell::new(app::names(found.iter().map(|(app, _)| (app.name.as_str(), app.directory.as_path())))),
        unsettled: Cell::new(found.len()),
    });
    Ok((host, found))
}

fn watcher(found: &[Kept]) -> io::Result<Watcher> {
    let apps = found.iter().map(|(app, changed)| (app.directory.clone(), Arc::clone(changed))).collect();
    let mut watcher = Watcher::new(apps).map_err(io::Error::other)?;
    for (app, _) in found {
        watcher.watch(&app.directory).map_err(io::Error::other)?;
    }
    Ok(watcher)
}

/// Drains gateway and runtime, unless told to stop at once; returns how many calls were cut off.
async fn stop(server: Server, runtime: &Runtime, observer: &Observer, switch: &Switch, patience: Duration) -> usize {
    observer(&Event::Draining { in_flight: in_flight(runtime) });
    let drained = async {
        // Callers first: the runtime must serve what they have sent. The limit is kept below, where
        // what is cut off can be counted.
        server.drain(patience.saturating_add(LAST_MOMENT)).await;
        runtime.drain(patience.saturating_add(LAST_MOMENT)).await;
    };
    let cut_off = tokio::select! {
        () = drained => 0,
        () = time::sleep(patience) => cut_off(runtime).await,
        () = switch.asked(Phase::Stop) => cut_off(runtime).await,
    };
    observer(&Event::Stopped { cut_off });
    cut_off
}

async fn cut_off(runtime: &Runtime) -> usize {
    let calls = in_flight(runtime);
    // Workers that are left after that die with this thread.
    let _ = time::timeout(LAST_MOMENT, runtime.drain(Duration::ZERO)).await;
    calls
}

fn in_flight(runtime: &Runtime) -> usize {
    runtime.apps().iter().flat_map(|app| &app.pools).map(|pool| pool.in_flight + pool.queued).sum()
}

/// A URL that reaches a node which listens on `address`, from its own machine.
fn url(address: SocketAddr) -> String {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(std::net::Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(std::net::Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    format!("http://{}", SocketAddr::new(ip, address.port()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn url_of_every_interface_is_the_local_one() {
        for (address, expected) in [
            ("0.0.0.0:80", "http://127.0.0.1:80"),
            ("[::]:80", "http://[::1]:80"),
            ("10.0.0.1:8080", "http://10.0.0.1:8080"),
        ] {
            assert_eq!(url(address.parse().unwrap()), expected);
        }
    }
}
