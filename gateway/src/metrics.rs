//! Counters of the gateway, and all metrics as text:
//! <https://prometheus.io/docs/instrumenting/exposition_formats/>, version 0.0.4.

use std::{
    fmt::{self, Write},
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

use fnmesh_invoke::{AppStatus, CircuitState, Function, InstanceState, Invoke, LATENCY_BUCKETS, Outcome, PoolStatus};
use http::{HeaderValue, StatusCode};

use crate::thread::Thread;

pub(crate) const CONTENT_TYPE: HeaderValue = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");

/// Counters of one gateway thread, written by it alone.
#[derive(Debug, Default)]
// Two cache lines, so that no thread writes to another's.
#[repr(align(128))]
pub(crate) struct Counters {
    /// Answers by the first digit of their status, 2 to 5.
    answers: [AtomicU64; 4],
    opened: AtomicU64,
    closed: AtomicU64,
}

impl Counters {
    pub(crate) fn answered(&self, status: StatusCode) {
        let class = usize::from(status.as_u16() / 100).clamp(2, 5) - 2;
        increment(&self.answers[class]);
    }

    /// All answers.
    pub(crate) fn answers(&self) -> u64 {
        self.answers.iter().map(|count| count.load(Relaxed)).sum()
    }

    pub(crate) fn opened(&self) {
        increment(&self.opened);
    }

    pub(crate) fn closed(&self) {
        increment(&self.closed);
    }
}

/// Not `fetch_add`, which locks the bus: there is one writer.
fn increment(counter: &AtomicU64) {
    counter.store(counter.load(Relaxed) + 1, Relaxed);
}

/// All metrics of the node.
pub(crate) fn write<I: Invoke>(thread: &Thread<I>) -> String {
    let mut out = String::with_capacity(8 * 1024);
    let apps = thread.invoker.apps();
    // Writing to a string does not fail.
    let _ = gateway(&mut out, &thread.shared.counters);
    let _ = calls(&mut out, &apps);
    let _ = instances(&mut out, &apps);
    let _ = process(&mut out);
    thread.shared.control.metrics(&mut out);
    out
}

fn family(out: &mut String, name: &str, kind: &str, help: &str) -> fmt::Result {
    writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}")
}

fn gateway(out: &mut String, threads: &[Counters]) -> fmt::Result {
    let sum =
        |counter: fn(&Counters) -> &AtomicU64| threads.iter().map(|thread| counter(thread).load(Relaxed)).sum::<u64>();
    family(out, "fnmesh_http_requests_total", "counter", "Answered HTTP requests by class of status.")?;
    for class in 0..4 {
        let count: u64 = threads.iter().map(|thread| thread.answers[class].load(Relaxed)).sum();
        writeln!(out, "fnmesh_http_requests_total{{code=\"{}xx\"}} {count}", class + 2)?;
    }
    family(out, "fnmesh_http_connections", "gauge", "Open HTTP connections.")?;
    let open = sum(|thread| &thread.opened).saturating_sub(sum(|thread| &thread.closed));
    writeln!(out, "fnmesh_http_connections {open}")
}

fn calls(out: &mut String, apps: &[AppStatus]) -> fmt::Result {
    let functions = || apps.iter().flat_map(|app| app.functions.iter());
    family(out, "fnmesh_calls_total", "counter", "Ended calls by function and outcome.")?;
    for function in functions() {
        for outcome in Outcome::ALL {
            let (labels, count) = (labels(function), function.stats.calls(outcome));
            writeln!(out, "fnmesh_calls_total{{{labels},outcome=\"{}\"}} {count}", outcome.name())?;
        }
    }
    family(out, "fnmesh_call_duration_seconds", "histogram", "Duration of ended calls.")?;
    functions().try_for_each(|function| durations(out, function))
}

fn durations(out: &mut String, function: &Function) -> fmt::Result {
    let labels = labels(function);
    let mut total = 0;
    let bounds = LATENCY_BUCKETS.iter().map(|&us| (us as f64 / 1e6).to_string()).chain(["+Inf".to_owned()]);
    for (bound, count) in bounds.zip(function.stats.latency()) {
        total += count;
        writeln!(out, "fnmesh_call_duration_seconds_bucket{{{labels},le=\"{bound}\"}} {total}")?;
    }
    let sum = function.stats.latency_sum().as_secs_f64();
    writeln!(out, "fnmesh_call_duration_seconds_sum{{{labels}}} {sum}")?;
    writeln!(out, "fnmesh_call_duration_seconds_count{{{labels}}} {total}")
}

fn labels(function: &Function) -> String {
    format!("app=\"{}\",function=\"{}\"", Escaped(&function.id.app), Escaped(&function.id.name))
}

/// A metric of a pool: name, kind, help, value.
type PoolMetric = (&'static str, &'static str, &'static str, fn(&PoolStatus) -> f64);

const POOL_METRICS: [PoolMetric; 15] = [
    ("fnmesh_instances", "gauge", "Instances that are ready.", |pool| ready(pool) as f64),
    ("fnmesh_instances_starting", "gauge", "Instances that start, or wait to.", |pool| pool.starting as f64),
    ("fnmesh_instances_wanted", "gauge", "Instances that the load asks for.", |pool| pool.want as f64),
    ("fnmesh_instances_max", "gauge", "Instances that there may be.", |pool| pool.max_instances as f64),
    ("fnmesh_instances_started_total", "counter", "Instances started.", |pool| pool.started as f64),
    ("fnmesh_instances_lost_total", "counter", "Instances that died unasked.", |pool| pool.lost as f64),
    ("fnmesh_instance_memory_bytes", "gauge", "Resident memory of all workers.", |pool| memory(pool) as f64),
    ("fnmesh_instance_start_seconds", "gauge", "How long a start takes on average.", |pool| {
        pool.start_ms.unwrap_or_default() / 1e3
    }),
    ("fnmesh_calls_in_flight", "gauge", "Calls that run.", |pool| pool.in_flight as f64),
    ("fnmesh_queue_length", "gauge", "Calls that wait.", |pool| pool.queued as f64),
    ("fnmesh_queue_bytes", "gauge", "Bytes of the arguments of calls that wait.", |pool| pool.queued_bytes as f64),
    ("fnmesh_queue_max", "gauge", "Calls that may wait.", |pool| pool.max_queued as f64),
    ("fnmesh_cold_starts_total", "counter", "Calls that waited because no instance was there.", |pool| {
        pool.cold_starts as f64
    }),
    ("fnmesh_cold_start_seconds_total", "counter", "How long these calls waited.", |pool| {
        pool.cold_start_total_ms / 1e3
    }),
    ("fnmesh_circuit_state", "gauge", "0: calls are taken, 1: tried again after failures, 2: refused.", |pool| {
        match pool.circuit {
            CircuitState::Closed => 0.0,
            CircuitState::HalfOpen => 1.0,
            CircuitState::Open => 2.0,
        }
    }),
];

fn ready(pool: &PoolStatus) -> usize {
    pool.instances.iter().filter(|it| it.state == InstanceState::Ready).count()
}

fn memory(pool: &PoolStatus) -> u64 {
    pool.instances.iter().filter_map(|it| it.memory_bytes).sum()
}

fn instances(out: &mut String, apps: &[AppStatus]) -> fmt::Result {
    for (name, kind, help, value) in POOL_METRICS {
        family(out, name, kind, help)?;
        for app in apps {
            for pool in &app.pools {
                let (app, language) = (Escaped(&app.name), pool.language);
                writeln!(out, "{name}{{app=\"{app}\",language=\"{language}\"}} {}", value(pool))?;
            }
        }
    }
    Ok(())
}

fn process(out: &mut String) -> fmt::Result {
    let Some(kib) = resident_kib() else { return Ok(()) };
    family(out, "process_resident_memory_bytes", "gauge", "Resident memory of the node, without its workers.")?;
    writeln!(out, "process_resident_memory_bytes {}", kib * 1024)
}

fn resident_kib() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().strip_suffix(" kB")?.trim().parse().ok()
}

/// A label value.
struct Escaped<'a>(&'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.chars().try_for_each(|char| match char {
            '\\' => f.write_str("\\\\"),
            '"' => f.write_str("\\\""),
            '\n' => f.write_str("\\n"),
            char => f.write_char(char),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn label_values_are_escaped() {
        assert_eq!(Escaped("a\"b\\c\nd").to_string(), r#"a\"b\\c\nd"#);
    }

    #[test]
    fn resident_memory_is_found() {
        assert!(resident_kib().is_some_and(|kib| kib > 0));
    }

    #[test]
    fn gateway_counters_add_up_over_threads() {
        let threads = [Counters::default(), Counters::default()];
        threads[0].answered(StatusCode::OK);
        threads[1].answered(StatusCode::OK);
        threads[1].answered(StatusCode::NOT_FOUND);
        threads[0].opened();
        threads[1].opened();
        threads[1].closed();
        let mut out = String::new();
        gateway(&mut out, &threads).unwrap();
        assert!(out.contains("fnmesh_http_requests_total{code=\"2xx\"} 2\n"), "{out}");
        assert!(out.contains("fnmesh_http_requests_total{code=\"4xx\"} 1\n"), "{out}");
        assert!(out.contains("fnmesh_http_connections 1\n"), "{out}");
    }
}
