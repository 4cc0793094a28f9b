//! How a node that leaves has its peers end their calls before it closes the connection.

use std::{cell::Cell, rc::Rc};

use bytes::Bytes;

use super::{GO_AWAY, PeerError, read, value};
use crate::transport::{Answer, Caller, Handler, LocalFuture, Request};

/// Asks a peer to send no more requests over this connection; it answers when it has all answers to those it has sent.
/// One that does not know the method says so at once.
pub(crate) async fn go_away(caller: &Caller) -> Result<(), PeerError> {
    read(&caller.call(GO_AWAY, &(), Bytes::new()).await?)
}

/// Serves a connection over which this node calls, too, and ends those calls when the peer asks for it.
pub(crate) struct BothWays<H> {
    pub(crate) handler: H,
    /// The calls of this node.
    pub(crate) caller: Caller,
    /// Whether this node leaves: its calls have ended then, and it waits for the peer's answer itself.
    pub(crate) is_leaving: Rc<Cell<bool>>,
}

impl<H: Handler> Handler for BothWays<H> {
    fn handle(&self, request: Request<'_>) -> LocalFuture<Answer> {
        if request.method != GO_AWAY {
            return self.handler.handle(request);
        }
        let (caller, is_leaving) = (self.caller.clone(), Rc::clone(&self.is_leaving));
        Box::pin(async move {
            if !is_leaving.get() {
                caller.finish().await;
            }
            value(&())
        })
    }

    fn notified(&self, notification: Request<'_>) {
        self.handler.notified(notification);
    }
}
