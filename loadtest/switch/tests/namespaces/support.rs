//! As in `node/tests/support`, as far as it is used here.

use std::{
    thread,
    time::{Duration, Instant},
};

/// How long anything may take before a test gives up.
pub(crate) const PATIENCE: Duration = Duration::from_secs(40);

/// Waits until `is_so`, for at most [`PATIENCE`].
pub(crate) fn wait_until(mut is_so: impl FnMut() -> bool, what: impl Fn() -> String) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "waited in vain: {}", what());
        thread::sleep(Duration::from_millis(1));
    }
}
