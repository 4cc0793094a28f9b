//! What waits for answers on a link, and how it ends.

use std::sync::Arc;

use bytes::Bytes;
use rustc_hash::FxHashMap;
use serde_json::value::RawValue;
use tokio::sync::oneshot;

use super::{envelope::Failure, items::Items, outbox::Outbox};

/// A successful answer.
#[derive(Debug)]
pub enum Response {
    /// All of it.
    Value {
        /// The result, as JSON.
        result: Box<RawValue>,
        /// The bytes beside it.
        body: Bytes,
    },
    /// One item after the other.
    Stream(Items),
}

/// Why a request has no successful answer.
#[derive(Clone, Debug, thiserror::Error)]
pub enum CallError {
    /// It did not leave this node.
    #[error("the request was not sent: {0}")]
    NotSent(Arc<str>),
    /// It may have left this node; whether the peer acted on it is unknown.
    #[error("the link was lost before the answer came: {0}")]
    Lost(Arc<str>),
    /// The peer answered with an error.
    #[error("{0}")]
    Failed(Failure),
}

/// The calls of one link.
#[derive(Default)]
pub(super) struct Calls {
    pub(super) pending: FxHashMap<u64, Pending>,
    /// Why no more are taken.
    pub(super) lost: Option<Arc<str>>,
}

/// A call that waits for its answer.
pub(super) struct Pending {
    pub(super) answer: oneshot::Sender<Result<Response, CallError>>,
    pub(super) sent: Sent,
}

/// How to tell whether a request left this node.
pub(super) enum Sent {
    /// When this outbox has handed over more bytes than stand before the request.
    From { outbox: Arc<Outbox>, offset: u64 },
    /// It may have.
    Maybe,
}

impl Calls {
    pub(super) fn check(&self) -> Result<(), CallError> {
        if self.lost.is_some() { Err(self.refused()) } else { Ok(()) }
    }

    /// What a call gets that was not sent because the link ends.
    pub(super) fn refused(&self) -> CallError {
        CallError::NotSent(self.reason())
    }

    /// What a call gets whose answer nobody can give any more.
    pub(super) fn forgotten(&self) -> CallError {
        CallError::Lost(self.reason())
    }

    fn reason(&self) -> Arc<str> {
        self.lost.clone().unwrap_or_else(|| "the link has ended".into())
    }
}

impl Pending {
    /// Ends it, as its link is lost.
    pub(super) fn lose(self, reason: &Arc<str>) {
        let error = match self.sent {
            Sent::From { outbox, offset } if offset >= outbox.taken() => CallError::NotSent(Arc::clone(reason)),
            _ => CallError::Lost(Arc::clone(reason)),
        };
        // Its caller may have gone.
        let _ = self.answer.send(Err(error));
    }
}
