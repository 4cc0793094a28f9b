//! [`Error`] as a JSON-RPC error object and back.

use fnmesh_invoke::Error;

use super::json;
use crate::transport::Failure;

/// The error object of a failed call: its code and text, and all of it as data.
pub(crate) fn failure(error: &Error) -> Failure {
    Failure { code: error.rpc_code(), message: error.message(), data: Some(json(error)) }
}

/// The error of a failed call. One without data, or with data of a newer version, becomes [`Error::Internal`]: of the
/// function nothing is known then.
pub(crate) fn error(failure: Failure) -> Error {
    let known = failure.data.as_ref().and_then(|data| serde_json::from_str(data.get()).ok());
    known.unwrap_or_else(|| Error::internal(format!("{} (code {} of a peer)", failure.message, failure.code)))
}

#[cfg(test)]
mod tests {
    use fnmesh_invoke::Retry;

    use super::*;

    #[test]
    fn error_and_failure_are_inverse() {
        let sent = failure(&Error::Draining);
        assert_eq!(sent.code, 1010);
        assert!(matches!(error(sent), Error::Draining));
    }

    #[test]
    fn unknown_failures_are_not_safe_to_retry() {
        let newer = Failure { data: Some(json(&("a newer", "kind"))), ..Failure::new(1099, "strange") };
        for failure in [Failure::new(1099, "strange"), newer] {
            let error = error(failure);
            assert_eq!(error.to_string(), "internal error: strange (code 1099 of a peer)");
            assert_eq!(error.retry(), Retry::IfIdempotent);
        }
    }
}
