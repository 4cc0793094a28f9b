use std::time::{Duration, Instant, SystemTime};

use httpdate::HttpDate;

/// The `Date` header, made anew each second. RFC 9110, 6.6.1.
#[derive(Debug)]
pub(super) struct Date {
    text: String,
    until: Instant,
}

impl Date {
    pub(super) fn new(now: Instant) -> Self {
        Self::of(now, SystemTime::now())
    }

    fn of(now: Instant, time: SystemTime) -> Self {
        Self { text: HttpDate::from(time).to_string(), until: now + until_next_second(time) }
    }

    /// The header's value at `now`.
    pub(super) fn at(&mut self, now: Instant) -> &[u8] {
        if now >= self.until {
            *self = Self::new(now);
        }
        self.text.as_bytes()
    }
}

fn until_next_second(time: SystemTime) -> Duration {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Duration::from_secs(1) - Duration::from_nanos(u64::from(since.subsec_nanos()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn date_holds_until_the_second_is_over() {
        let now = Instant::now();
        let mut date = Date::of(now, SystemTime::UNIX_EPOCH + Duration::from_millis(784_111_777_400));
        assert_eq!(date.at(now + Duration::from_millis(599)), b"Sun, 06 Nov 1994 08:49:37 GMT");
        assert_ne!(date.at(now + Duration::from_millis(600)), b"Sun, 06 Nov 1994 08:49:37 GMT");
    }
}
