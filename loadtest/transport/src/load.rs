//! A fixed number of callers, each of which calls again as soon as it has its answer.

use std::{
    fs,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use clap::Args;
use hdrhistogram::Histogram;
use serde::Serialize;
use tokio::{task::JoinSet, time::sleep_until};

/// The 100 bytes that each call carries there and back.
pub(crate) const BODY: &[u8; 100] = &[b'x'; 100];

/// What [`cpu_ticks`] counts, for each second, on every Linux.
const TICKS: f64 = 100.0;

#[derive(Args)]
pub(crate) struct Options {
    #[arg(long)]
    in_flight: usize,
    /// Calls per second, made whatever becomes of those before, rather than `in_flight` callers
    #[arg(long)]
    rate: Option<f64>,
    /// Counted, after a second that is not
    #[arg(long)]
    seconds: f64,
    /// The process whose CPU time counts as the server's
    #[arg(long)]
    server_pid: u32,
}

/// One caller.
pub(crate) trait Call: Clone + Send + 'static {
    /// Calls once, and checks the answer.
    fn call(&mut self) -> impl Future<Output = Result<()>> + Send;

    /// What is known of the connection, for people.
    fn describe(&self) -> String {
        String::new()
    }
}

#[derive(Serialize)]
pub(crate) struct Figures {
    calls: u64,
    seconds: f64,
    client_cpu_seconds: f64,
    server_cpu_seconds: f64,
    p50_us: f64,
    p99_us: f64,
}

pub(crate) async fn run(client: impl Call, options: Options) -> Result<Figures> {
    let from = Instant::now() + Duration::from_secs(1);
    let to = from + Duration::from_secs_f64(options.seconds);
    let mut callers = JoinSet::new();
    match options.rate {
        Some(rate) => drop(callers.spawn(arrive(client.clone(), rate, from, to))),
        None => (0..options.in_flight).for_each(|_| drop(callers.spawn(repeat(client.clone(), from, to)))),
    }
    let cpu = || Ok::<_, anyhow::Error>((cpu_ticks("self")?, cpu_ticks(&options.server_pid.to_string())?));
    sleep_until(from.into()).await;
    let before = (Instant::now(), cpu()?);
    sleep_until(to.into()).await;
    let after = (Instant::now(), cpu()?);
    let mut latency = histogram();
    while let Some(caller) = callers.join_next().await {
        latency.add(caller??)?;
    }
    eprintln!("{}", client.describe());
    let quantile = |quantile| latency.value_at_quantile(quantile) as f64 / 1e3;
    Ok(Figures {
        calls: latency.len(),
        seconds: (after.0 - before.0).as_secs_f64(),
        client_cpu_seconds: (after.1.0 - before.1.0) as f64 / TICKS,
        server_cpu_seconds: (after.1.1 - before.1.1) as f64 / TICKS,
        p50_us: quantile(0.5),
        p99_us: quantile(0.99),
    })
}

/// The latencies, in nanoseconds, of the calls answered between two moments.
async fn repeat(mut client: impl Call, from: Instant, to: Instant) -> Result<Histogram<u32>> {
    let mut latency = histogram();
    let mut began = Instant::now();
    while began < to {
        client.call().await?;
        let ended = Instant::now();
        if (from..to).contains(&ended) {
            latency.saturating_record((ended - began).as_nanos() as u64);
        }
        began = ended;
    }
    Ok(latency)
}

/// The latencies, from when each was due, of calls that are due at a constant rate between two moments.
async fn arrive(client: impl Call, rate: f64, from: Instant, to: Instant) -> Result<Histogram<u32>> {
    let start = Instant::now();
    let due = |number: u32| start + Duration::from_secs_f64(f64::from(number) / rate);
    let (mut latency, mut calls) = (histogram(), JoinSet::new());
    let mut number = 0;
    while due(number) < to {
        sleep_until((Instant::now() + Duration::from_millis(1)).into()).await;
        while due(number) <= Instant::now() {
            let (mut client, due) = (client.clone(), due(number));
            number += 1;
            calls.spawn(async move {
                client.call().await?;
                anyhow::Ok((due, due.elapsed()))
            });
        }
        while let Some(ended) = calls.try_join_next() {
            let (due, took) = ended??;
            if (from..to).contains(&due) {
                latency.saturating_record(took.as_nanos() as u64);
            }
        }
    }
    while let Some(ended) = calls.join_next().await {
        let (due, took) = ended??;
        if (from..to).contains(&due) {
            latency.saturating_record(took.as_nanos() as u64);
        }
    }
    Ok(latency)
}

fn histogram() -> Histogram<u32> {
    // Small: each caller has one, and all are to stay in the cache.
    Histogram::new_with_bounds(1_000, 60_000_000_000, 2).expect("the bounds are in order")
}

/// User and system time of all threads of a process so far.
fn cpu_ticks(process: &str) -> Result<u64> {
    let path = format!("/proc/{process}/stat");
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    // The name in parentheses may hold anything. proc(5), counted from field 3: utime 14, stime 15.
    let (_, fields) = text.rsplit_once(')').with_context(|| format!("{path} has no name"))?;
    fields.split_whitespace().skip(11).take(2).map(|field| Ok(field.parse::<u64>()?)).sum()
}
