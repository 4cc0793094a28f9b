use std::future::Future;

use tokio_util::task::TaskTracker;

/// Runs the requests of HTTP/2 connections on the thread that has the connection.
#[derive(Clone, Debug)]
pub(crate) struct LocalExecutor(pub(crate) TaskTracker);

impl<F: Future + 'static> hyper::rt::Executor<F> for LocalExecutor
where
    F::Output: 'static,
{
    fn execute(&self, future: F) {
        self.0.spawn_local(future);
    }
}
