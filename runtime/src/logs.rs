//! What apps write, as tracing events of target `fnmesh::app`, as much of it as the node's own log can bear.

use std::{
    borrow::Cow,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use fnmesh_invoke::InvocationId;

use crate::pool::Pool;

/// `aux` of a log frame that came from standard error.
pub(crate) const STDERR: u16 = 1;
/// `aux` of a log frame that came from standard output.
pub(crate) const STDOUT: u16 = 0;

/// What a pool may log in the long run.
const BYTES_PER_SECOND: u64 = 1 << 20;
/// What it may log at once.
const BURST_BYTES: u64 = 2 << 20;
/// Room that must be there before lines are taken again: not one line now and then.
const RESUME_BYTES: u64 = 1 << 20;
/// What a line costs besides its text: time, level, app.
const LINE_BYTES: u64 = 64;
/// What a microsecond of writing costs. Whoever reads the node's log may be slow, and lines are written by threads
/// that others wait for: a pool may have a quarter of one.
const BYTES_PER_MICROSECOND: u64 = 4;

/// One line of an app, by log frame or from a pipe; whether there was room for it.
pub(crate) fn app_log(pool: &Pool, invocation: Option<InvocationId>, level: u16, line: &[u8]) -> bool {
    let begin = Instant::now();
    match pool.logs.take(line.len(), begin) {
        Verdict::Pass { dropped: 0 } => {}
        Verdict::Pass { dropped } => {
            tracing::warn!(target: "fnmesh::runtime", app = %pool.app, language = %pool.language, dropped, "log lines were dropped");
        }
        Verdict::Drop { first } => {
            if first {
                let limit = BYTES_PER_SECOND;
                tracing::warn!(target: "fnmesh::runtime", app = %pool.app, language = %pool.language, limit_bytes_per_second = limit, "app logs too much, lines are dropped");
            }
            return false;
        }
    }
    write(pool, invocation, level, line);
    pool.logs.charge(begin.elapsed());
    true
}

fn write(pool: &Pool, invocation: Option<InvocationId>, level: u16, line: &[u8]) {
    let line: Cow<'_, str> = String::from_utf8_lossy(line);
    let invocation = invocation.map(|id| id.to_string()).unwrap_or_default();
    macro_rules! event {
        ($level:ident) => {
            tracing::event!(
                target: "fnmesh::app",
                tracing::Level::$level,
                app = %pool.app,
                language = %pool.language,
                invocation,
                line = %line,
                "app log"
            )
        };
    }
    match level {
        STDOUT => event!(INFO),
        STDERR => event!(WARN),
        2..=10 => event!(DEBUG),
        11..=20 => event!(INFO),
        21..=30 => event!(WARN),
        31.. => event!(ERROR),
    }
}

/// How much a pool has logged lately.
#[derive(Debug, Default)]
pub(crate) struct Budget(Mutex<Option<Bucket>>);

#[derive(Debug)]
struct Bucket {
    left: u64,
    at: Instant,
    dropped: u64,
}

#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    /// There is room; so many lines before it were dropped.
    Pass { dropped: u64 },
    /// There is none; `first` for the first line of which that is true.
    Drop { first: bool },
}

impl Budget {
    fn take(&self, bytes: usize, now: Instant) -> Verdict {
        let mut bucket = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        bucket.get_or_insert(Bucket { left: BURST_BYTES, at: now, dropped: 0 }).take(bytes as u64 + LINE_BYTES, now)
    }

    /// Writing the line took so long.
    fn charge(&self, elapsed: Duration) {
        let cost = u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX).saturating_mul(BYTES_PER_MICROSECOND);
        if let Some(bucket) = &mut *self.0.lock().unwrap_or_else(PoisonError::into_inner) {
            bucket.left = bucket.left.saturating_sub(cost);
        }
    }
}

impl Bucket {
    fn take(&mut self, bytes: u64, now: Instant) -> Verdict {
        // In whole milliseconds, so that nothing is lost by rounding however often this is called.
        let passed = u64::try_from(now.saturating_duration_since(self.at).as_millis()).unwrap_or(u64::MAX);
        self.left = BURST_BYTES.min(self.left.saturating_add(passed.saturating_mul(BYTES_PER_SECOND / 1000)));
        self.at += Duration::from_millis(passed);
        let needed = if self.dropped > 0 { bytes.max(RESUME_BYTES) } else { bytes };
        if self.left < needed {
            self.dropped += 1;
            return Verdict::Drop { first: self.dropped == 1 };
        }
        self.left -= bytes;
        Verdict::Pass { dropped: std::mem::take(&mut self.dropped) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: usize = 64 * 1024 - LINE_BYTES as usize;

    #[test]
    fn flood_is_cut_off_and_counted() {
        let (budget, now) = (Budget::default(), Instant::now());
        for _ in 0..32 {
            assert_eq!(budget.take(LINE, now), Verdict::Pass { dropped: 0 });
        }
        assert_eq!(budget.take(LINE, now), Verdict::Drop { first: true });
        assert_eq!(budget.take(LINE, now), Verdict::Drop { first: false });
        // There is room for this line, but not for what may follow it.
        assert_eq!(budget.take(0, now + Duration::from_millis(500)), Verdict::Drop { first: false });
        let later = now + Duration::from_millis(1100);
        assert_eq!(budget.take(LINE, later), Verdict::Pass { dropped: 3 });
        assert_eq!(budget.take(LINE, later), Verdict::Pass { dropped: 0 });
    }

    #[test]
    fn slow_reader_of_the_log_costs_lines() {
        let (budget, now) = (Budget::default(), Instant::now());
        for _ in 0..2 {
            assert_eq!(budget.take(1, now), Verdict::Pass { dropped: 0 });
            budget.charge(Duration::from_millis(300));
        }
        assert_eq!(budget.take(1, now), Verdict::Drop { first: true });
    }

    #[test]
    fn steady_output_within_the_limit_passes() {
        let (budget, now) = (Budget::default(), Instant::now());
        for second in 0..1000 {
            for _ in 0..15 {
                assert_eq!(budget.take(LINE, now + Duration::from_secs(second)), Verdict::Pass { dropped: 0 });
            }
        }
    }
}
