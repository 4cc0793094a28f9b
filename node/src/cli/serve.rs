use std::{
    future::{self, Future},
    io,
    num::NonZeroUsize,
    os::fd::RawFd,
    sync::Arc,
};

use fnmesh_mesh::{Join, membership, transport::quic::Congestion};
use fnmesh_runtime::deps::Tools;
use rustix::{
    event::{EventfdFlags, eventfd},
    io::fcntl_dupfd_cloexec,
    process::{Resource, Rlimit, getrlimit, setrlimit},
};

use super::{
    FAILED, OK, Stop,
    options::{self, LogFormat, Serve},
};
use crate::{
    Config, StartError, environment,
    event::Observer,
    logs, node,
    report::{self, Report},
};

pub(super) fn serve(options: Serve) -> Result<u8, Stop> {
    let format = match options.log_format {
        LogFormat::Text => logs::Format::Text,
        LogFormat::Json => logs::Format::Json,
    };
    start_logs(format, options.node.log.as_deref().unwrap_or("info"))?;
    let mesh = mesh(options.mesh)?;
    run(options.node, |config| Config { mesh, ..config }, future::pending())
}

pub(super) fn start_logs(format: logs::Format, levels: &str) -> Result<(), Stop> {
    logs::install(format, levels).map_err(|part| {
        Stop::usage(format!(
            "--log: {part:?} is no level; write off, error, warn, info, debug or trace, or TARGET=LEVEL"
        ))
    })
}

/// Runs a node with these options and what `adjust` makes of them, until a signal ends it, or `given_up`, at once.
pub(super) fn run(
    options: options::Node,
    adjust: impl FnOnce(Config) -> Config,
    given_up: impl Future<Output = ()>,
) -> Result<u8, Stop> {
    let json = options.json;
    let config = adjust(config(options)?);
    let observer: Observer = if json {
        Arc::new(report::json)
    } else {
        let report = if config.deploy_to.is_some() { Report::complete() } else { Report::default() };
        Arc::new(move |event| report.show(event))
    };
    make_room_for_files(config.gateway.max_connections)?;
    match node::run(config, observer, given_up) {
        Ok(0) => Ok(OK),
        Ok(_) => Ok(FAILED),
        Err(error @ StartError::Interrupted { signal, .. }) => Err(Stop::signalled(signal, error.to_string())),
        Err(error) => Err(Stop::failed(error.to_string())),
    }
}

/// Makes room for as many connections as are allowed, and for what else the node opens.
fn make_room_for_files(connections: NonZeroUsize) -> Result<(), Stop> {
    /// Workers take 3 and one for each thread; logs, listeners and packages a few.
    const OTHERS: u64 = 1024;
    let wanted = connections.get() as u64 + OTHERS;
    let current = raise_open_files(wanted)?;
    if current < wanted {
        let fits = current.saturating_sub(OTHERS);
        tracing::warn!(
            target: "fnmesh::node",
            open_files = current,
            max_connections = connections.get(),
            "this user may open too few files for as many connections; about {fits} fit (ulimit -Hn raises it)"
        );
    }
    // Where it fails the table grows with the connections.
    let _ = reserve_descriptors(wanted.min(current));
    Ok(())
}

/// Raises the limit of open files to what is wanted, or as far as this user may; how many may be open then.
fn raise_open_files(wanted: u64) -> Result<u64, Stop> {
    let limit = getrlimit(Resource::Nofile);
    let current = limit.current.unwrap_or(u64::MAX);
    if current >= wanted {
        return Ok(current);
    }
    let raised = limit.maximum.map_or(wanted, |maximum| maximum.min(wanted));
    setrlimit(Resource::Nofile, Rlimit { current: Some(raised), ..limit })
        .map_err(|error| Stop::failed(format!("cannot raise the limit of open files to {raised}: {error}")))?;
    Ok(raised)
}

/// Has the kernel's table of this process's descriptors be that large from the start. It doubles where it is full, and
/// stops whoever opens a file then until all cores have passed through a quiet moment: 10 to 30 ms on busy ones, in
/// which a gateway thread answers nobody. A process with one thread does not wait.
fn reserve_descriptors(count: u64) -> io::Result<()> {
    let Some(last) = count.checked_sub(1).and_then(|last| RawFd::try_from(last).ok()) else { return Ok(()) };
    let any = eventfd(0, EventfdFlags::CLOEXEC)?;
    fcntl_dupfd_cloexec(&any, last)?;
    Ok(())
}

fn config(options: options::Node) -> Result<Config, Stop> {
    let max_body_bytes = usize::try_from(options.max_body.as_u64())
        .map_err(|_| Stop::usage("--max-body is larger than this machine's memory"))?;
    let gateway = fnmesh_gateway::Config {
        address: options.listen,
        max_body_bytes,
        max_connections: options.max_connections,
        cors_origin: (options.cors_origin != "none").then_some(options.cors_origin),
        ..fnmesh_gateway::Config::default()
    };
    let gateway = match options.threads {
        Some(threads) => fnmesh_gateway::Config { threads, ..gateway },
        None => gateway,
    };
    let tools = Tools {
        cache_dir: options.cache.unwrap_or_else(environment::cache_dir),
        python: options.python,
        node: options.node,
        path: environment::path(),
        env: environment::all(),
    };
    let runtime = fnmesh_runtime::Config {
        node_module: environment::node_module(),
        worker_env: environment::of_workers(),
        sandbox: options.sandbox,
        // This program has no children but workers and tools.
        reap_orphans: true,
        ..Default::default()
    };
    Ok(Config {
        directories: options.directories,
        gateway,
        runtime,
        python_extensions: environment::python_extensions(options.python_extension),
        tools,
        drain_timeout: options.drain_timeout,
        ..Config::default()
    })
}

pub(super) fn mesh(options: options::Mesh) -> Result<Option<fnmesh_mesh::Config>, Stop> {
    let (Some(address), Some(directory)) = (options.mesh, options.data) else { return Ok(None) };
    let token = options.token.map(|text| text.trim().parse());
    let token = token.transpose().map_err(|error| Stop::usage(format!("--token: {error}")))?;
    let named = directory.file_name().map(|name| name.to_string_lossy().into_owned());
    Ok(Some(fnmesh_mesh::Config {
        address,
        advertise: options.advertise,
        name: options.name.or(named).unwrap_or_default(),
        zone: options.zone,
        directory,
        join: options.join.map(|address| Join { address, token }),
        congestion: match options.congestion {
            options::Congestion::Auto => Congestion::Auto,
            options::Congestion::Cubic => Congestion::Cubic,
            options::Congestion::Bbr => Congestion::Bbr,
        },
        membership: membership::Config::default(),
    }))
}
