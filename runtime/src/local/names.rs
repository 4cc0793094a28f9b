//! The functions one thread has called, by name.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    sync::Arc,
};

use fnmesh_invoke::Function;
use rustc_hash::FxBuildHasher;

/// Only names of functions that exist get in, so nobody can fill it, or make its keys collide.
type Map<V> = HashMap<Box<str>, V, FxBuildHasher>;

/// A thread's own copies: of a function that all threads share they would all change the reference
/// count at each call, and wait for each other's caches.
#[derive(Default)]
pub(super) struct Names {
    /// The state of the catalog they are from.
    generation: Cell<u64>,
    apps: RefCell<Map<Map<Arc<Function>>>>,
}

impl Names {
    /// The function of this name, if it was kept since the catalog changed last.
    pub(super) fn get(&self, generation: u64, app: &str, name: &str) -> Option<Arc<Function>> {
        if self.generation.replace(generation) != generation {
            self.apps.borrow_mut().clear();
        }
        self.apps.borrow().get(app)?.get(name).map(Arc::clone)
    }

    /// Keeps what the catalog said in its present state, and gives the thread's own copy of it.
    pub(super) fn keep(&self, app: &str, name: &str, function: &Function) -> Arc<Function> {
        let own = Arc::new(function.clone());
        self.apps.borrow_mut().entry(app.into()).or_default().insert(name.into(), Arc::clone(&own));
        own
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::channel::tests::function;

    #[test]
    fn names_are_forgotten_when_the_catalog_changes() {
        let names = Names::default();
        assert!(names.get(0, "a", "f").is_none());
        let kept = names.keep("a", "f", &function());
        assert!(Arc::ptr_eq(&names.get(0, "a", "f").unwrap(), &kept));
        assert!(names.get(0, "a", "g").is_none() && names.get(0, "b", "f").is_none());
        assert!(names.get(1, "a", "f").is_none());
    }

    #[test]
    fn copies_count_calls_together() {
        let (names, function) = (Names::default(), function());
        let kept = names.keep("a", "f", &function);
        kept.stats.record(fnmesh_invoke::Outcome::Ok, std::time::Duration::ZERO);
        assert_eq!(function.stats.calls(fnmesh_invoke::Outcome::Ok), 1);
    }
}
