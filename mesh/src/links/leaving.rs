use std::{pin::pin, time::Duration};

use tokio::{
    task::JoinSet,
    time::{Instant, timeout, timeout_at},
};

use super::Links;
use crate::{
    rpc,
    transport::{GOODBYE, Handler},
};

/// Why the links of a node end that leaves.
pub(crate) const LEFT: &[u8] = b"the node has left";

impl<H: Handler> Links<H> {
    /// Ends the links, without the loss of a call: waits until what peers have asked for, or have begun to ask for, is
    /// answered, and until they have no more to ask for; ends the links to them; then waits until their threads have
    /// ended their own, too. That takes `last_answers` at most, and each time `last_words` for peers that say nothing.
    pub(crate) async fn settle(&self, last_answers: Duration, last_words: Duration) {
        let end = Instant::now() + last_answers;
        self.is_leaving.set(true);
        let _ = timeout_at(end, self.work.ended()).await;
        // What was on its way meanwhile arrives before they answer, and so has the answer to it, but for streams. A
        // link that fails has nothing to be waited for.
        let last_calls: JoinSet<_> =
            self.callers.all().into_iter().map(|caller| async move { drop(rpc::go_away(&caller).await) }).collect();
        self.wait(last_calls.join_all(), last_words, end).await;
        let _ = timeout_at(end, self.work.ended()).await;
        for caller in self.callers.all() {
            caller.connection().close(GOODBYE, LEFT);
        }
        self.wait(self.served.ended(), last_words, end).await;
    }

    /// Waits for peers: for `last_words`, and until `end` as long again while there is something of theirs to answer.
    async fn wait<T>(&self, peers: impl Future<Output = T>, last_words: Duration, end: Instant) {
        let mut peers = pin!(peers);
        while timeout(last_words, &mut peers).await.is_err() && !self.work.has_ended() && Instant::now() < end {}
    }
}
