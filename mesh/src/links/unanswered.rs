use std::{sync::Arc, time::Duration};

use tokio::time::{sleep, timeout};

use crate::{rpc, transport::Caller};

/// A peer is asked for a sign of life this long after its last one ...
const WATCH_PAUSE: Duration = Duration::from_secs(1);
/// ... and the link is lost when none comes within this time. QUIC alone takes what is still heard of a peer for a
/// sign that the peer hears too.
const WATCH_PATIENCE: Duration = Duration::from_secs(2);

/// Waits until the peer does not answer any more, and says so.
pub(super) async fn unanswered(caller: &Caller) -> Arc<str> {
    let acknowledged = || caller.connection().stats().frame_rx.acks;
    loop {
        sleep(WATCH_PAUSE).await;
        let before = acknowledged();
        // A busy peer may be late to answer, and yet has the packet.
        if timeout(WATCH_PATIENCE, rpc::ping(caller)).await.is_err() && acknowledged() == before {
            return format!("no answer within {} s", WATCH_PATIENCE.as_secs()).into();
        }
    }
}
