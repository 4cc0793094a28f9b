//! The processes this one started or adopted, so that those that user code left behind can be told from them.

use std::{
    collections::BTreeSet,
    io,
    sync::{Mutex, MutexGuard, PoisonError},
};

use rustix::process::Pid;
use tokio::process::{Child, Command};

static REGISTRY: Mutex<Registry> = Mutex::new(Registry { pids: BTreeSet::new(), expected: 0 });

struct Registry {
    pids: BTreeSet<i32>,
    /// Processes that may be there already and whose ids are not known yet.
    expected: usize,
}

/// Whether `pid`, a child of this process, is one that it wants to have.
///
/// While a process is being started its id is not known, and every child counts as known: ask again later.
/// The answer is about a child that is still there, a zombie too: once it was waited for, its id is anybody's.
pub(crate) fn is_known(pid: Pid) -> bool {
    let registry = registry();
    registry.expected > 0 || registry.pids.contains(&pid.as_raw_nonzero().get())
}

/// Starts a tool that is waited for by its caller, who holds the guard until then.
pub(crate) fn spawn(command: &mut Command) -> io::Result<(Child, Option<Known>)> {
    let expected = Expected::new();
    let child = command.spawn()?;
    let known = child.id().and_then(|id| Pid::from_raw(id.cast_signed())).and_then(|pid| expected.found(pid));
    Ok((child, known))
}

/// Held from before a process starts until its id is known.
pub(crate) struct Expected(());

impl Expected {
    pub(crate) fn new() -> Self {
        registry().expected += 1;
        Self(())
    }

    /// This is the process that was expected. `None` if it is known.
    pub(crate) fn found(self, pid: Pid) -> Option<Known> {
        // Before `self` is dropped, so that there is no moment at which the process is unknown.
        let is_new = registry().pids.insert(pid.as_raw_nonzero().get());
        is_new.then(|| Known(pid))
    }
}

impl Drop for Expected {
    fn drop(&mut self) {
        registry().expected -= 1;
    }
}

/// A process that [`is_known`], until this is dropped: when it was waited for.
pub(crate) struct Known(Pid);

impl Drop for Known {
    fn drop(&mut self) {
        registry().pids.remove(&self.0.as_raw_nonzero().get());
    }
}

fn registry() -> MutexGuard<'static, Registry> {
    REGISTRY.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn process_is_known_from_its_start_to_its_end() {
        // No process has this id, and no other test of this process names it.
        let pid = Pid::from_raw(i32::MAX - 1).unwrap();
        let expected = Expected::new();
        assert!(is_known(pid));
        let known = expected.found(pid).unwrap();
        assert!(Expected::new().found(pid).is_none());
        assert!(is_known(pid));
        assert!(registry().pids.contains(&pid.as_raw_nonzero().get()));
        drop(known);
        assert!(!registry().pids.contains(&pid.as_raw_nonzero().get()));
    }
}
