//! How a thread tells its connections that the server drains.

use std::{
    cell::{Cell, RefCell},
    task::{Context, Waker},
};

use slab::Slab;

/// The connections of one thread. A connection's task looks at [`Hub::is_draining`] whenever it
/// runs, which is cheaper for each request than a future that waits for it.
#[derive(Debug, Default)]
pub(crate) struct Hub {
    draining: Cell<bool>,
    scarce: Cell<bool>,
    wakers: RefCell<Slab<Waker>>,
}

impl Hub {
    pub(crate) fn is_draining(&self) -> bool {
        self.draining.get()
    }

    /// Asks all connections to end.
    pub(crate) fn drain(&self) {
        self.draining.set(true);
        self.wake_all();
    }

    /// Whether idle connections should make room for others.
    pub(crate) fn is_scarce(&self) -> bool {
        self.scarce.get()
    }

    /// Says whether there are hardly any connections left.
    pub(crate) fn set_scarce(&self, scarce: bool) {
        // Those that wait know only the time they had been given.
        if !self.scarce.replace(scarce) && scarce {
            self.wake_all();
        }
    }

    fn wake_all(&self) {
        self.wakers.borrow().iter().for_each(|(_, waker)| waker.wake_by_ref());
    }

    pub(crate) fn seat(&self) -> Seat<'_> {
        Seat { hub: self, key: None }
    }
}

/// A connection's place in the hub.
#[derive(Debug)]
pub(crate) struct Seat<'a> {
    hub: &'a Hub,
    key: Option<usize>,
}

impl Seat<'_> {
    /// Makes sure that the current task is woken by [`Hub::drain`]. To be called from one task only.
    pub(crate) fn occupy(&mut self, cx: &Context<'_>) {
        if self.key.is_none() {
            self.key = Some(self.hub.wakers.borrow_mut().insert(cx.waker().clone()));
        }
    }
}

impl Drop for Seat<'_> {
    fn drop(&mut self) {
        if let Some(key) = self.key {
            self.hub.wakers.borrow_mut().remove(key);
        }
    }
}
