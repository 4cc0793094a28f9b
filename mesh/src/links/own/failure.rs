use quinn::{ConnectionError, TransportErrorCode};

use crate::identity::told;

/// TLS: the peer knows no protocol that it was offered.
const NO_APPLICATION_PROTOCOL: u8 = 120;

/// Why there is no link.
pub(super) struct Failure {
    pub(super) reason: String,
    /// The peer does not know such links.
    pub(super) is_unknown: bool,
}

impl Failure {
    pub(super) fn of(error: &ConnectionError) -> Self {
        let unknown = TransportErrorCode::crypto(NO_APPLICATION_PROTOCOL);
        let is_unknown = matches!(error, ConnectionError::ConnectionClosed(close) if close.error_code == unknown);
        Self { reason: told(error).unwrap_or_else(|| error.to_string()), is_unknown }
    }
}

impl From<String> for Failure {
    fn from(reason: String) -> Self {
        Self { reason, is_unknown: false }
    }
}
