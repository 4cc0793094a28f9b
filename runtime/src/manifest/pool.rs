//! How many instances an app may have, for all its languages and for one.

use std::{num::NonZeroU32, thread, time::Duration};

use fnmesh_invoke::Language;
use serde::Deserialize;

use super::{Manifest, value};
use crate::pool::Bounds;

/// The table `[python]` or `[node]`: what is different for one language. Units and bounds are those of the app's keys.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PoolSettings {
    /// Instances it keeps even when nobody calls. Default: the app's.
    #[serde(deserialize_with = "value::some_min_instances")]
    pub min_instances: Option<u32>,
    /// Instances it may have. Default: the app's.
    #[serde(deserialize_with = "value::some_instances")]
    pub max_instances: Option<NonZeroU32>,
    /// Calls in flight in one instance. Default: the app's.
    #[serde(deserialize_with = "value::some_concurrency")]
    pub concurrency: Option<NonZeroU32>,
    /// How long an instance beyond `min_instances` may be without a call. Default: the app's.
    #[serde(deserialize_with = "value::some_keep_alive")]
    pub keep_alive: Option<Duration>,
    /// Calls that may wait. Default: the app's.
    #[serde(deserialize_with = "value::some_queue")]
    pub queue: Option<NonZeroU32>,
}

impl Manifest {
    /// What holds for the pool of `language`.
    pub(crate) fn bounds(&self, language: Language) -> Bounds {
        let own = self.own(language);
        let min = own.min_instances.unwrap_or(self.min_instances);
        let max = own.max_instances.or(self.max_instances).map_or_else(|| default_max(min), NonZeroU32::get);
        let queue = own.queue.or(self.queue).map_or(value::DEFAULT_QUEUE, |calls| [calls.get(); 2]);
        let [queue, quick_queue] = queue.map(|calls| calls as usize);
        Bounds {
            min: min as usize,
            max: max as usize,
            concurrency: own.concurrency.unwrap_or(self.concurrency).get() as usize,
            keep_alive: own.keep_alive.unwrap_or(self.keep_alive),
            queue,
            quick_queue,
        }
    }

    /// # Errors
    /// A sentence that names the keys that contradict each other.
    pub(super) fn check_pools(&self) -> Result<(), String> {
        for language in [Language::Python, Language::Node] {
            let Bounds { min, max, .. } = self.bounds(language);
            if min > max {
                return Err(format!(
                    "min_instances = {min} is more than max_instances = {max} for {language}; raise max_instances"
                ));
            }
        }
        Ok(())
    }

    fn own(&self, language: Language) -> &PoolSettings {
        match language {
            Language::Python => &self.python,
            Language::Node => &self.node,
        }
    }
}

/// One for each core: an instance computes on one core, most of the time. Two at least, so that one that is stuck
/// leaves another.
fn default_max(min: u32) -> u32 {
    let cores = thread::available_parallelism().map_or(1, |cores| cores.get().min(256) as u32);
    cores.max(2).max(min)
}
