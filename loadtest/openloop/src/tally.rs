//! What became of the calls.

use std::collections::BTreeMap;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

/// Counts and times of one thread or, merged, of all.
#[derive(Debug)]
pub(crate) struct Tally {
    /// Calls written to a connection.
    pub(crate) sent: u64,
    /// Connections that could not be made, broke, or carried no HTTP.
    pub(crate) errors: u64,
    /// Calls without an answer within the timeout after they were sent.
    pub(crate) timeouts: u64,
    /// Calls without an answer when the run ended, sent or not.
    pub(crate) unanswered: u64,
    /// Calls that found every connection taken at the time they were due.
    pub(crate) waited: u64,
    /// Answers by status.
    pub(crate) statuses: BTreeMap<u16, u64>,
    /// Answers with 2xx, and with 503 or 429, in each second of the run.
    pub(crate) answered_per_second: Vec<u64>,
    /// See `answered_per_second`.
    pub(crate) refused_per_second: Vec<u64>,
    answered: Times,
    refused: Times,
    lag: Histogram<u64>,
}

/// Of one kind of answer: from when the call was due, and from when it was sent.
#[derive(Debug)]
struct Times {
    since_due: Histogram<u64>,
    since_sent: Histogram<u64>,
}

/// Microseconds.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize)]
pub(crate) struct Quantiles {
    p50: u64,
    p90: u64,
    p99: u64,
    p999: u64,
    max: u64,
}

/// What is printed, as JSON.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    scheduled: u64,
    sent: u64,
    answered: u64,
    refused: u64,
    failed: u64,
    errors: u64,
    timeouts: u64,
    unanswered: u64,
    waited: u64,
    statuses: BTreeMap<u16, u64>,
    answered_per_second: Vec<u64>,
    refused_per_second: Vec<u64>,
    latency_us: Quantiles,
    service_us: Quantiles,
    refused_latency_us: Quantiles,
    refused_service_us: Quantiles,
    lag_us: Quantiles,
}

impl Tally {
    /// For a run of this length.
    pub(crate) fn new(length: Duration) -> Self {
        let seconds = vec![0; length.as_secs_f64().ceil() as usize];
        Self {
            sent: 0,
            errors: 0,
            timeouts: 0,
            unanswered: 0,
            waited: 0,
            statuses: BTreeMap::new(),
            answered_per_second: seconds.clone(),
            refused_per_second: seconds,
            answered: Times::new(),
            refused: Times::new(),
            lag: histogram(),
        }
    }

    /// An answer that came `at` this time of the run.
    pub(crate) fn answer(&mut self, status: u16, at: Duration, since_due: Duration, since_sent: Duration) {
        *self.statuses.entry(status).or_default() += 1;
        let (times, seconds) = match status {
            200..=299 => (&mut self.answered, &mut self.answered_per_second),
            429 | 503 => (&mut self.refused, &mut self.refused_per_second),
            _ => return,
        };
        record(&mut times.since_due, since_due);
        record(&mut times.since_sent, since_sent);
        if let Some(count) = seconds.get_mut(at.as_secs() as usize) {
            *count += 1;
        }
    }

    /// A call that got no answer in time counts with the time it has waited: its latency is at least that.
    pub(crate) fn no_answer(&mut self, since_due: Duration) {
        record(&mut self.answered.since_due, since_due);
    }

    /// How much later a call was sent than it could have been: the generator's own slowness.
    pub(crate) fn lag(&mut self, lag: Duration) {
        record(&mut self.lag, lag);
    }

    /// Adds what another thread counted.
    pub(crate) fn merge(&mut self, other: &Self) {
        self.sent += other.sent;
        self.errors += other.errors;
        self.timeouts += other.timeouts;
        self.unanswered += other.unanswered;
        self.waited += other.waited;
        for (status, count) in &other.statuses {
            *self.statuses.entry(*status).or_default() += count;
        }
        add(&mut self.answered_per_second, &other.answered_per_second);
        add(&mut self.refused_per_second, &other.refused_per_second);
        self.answered.merge(&other.answered);
        self.refused.merge(&other.refused);
        merge(&mut self.lag, &other.lag);
    }

    /// The figures; every call is in one of sent's kinds or unanswered.
    pub(crate) fn report(self) -> Report {
        let of =
            |kind: fn(u16) -> bool| self.statuses.iter().filter(|(status, _)| kind(**status)).map(|(_, n)| n).sum();
        let (answered, refused) = (of(|status| matches!(status, 200..=299)), of(|status| matches!(status, 429 | 503)));
        let all: u64 = of(|_| true);
        Report {
            scheduled: all + self.errors + self.timeouts + self.unanswered,
            sent: self.sent,
            answered,
            refused,
            failed: all - answered - refused,
            errors: self.errors,
            timeouts: self.timeouts,
            unanswered: self.unanswered,
            waited: self.waited,
            latency_us: quantiles(&self.answered.since_due),
            service_us: quantiles(&self.answered.since_sent),
            refused_latency_us: quantiles(&self.refused.since_due),
            refused_service_us: quantiles(&self.refused.since_sent),
            lag_us: quantiles(&self.lag),
            statuses: self.statuses,
            answered_per_second: self.answered_per_second,
            refused_per_second: self.refused_per_second,
        }
    }
}

impl Times {
    fn new() -> Self {
        Self { since_due: histogram(), since_sent: histogram() }
    }

    fn merge(&mut self, other: &Self) {
        merge(&mut self.since_due, &other.since_due);
        merge(&mut self.since_sent, &other.since_sent);
    }
}

/// Microseconds to three digits, up to 10 minutes.
fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 600_000_000, 3).expect("these bounds are valid")
}

fn record(histogram: &mut Histogram<u64>, time: Duration) {
    histogram.saturating_record(u64::try_from(time.as_micros()).unwrap_or(u64::MAX));
}

fn merge(histogram: &mut Histogram<u64>, other: &Histogram<u64>) {
    histogram.add(other).expect("all histograms have the same bounds");
}

fn add(counts: &mut [u64], others: &[u64]) {
    for (count, other) in counts.iter_mut().zip(others) {
        *count += other;
    }
}

fn quantiles(histogram: &Histogram<u64>) -> Quantiles {
    let at = |quantile| histogram.value_at_quantile(quantile).min(histogram.max());
    Quantiles { p50: at(0.5), p90: at(0.9), p99: at(0.99), p999: at(0.999), max: histogram.max() }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn tally(answers: &[(u16, u32)]) -> Tally {
        let mut tally = Tally::new(2 * 1000 * MS);
        for (status, ms) in answers {
            tally.answer(*status, 1500 * MS, *ms * MS, MS);
        }
        tally
    }

    #[test]
    fn sorts_answers_by_status() {
        let report = tally(&[(200, 1), (204, 1), (503, 1), (429, 1), (500, 1)]).report();
        assert_eq!((report.answered, report.refused, report.failed, report.scheduled), (2, 2, 1, 5));
        assert_eq!((report.answered_per_second, report.refused_per_second), (vec![0, 2], vec![0, 2]));
    }

    #[test]
    fn refusals_do_not_flatter_the_latency() {
        let report = tally(&[(200, 100), (503, 1), (503, 1)]).report();
        assert!((100_000..=100_100).contains(&report.latency_us.p50));
        assert_eq!(report.refused_latency_us.max / 100, 10);
    }

    #[test]
    fn calls_without_an_answer_are_in_the_tail() {
        let mut tally = tally(&[(200, 1); 99]);
        tally.unanswered = 1;
        tally.no_answer(5000 * MS);
        let report = tally.report();
        assert!(report.latency_us.p50 < 1100 && report.latency_us.max >= 5_000_000);
        assert_eq!((report.scheduled, report.answered), (100, 99));
    }

    #[test]
    fn merges_threads() {
        let mut one = tally(&[(200, 1)]);
        one.merge(&tally(&[(200, 9), (503, 2)]));
        let report = one.report();
        assert_eq!((report.answered, report.refused), (2, 1));
        assert_eq!(report.answered_per_second, [0, 2]);
        assert!((9000..9100).contains(&report.latency_us.max));
    }

    #[test]
    fn answers_after_the_end_are_counted_and_in_no_second() {
        let mut tally = tally(&[]);
        tally.answer(200, 3000 * MS, MS, MS);
        assert_eq!(tally.answered_per_second, [0, 0]);
        assert_eq!(tally.report().answered, 1);
    }
}
