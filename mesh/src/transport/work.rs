//! What a serving side has begun and not ended, so that a node can wait for it before it leaves.

use std::{cell::Cell, rc::Rc};

use tokio::sync::Notify;

/// Requests that are being read or answered, on all links of a node.
#[derive(Debug, Default)]
pub(crate) struct Work {
    count: Cell<usize>,
    ended: Notify,
}

/// One of them.
#[derive(Debug)]
pub(super) struct Begun(Rc<Work>);

impl Work {
    pub(super) fn begin(self: &Rc<Self>) -> Begun {
        self.count.set(self.count.get() + 1);
        Begun(Rc::clone(self))
    }

    /// Whether there is none.
    pub(crate) fn has_ended(&self) -> bool {
        self.count.get() == 0
    }

    /// Resolves when there is none.
    pub(crate) async fn ended(&self) {
        while !self.has_ended() {
            self.ended.notified().await;
        }
    }
}

impl Drop for Begun {
    fn drop(&mut self) {
        let left = self.0.count.get() - 1;
        self.0.count.set(left);
        if left == 0 {
            self.0.ended.notify_one();
        }
    }
}
