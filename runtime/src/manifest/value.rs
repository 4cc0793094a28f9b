//! Values of a manifest that have a form or a range. What is expected says both, so that errors do.

use std::{collections::BTreeMap, fmt, num::NonZeroU32, time::Duration};

use bytesize::ByteSize;
use serde::{
    Deserialize, Deserializer,
    de::{Error, Unexpected, Visitor},
};

pub(super) const DEFAULT_CONCURRENCY: NonZeroU32 = NonZeroU32::new(100).unwrap();

pub(super) const DEFAULT_TEMPORARY: ByteSize = ByteSize::mib(512);
pub(super) const DEFAULT_KEEP_ALIVE: Duration = Duration::from_secs(10 * 60);
/// Calls that may wait unless the manifest says something else: at any pace, and at a quick one.
pub(super) const DEFAULT_QUEUE: [u32; 2] = [1024, 16 * 1024];

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

pub(super) fn timeout<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    deserializer.deserialize_any(Text {
        expected: "a duration of 1ms to 24h, such as \"30s\"",
        parse: |text| {
            humantime::parse_duration(text).ok().filter(|timeout| (Duration::from_millis(1)..=DAY).contains(timeout))
        },
    })
}

pub(super) fn some_timeout<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    timeout(deserializer).map(Some)
}

pub(super) fn concurrency<'de, D: Deserializer<'de>>(deserializer: D) -> Result<NonZeroU32, D::Error> {
    deserializer.deserialize_any(Count::<1, 10_000>).map(at_least_one)
}

pub(super) fn some_concurrency<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<NonZeroU32>, D::Error> {
    concurrency(deserializer).map(Some)
}

pub(super) fn min_instances<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
    deserializer.deserialize_any(Count::<0, 256>)
}

pub(super) fn some_min_instances<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u32>, D::Error> {
    min_instances(deserializer).map(Some)
}

pub(super) fn some_instances<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<NonZeroU32>, D::Error> {
    deserializer.deserialize_any(Count::<1, 256>).map(at_least_one).map(Some)
}

pub(super) fn keep_alive<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    deserializer.deserialize_any(Text {
        expected: "a duration of 1s to 24h, such as \"10m\"",
        parse: |text| humantime::parse_duration(text).ok().filter(|time| (Duration::from_secs(1)..=DAY).contains(time)),
    })
}

pub(super) fn some_keep_alive<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    keep_alive(deserializer).map(Some)
}

pub(super) fn some_queue<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<NonZeroU32>, D::Error> {
    deserializer.deserialize_any(Count::<1, 100_000>).map(at_least_one).map(Some)
}

/// What a [`Count`] from 1 on has read.
fn at_least_one(count: u32) -> NonZeroU32 {
    NonZeroU32::new(count).expect("zero was refused when it was read")
}

pub(super) fn memory<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<ByteSize>, D::Error> {
    let size = deserializer.deserialize_any(Text {
        expected: "a size of 16MiB or more, such as \"256MiB\"",
        parse: |text| text.parse().ok().filter(|size| *size >= ByteSize::mib(16)),
    })?;
    Ok(Some(size))
}

pub(super) fn temporary<'de, D: Deserializer<'de>>(deserializer: D) -> Result<ByteSize, D::Error> {
    deserializer.deserialize_any(Text {
        expected: "a size of 1MiB or more, such as \"512MiB\"",
        parse: |text| text.parse().ok().filter(|size| *size >= ByteSize::mib(1)),
    })
}

pub(super) fn processes<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<NonZeroU32>, D::Error> {
    deserializer.deserialize_any(Count::<16, 100_000>).map(at_least_one).map(Some)
}

pub(super) fn env<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<String, String>, D::Error> {
    let env = BTreeMap::<String, String>::deserialize(deserializer)?;
    for (name, value) in &env {
        if name.is_empty() || name.contains(['=', '\0']) {
            return Err(D::Error::custom(format_args!("{name:?} cannot be the name of an environment variable")));
        }
        if value.contains('\0') {
            return Err(D::Error::custom(format_args!("the value of {name:?} contains a NUL character")));
        }
    }
    Ok(env)
}

struct Text<T> {
    expected: &'static str,
    parse: fn(&str) -> Option<T>,
}

impl<T> Visitor<'_> for Text<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.expected)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
        (self.parse)(text).ok_or_else(|| E::invalid_value(Unexpected::Str(text), &self))
    }
}

struct Count<const MIN: u32, const MAX: u32>;

impl<const MIN: u32, const MAX: u32> Visitor<'_> for Count<MIN, MAX> {
    type Value = u32;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a whole number of {MIN} to {MAX}")
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<u32, E> {
        u32::try_from(number)
            .ok()
            .filter(|count| (MIN..=MAX).contains(count))
            .ok_or_else(|| E::invalid_value(Unexpected::Signed(number), &self))
    }
}
