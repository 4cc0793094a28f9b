//! How a busy task lets those beside it go on.

use std::{
    future::poll_fn,
    task::{Context, Poll},
};

/// Lets every task that is ready have a turn, and goes on.
///
/// Unlike `tokio::task::yield_now`, it does not wait until nobody is ready any more.
pub(crate) async fn pass() {
    let mut passed = false;
    poll_fn(|cx| {
        if passed {
            return Poll::Ready(());
        }
        passed = true;
        poll_pass(cx)
    })
    .await;
}

/// The same within a poll function: pending, and ready to be polled again.
pub(crate) fn poll_pass<T>(cx: &mut Context<'_>) -> Poll<T> {
    cx.waker().wake_by_ref();
    Poll::Pending
}
