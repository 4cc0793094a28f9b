//! Loads a server at a constant rate of arrivals and prints what became of the calls, as one line of JSON.
//!
//! The load is open: when a call is due has been decided beforehand, and a slow server makes calls late, not fewer.
//! Latency counts from the moment a call was due, so that waiting for a free connection is part of it.

mod answer;
mod connection;
mod generator;
mod schedule;
mod tally;

use std::net::{SocketAddr, ToSocketAddrs};
use std::num::{NonZeroU64, NonZeroUsize};
use std::os::fd::RawFd;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use clap::Parser;
use rustix::event::{EventfdFlags, eventfd};
use rustix::io::fcntl_dupfd_cloexec;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use generator::Plan;
use schedule::Schedule;
use tally::Tally;

/// Loads a server at a constant rate of arrivals and prints what became of the calls, as one line of JSON.
#[derive(Debug, Parser)]
#[command(version)]
struct Options {
    /// Where to, such as http://127.0.0.1:8080/text/merge
    url: String,
    /// Calls per second
    #[arg(long)]
    rate: f64,
    /// Seconds that count
    #[arg(long, default_value_t = 5.0)]
    seconds: f64,
    /// Seconds before them, at the same rate, that do not count
    #[arg(long, default_value_t = 1.0)]
    warm_up: f64,
    /// Seconds after them in which late answers are waited for
    #[arg(long, default_value_t = 1.0)]
    drain: f64,
    /// Seconds from sending a call until it is given up
    #[arg(long, default_value_t = 10.0)]
    timeout: f64,
    /// Connections, each with one call at a time and opened when first needed
    #[arg(long, default_value = "64")]
    connections: NonZeroUsize,
    /// Threads, each of which takes a core at most
    #[arg(long, default_value = "1")]
    threads: NonZeroUsize,
    /// Milliseconds to sleep whatever is due or has come: times are so much too long, and the server has more of the cores
    #[arg(long, default_value_t = 0.0)]
    grain: f64,
    /// Body of a POST with JSON; without it, a GET is sent
    #[arg(long)]
    body: Option<String>,
}

fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    check(&options)?;
    raise_open_files()?;
    reserve_descriptors(options.connections)?;
    let (host, path) = split(&options.url)?;
    let to = host.to_socket_addrs().with_context(|| format!("looking up {host}"))?.next();
    let to = to.with_context(|| format!("{host} has no address"))?;
    let tally = load(&options, to, &request(host, path, options.body.as_deref()))?;
    println!("{}", serde_json::to_string(&tally.report())?);
    Ok(())
}

fn check(options: &Options) -> anyhow::Result<()> {
    ensure!(options.rate.is_finite() && options.rate > 0.0, "--rate is {}; it must be over 0", options.rate);
    for (name, seconds, least) in [
        ("--seconds", options.seconds, 0.001),
        ("--warm-up", options.warm_up, 0.0),
        ("--drain", options.drain, 0.0),
        ("--timeout", options.timeout, 0.001),
    ] {
        ensure!((least..=86_400.0).contains(&seconds), "{name} is {seconds}; it must be {least} to 86400 seconds");
    }
    ensure!((0.0..=100.0).contains(&options.grain), "--grain is {}; it must be 0 to 100 milliseconds", options.grain);
    ensure!(options.threads <= options.connections, "there are more --threads than --connections");
    Ok(())
}

/// As many open files as may be.
fn raise_open_files() -> anyhow::Result<()> {
    let maximum = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).context("raising the limit of open files")
}

/// Has the kernel's table of descriptors be large enough from the start: while it grows, a process with threads stands
/// still for 10 to 30 ms, which would count as the server's.
fn reserve_descriptors(connections: NonZeroUsize) -> anyhow::Result<()> {
    /// Standard streams, and what each thread polls with.
    const OTHERS: usize = 256;
    let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    let last = RawFd::try_from(limit.min((connections.get() + OTHERS) as u64) - 1)?;
    fcntl_dupfd_cloexec(eventfd(0, EventfdFlags::CLOEXEC)?, last).context("reserving descriptors")?;
    Ok(())
}

/// Host with port, and path.
fn split(url: &str) -> anyhow::Result<(&str, &str)> {
    let Some(rest) = url.strip_prefix("http://") else { bail!("{url} does not begin with http://") };
    let (host, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    ensure!(host.contains(':'), "{url} names no port");
    Ok((host, if path.is_empty() { "/" } else { path }))
}

fn request(host: &str, path: &str, body: Option<&str>) -> Vec<u8> {
    let text = match body {
        None => format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n"),
        Some(body) => format!(
            "POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        ),
    };
    text.into_bytes()
}

/// Runs the whole load on its threads.
fn load(options: &Options, to: SocketAddr, request: &[u8]) -> anyhow::Result<Tally> {
    let seconds = Duration::from_secs_f64;
    let start = Instant::now();
    let counted_from = start + seconds(options.warm_up);
    let length = seconds(options.warm_up + options.seconds);
    let threads = options.threads.get();
    let plan = |thread| Plan {
        to,
        request: request.to_vec(),
        connections: share(options.connections.get(), threads, thread),
        timeout: seconds(options.timeout),
        grain: seconds(options.grain / 1e3),
        counted_from,
        over: start + length,
        drain: seconds(options.drain),
    };
    let run = |thread: usize| {
        // Without this the kernel wakes sleepers up to 50 µs late.
        rustix::thread::set_current_timer_slack(NonZeroU64::new(1))?;
        generator::run(&plan(thread), Schedule::new(start, options.rate, length, thread as u64, threads as u64))
    };
    thread::scope(|scope| {
        let run = &run;
        let running: Vec<_> = (0..threads).map(|thread| scope.spawn(move || run(thread))).collect();
        let mut all = Tally::new(seconds(options.seconds));
        for thread in running {
            all.merge(&thread.join().expect("a generator does not panic").context("watching connections")?);
        }
        Ok(all)
    })
}

/// This thread's part of `count` things.
fn share(count: usize, threads: usize, thread: usize) -> usize {
    count / threads + usize::from(thread < count % threads)
}

#[cfg(test)]
mod tests;
