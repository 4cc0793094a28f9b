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
    #[arg(long, default_value_t = 1)]
    in_flight: usize,
    /// Calls per second, made whatever becomes of those before, instead of `--in-flight` callers
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
}

#[derive(Serialize)]
pub(crate) struct Figures {
    calls: u64,
    seconds: f64,
    client_cpu_seconds: f64,
    server_cpu_seconds: f64,
    p50_us: f64,
    p99_us: f64,
    p999_us: f64,
    /// Calls answered within these seconds.
    in_time: u64,
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
    let (mut latency, mut in_time) = (histogram(), 0);
    while let Some(caller) = callers.join_next().await {
        let (of_caller, answered) = caller??;
        latency.add(of_caller)?;
        in_time += answered;
    }
    let quantile = |quantile| latency.value_at_quantile(quantile) as f64 / 1e3;
    Ok(Figures {
        calls: latency.len(),
        seconds: (after.0 - before.0).as_secs_f64(),
        client_cpu_seconds: (after.1.0 - before.1.0) as f64 / TICKS,
        server_cpu_seconds: (after.1.1 - before.1.1) as f64 / TICKS,
        p50_us: quantile(0.5),
        p99_us: quantile(0.99),
        p999_us: quantile(0.999),
        in_time,
    })
}

/// The latencies, in nanoseconds, of the calls answered between two moments, and how many these are.
async fn repeat(mut client: impl Call, from: Instant, to: Instant) -> Result<(Histogram<u32>, u64)> {
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
    let answered = latency.len();
    Ok((latency, answered))
}

/// The same of calls that are due at a constant rate: the latencies, from then, of those due between the two moments, and
/// how many were answered between them.
async fn arrive(client: impl Call, rate: f64, from: Instant, to: Instant) -> Result<(Histogram<u32>, u64)> {
    let start = Instant::now();
    let due = |number: u32| start + Duration::from_secs_f64(f64::from(number) / rate);
    let (mut latency, mut answered) = (histogram(), 0);
    let (mut calls, mut number) = (JoinSet::new(), 0);
    loop {
        while due(number) < to && due(number) <= Instant::now() {
            let (mut client, due) = (client.clone(), due(number));
            calls.spawn(async move { client.call().await.map(|()| (due, Instant::now())) });
            number += 1;
        }
        let is_over = due(number) >= to;
        let ended = tokio::select! {
            ended = calls.join_next(), if !calls.is_empty() => ended,
            () = sleep_until(due(number).into()), if !is_over => continue,
            else => return Ok((latency, answered)),
        };
        let Some(ended) = ended else { continue };
        let (due, ended) = ended??;
        answered += u64::from((from..to).contains(&ended));
        if (from..to).contains(&due) {
            latency.saturating_record((ended - due).as_nanos() as u64);
        }
    }
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
