use std::{sync::Arc, time::Duration};

use tokio::time::{sleep, timeout};

use crate::{rpc, transport::Caller};

/// A peer is asked for a sign of life this long after its last one ...
const WATCH_PAUSE: Duration = Duration::from_secs(1);
/// ... and the link is lost when none comes within this time. QUIC alone takes what is still heard of a peer for a
/// sign that the peer hears too.
const WATCH_PATIENCE: Duration = Duration::from_secs(2);
/// How long a peer that seems to be dead has to answer, beside some round trips ...
const SIGN_OF_LIFE: Duration = Duration::from_millis(200);
/// ... of which a loss takes a few ...
const SIGN_OF_LIFE_ROUND_TRIPS: u32 = 8;
/// ... and at most.
const LAST_SIGN_OF_LIFE: Duration = Duration::from_millis(500);

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

/// Whether a peer that seems to be dead answers after all.
pub(crate) async fn shows_life(caller: &Caller) -> bool {
    let round_trips = caller.connection().rtt() * SIGN_OF_LIFE_ROUND_TRIPS;
    let patience = LAST_SIGN_OF_LIFE.min(SIGN_OF_LIFE + round_trips);
    matches!(timeout(patience, rpc::ping(caller)).await, Ok(Ok(())))
}
