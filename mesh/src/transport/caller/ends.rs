//! Calls that end without an answer.

use std::sync::Arc;

use bytes::BytesMut;

use super::{
    super::{CANCEL, Cancel, envelope, frame},
    Inner,
};

/// Ends the calls of a link that nobody carries any more.
pub(super) struct End(pub(super) Arc<Inner>);

impl Drop for End {
    fn drop(&mut self) {
        // Finds none after a loss that was seen.
        self.0.lose(&"the link is no longer carried".into());
    }
}

/// Tells the peer that nobody waits for the answer any more.
pub(super) struct Withdrawal<'a> {
    pub(super) inner: &'a Inner,
    pub(super) id: u64,
}

impl Drop for Withdrawal<'_> {
    fn drop(&mut self) {
        if self.inner.take(self.id).is_some() {
            let id = self.id;
            let write = |out: &mut BytesMut| envelope::notification(out, CANCEL, &Cancel { id });
            self.inner.shared_stream(id).push(|out| frame::encode(out, write, &[]));
        }
    }
}
