//! What a way does to the frames on it, and how that is written.

use std::{fmt, num::NonZeroU64, str::FromStr, time::Duration};

/// What a way does to the frames on it. The default does nothing.
///
/// Written as words such as `delay=10ms jitter=1ms loss=0.01 reorder=0.001 rate=100000000 cut`, separated by spaces or
/// commas; what is not said is as in the default.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Condition {
    /// How long a frame takes at least.
    pub delay: Duration,
    /// How much longer it takes at most. Frames keep their order nevertheless.
    pub jitter: Duration,
    /// The part of frames that is lost, from 0 to 1.
    pub loss: f64,
    /// The part of frames that others overtake, from 0 to 1: they take [`Self::HELD`] longer, and none waits for them.
    pub reorder: f64,
    /// Bits per second, of whole frames. What would wait for longer than [`Self::QUEUE`] is lost. No limit by default.
    pub rate: Option<NonZeroU64>,
    /// Nothing gets through.
    pub cut: bool,
}

/// Why a text is no [`Condition`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParseError(String);

impl Condition {
    /// How much longer a frame takes that others overtake.
    pub const HELD: Duration = Duration::from_millis(1);
    /// How much time's worth of frames may wait for their turn under a limited rate.
    pub const QUEUE: Duration = Duration::from_millis(100);
}

impl FromStr for Condition {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let mut condition = Self::default();
        for word in text.split([' ', ',']).filter(|word| !word.is_empty()) {
            let invalid = |wanted: &str| ParseError(format!("invalid {word:?}: {wanted} is wanted"));
            let (name, value) = word.split_once('=').unwrap_or((word, ""));
            let time = || humantime::parse_duration(value).map_err(|_| invalid("a time such as 10ms"));
            let part = || {
                let part = value.parse().ok().filter(|part| (0.0..=1.0).contains(part));
                part.ok_or_else(|| invalid("a number from 0 to 1"))
            };
            match name {
                "delay" => condition.delay = time()?,
                "jitter" => condition.jitter = time()?,
                "loss" => condition.loss = part()?,
                "reorder" => condition.reorder = part()?,
                "rate" => condition.rate = Some(value.parse().map_err(|_| invalid("a number of bits per second"))?),
                "cut" if word == name => condition.cut = true,
                _ => return Err(invalid("delay=, jitter=, loss=, reorder=, rate= or cut")),
            }
        }
        Ok(condition)
    }
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for ParseError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_words_are_read() {
        let text = "delay=10ms,jitter=500us loss=0.01 reorder=1 rate=1000 cut";
        let expected = Condition {
            delay: Duration::from_millis(10),
            jitter: Duration::from_micros(500),
            loss: 0.01,
            reorder: 1.0,
            rate: NonZeroU64::new(1000),
            cut: true,
        };
        assert_eq!(text.parse(), Ok(expected));
        assert_eq!("".parse(), Ok(Condition::default()));
    }

    #[test]
    fn other_words_are_refused_by_name() {
        for word in ["loss=1.1", "loss=NaN", "delay=10", "rate=0", "cut=1", "delay", "speed=1"] {
            let error = word.parse::<Condition>().unwrap_err().to_string();
            assert!(error.contains(&format!("{word:?}")), "{error}");
        }
    }
}
