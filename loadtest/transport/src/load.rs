//! A fixed number of callers, each of which calls again as soon as it has its answer.

use std::{
    fs, iter, thread,
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
    #[command(flatten)]
    pub(crate) load: Load,
    /// Counted, after a second that is not
    #[arg(long)]
    seconds: f64,
    /// The process whose CPU time counts as the server's
    #[arg(long)]
    server_pid: u32,
}

/// How much is called.
#[derive(Clone, Copy, Args)]
pub(crate) struct Load {
    #[arg(long, default_value_t = 1)]
    in_flight: usize,
    /// Calls per second, made whatever becomes of those before, instead of `--in-flight` callers
    #[arg(long)]
    rate: Option<f64>,
}

impl Load {
    /// Parts for so many threads at most; no part is empty.
    pub(crate) fn split(self, threads: usize) -> impl Iterator<Item = Self> {
        let parts = threads.min(self.in_flight);
        let in_flight = move |part| self.in_flight / parts + usize::from(part < self.in_flight % parts);
        (0..parts).map(move |part| Self { in_flight: in_flight(part), rate: self.rate.map(|rate| rate / parts as f64) })
    }
}

/// The time that counts.
#[derive(Clone, Copy)]
pub(crate) struct Window {
    from: Instant,
    to: Instant,
}

/// Answers within a window.
pub(crate) struct Answers {
    /// In nanoseconds.
    latency: Histogram<u32>,
    in_time: u64,
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

/// What `work`, which returns the answers of each of its parts, and the server take for it.
pub(crate) fn measure(options: &Options, work: impl FnOnce(Window) -> Result<Vec<Answers>>) -> Result<Figures> {
    let from = Instant::now() + Duration::from_secs(1);
    let window = Window { from, to: from + Duration::from_secs_f64(options.seconds) };
    let server = options.server_pid.to_string();
    let clock = thread::spawn(move || {
        let look = |at: Instant| {
            thread::sleep(at.saturating_duration_since(Instant::now()));
            Ok::<_, anyhow::Error>((Instant::now(), (cpu_ticks("self")?, cpu_ticks(&server)?)))
        };
        Ok::<_, anyhow::Error>((look(window.from)?, look(window.to)?))
    });
    let Answers { latency, in_time } = sum(work(window)?)?;
    let (before, after) = clock.join().expect("it does not panic")?;
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

/// Calls until the window is over.
pub(crate) async fn run(client: impl Call, load: Load, window: Window) -> Result<Answers> {
    let Load { in_flight, rate } = load;
    let mut callers = JoinSet::new();
    match rate {
        Some(rate) => drop(callers.spawn(arrive(client, rate, window))),
        None => iter::repeat_n(client, in_flight).for_each(|client| drop(callers.spawn(repeat(client, window)))),
    }
    let mut answers = Vec::new();
    while let Some(caller) = callers.join_next().await {
        answers.push(caller??);
    }
    sum(answers)
}

fn sum(parts: Vec<Answers>) -> Result<Answers> {
    parts.into_iter().try_fold(Answers { latency: histogram(), in_time: 0 }, |mut sum, part| {
        sum.latency.add(part.latency)?;
        sum.in_time += part.in_time;
        Ok(sum)
    })
}

/// The calls answered within the window.
async fn repeat(mut client: impl Call, Window { from, to }: Window) -> Result<Answers> {
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
    let in_time = latency.len();
    Ok(Answers { latency, in_time })
}

/// Calls that are due at a constant rate: the latencies, from then, of those due within the window, and how many were
/// answered within it.
async fn arrive(client: impl Call, rate: f64, Window { from, to }: Window) -> Result<Answers> {
    let start = Instant::now();
    let due = |number: u32| start + Duration::from_secs_f64(f64::from(number) / rate);
    let (mut latency, mut in_time) = (histogram(), 0);
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
            else => return Ok(Answers { latency, in_time }),
        };
        let Some(ended) = ended else { continue };
        let (due, ended) = ended??;
        in_time += u64::from((from..to).contains(&ended));
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
