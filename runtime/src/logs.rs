//! What apps write, as tracing events of target `fnmesh::app`.

use std::borrow::Cow;

use fnmesh_invoke::InvocationId;

use crate::pool::Pool;

/// `aux` of a log frame that came from standard error.
pub(crate) const STDERR: u16 = 1;
/// `aux` of a log frame that came from standard output.
pub(crate) const STDOUT: u16 = 0;

/// One line of an app, by log frame or from a pipe.
pub(crate) fn app_log(pool: &Pool, invocation: Option<InvocationId>, level: u16, line: &[u8]) {
    let line: Cow<'_, str> = String::from_utf8_lossy(line);
    let invocation = invocation.map(|id| id.to_string()).unwrap_or_default();
    macro_rules! event {
        ($level:ident) => {
            tracing::event!(
                target: "fnmesh::app",
                tracing::Level::$level,
                app = %pool.app,
                language = %pool.language,
                invocation,
                line = %line,
                "app log"
            )
        };
    }
    match level {
        STDOUT => event!(INFO),
        STDERR => event!(WARN),
        2..=10 => event!(DEBUG),
        11..=20 => event!(INFO),
        21..=30 => event!(WARN),
        31.. => event!(ERROR),
    }
}
