use std::{borrow::Cow, fmt, time::Duration};

use serde::{Deserialize, Serialize};

use crate::FunctionId;

/// Whether a failed call may be sent again without the caller's consent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// The function did not run.
    Safe,
    /// The function may have run: only if running it twice does no harm.
    IfIdempotent,
    /// Sending it again cannot help.
    Never,
}

/// What the user's own code raised, as that language describes it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// The exception's or error's type, such as `ValueError`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Its message.
    pub message: String,
    /// The stack of the user's code, without the worker's own frames; empty if there is none.
    #[serde(default)]
    pub stack: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.kind, self.message)
    }
}

/// Why a call failed: the one vocabulary of failed calls in HTTP, JSON-RPC, CLI and logs.
///
/// As JSON it is an object with the variant's name as `error`, durations in milliseconds.
#[derive(Clone, Debug, thiserror::Error, Serialize, Deserialize)]
#[serde(tag = "error")]
pub enum Error {
    /// No such app or function.
    #[error("unknown function {function:?}{}", did_you_mean(nearest))]
    UnknownFunction {
        /// What was asked for, `app/function`.
        function: String,
        /// Names that exist and look alike, best first, at most 3.
        nearest: Vec<String>,
    },
    /// The caller's input cannot be used.
    #[error("{message}")]
    InvalidInput {
        /// What is wrong with which part of it.
        message: String,
    },
    /// Another call had come with the same idempotency key.
    #[error(
        "another call of {function} with other arguments came with this Idempotency-Key; a repeated call needs the same \
         arguments, byte for byte, and a new one a new key"
    )]
    KeyReused {
        /// The function that was called.
        function: FunctionId,
    },
    /// The input or the answer is larger than allowed.
    #[error("{what} is larger than the limit of {limit_bytes} bytes")]
    TooLarge {
        /// What is too large, such as `request body`.
        what: Cow<'static, str>,
        /// The limit, in bytes.
        limit_bytes: u64,
    },
    /// The function ran and raised.
    #[error("{0}")]
    FunctionFailed(Box<Failure>),
    /// The node or the app has no room for the call.
    #[error("{reason}")]
    Throttled {
        /// Which limit was hit, with its value.
        reason: String,
        /// When to try again.
        #[serde(rename = "retry_after_ms", with = "milliseconds")]
        retry_after: Duration,
        /// True when the caller exceeded a rate (429), false when a queue is full (503).
        rate: bool,
    },
    /// The call did not end in time.
    #[error("{function} did not answer within its timeout of {timeout:?}")]
    DeadlineExceeded {
        /// The function that was called.
        function: FunctionId,
        /// The timeout that ran out.
        #[serde(rename = "timeout_ms", with = "milliseconds")]
        timeout: Duration,
    },
    /// The app's code cannot be loaded.
    #[error("app {app:?} cannot start: {failure}")]
    StartFailed {
        /// The app.
        app: String,
        /// What its code raised while it was loaded, or how its instances die.
        failure: Box<Failure>,
        /// When it is tried again.
        #[serde(rename = "retry_after_ms", with = "milliseconds")]
        retry_after: Duration,
    },
    /// The worker process died while it had the call.
    #[error("the worker that ran {function} was lost: {reason}")]
    InstanceLost {
        /// The function that was called.
        function: FunctionId,
        /// The signal or exit code.
        reason: String,
    },
    /// No peer that serves the function can be reached.
    #[error("peer {peer} cannot be reached: {reason}")]
    PeerUnreachable {
        /// The peer's name.
        peer: String,
        /// What the attempt said.
        reason: String,
    },
    /// The peer that had the call was lost before it answered.
    #[error("outcome unknown: {function} was sent to peer {peer}, which was lost before it answered: {reason}")]
    OutcomeUnknown {
        /// The function that was called.
        function: FunctionId,
        /// The peer's name.
        peer: String,
        /// How it was lost.
        reason: String,
    },
    /// The call was forwarded too often.
    #[error("the call was forwarded {hops} times, the limit; it may run in a circle")]
    LoopDetected {
        /// How often it was forwarded.
        hops: u8,
    },
    /// The node is stopping and takes nothing new.
    #[error("the node is draining; send the call to another node or try again later")]
    Draining,
    /// A fault of fnmesh itself.
    #[error("internal error: {message}")]
    Internal {
        /// What went wrong.
        message: String,
    },
}

impl Error {
    /// An [`Error::InvalidInput`] with this message.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::InvalidInput { message: message.into() }
    }

    /// An [`Error::Internal`] with this message.
    pub fn internal(message: impl Into<String>) -> Self {
        Self::Internal { message: message.into() }
    }

    /// An [`Error::StartFailed`] of an app that is not known to be tried again.
    pub fn start_failed(app: impl Into<String>, failure: Failure) -> Self {
        Self::StartFailed { app: app.into(), failure: Box::new(failure), retry_after: Duration::from_secs(1) }
    }

    /// The HTTP status of the answer.
    pub fn http_status(&self) -> u16 {
        match self {
            Self::UnknownFunction { .. } => 404,
            Self::InvalidInput { .. } => 400,
            Self::KeyReused { .. } => 422,
            Self::TooLarge { .. } => 413,
            Self::FunctionFailed(_) | Self::Internal { .. } => 500,
            Self::Throttled { rate: true, .. } => 429,
            Self::Throttled { .. } | Self::StartFailed { .. } | Self::PeerUnreachable { .. } | Self::Draining => 503,
            Self::DeadlineExceeded { .. } => 504,
            Self::InstanceLost { .. } | Self::OutcomeUnknown { .. } => 502,
            Self::LoopDetected { .. } => 508,
        }
    }

    /// The JSON-RPC error code of the answer.
    pub fn rpc_code(&self) -> i32 {
        match self {
            Self::UnknownFunction { .. } => 1001,
            Self::InvalidInput { .. } | Self::KeyReused { .. } | Self::TooLarge { .. } => 1002,
            Self::FunctionFailed(_) => 1003,
            Self::Throttled { .. } => 1004,
            Self::DeadlineExceeded { .. } => 1005,
            Self::StartFailed { .. } => 1006,
            Self::InstanceLost { .. } => 1007,
            Self::PeerUnreachable { .. } => 1008,
            Self::LoopDetected { .. } => 1009,
            Self::Draining => 1010,
            Self::OutcomeUnknown { .. } => 1011,
            Self::Internal { .. } => -32603,
        }
    }

    /// Whether the call may be sent again.
    pub fn retry(&self) -> Retry {
        match self {
            Self::UnknownFunction { .. } | Self::InvalidInput { .. } | Self::TooLarge { .. } => Retry::Never,
            Self::LoopDetected { .. } | Self::KeyReused { .. } => Retry::Never,
            Self::FunctionFailed(_) | Self::DeadlineExceeded { .. } => Retry::IfIdempotent,
            Self::InstanceLost { .. } | Self::OutcomeUnknown { .. } | Self::Internal { .. } => Retry::IfIdempotent,
            Self::Throttled { .. } | Self::StartFailed { .. } => Retry::Safe,
            Self::PeerUnreachable { .. } | Self::Draining => Retry::Safe,
        }
    }

    /// The `type` an answer shows: the user's own exception type, else the variant's name.
    pub fn kind(&self) -> &str {
        match self {
            Self::UnknownFunction { .. } => "UnknownFunction",
            Self::InvalidInput { .. } => "InvalidInput",
            Self::KeyReused { .. } => "KeyReused",
            Self::TooLarge { .. } => "TooLarge",
            Self::FunctionFailed(failure) => &failure.kind,
            Self::Throttled { .. } => "Throttled",
            Self::DeadlineExceeded { .. } => "DeadlineExceeded",
            Self::StartFailed { .. } => "StartFailed",
            Self::InstanceLost { .. } => "InstanceLost",
            Self::PeerUnreachable { .. } => "PeerUnreachable",
            Self::OutcomeUnknown { .. } => "OutcomeUnknown",
            Self::LoopDetected { .. } => "LoopDetected",
            Self::Draining => "Draining",
            Self::Internal { .. } => "Internal",
        }
    }

    /// What an answer shows as `message`: for a raised exception its own message alone.
    pub fn message(&self) -> String {
        match self {
            Self::FunctionFailed(failure) => failure.message.clone(),
            other => other.to_string(),
        }
    }

    /// The stack of the user's code, where there is one.
    pub fn stack(&self) -> Option<&str> {
        match self {
            Self::FunctionFailed(failure) | Self::StartFailed { failure, .. } => {
                Some(failure.stack.as_str()).filter(|stack| !stack.is_empty())
            }
            _ => None,
        }
    }

    /// When to try again, for answers that carry `Retry-After`.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Throttled { retry_after, .. } | Self::StartFailed { retry_after, .. } => Some(*retry_after),
            Self::Draining | Self::PeerUnreachable { .. } => Some(Duration::from_secs(1)),
            _ => None,
        }
    }
}

mod milliseconds {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        u64::deserialize(deserializer).map(Duration::from_millis)
    }
}

fn did_you_mean(nearest: &[String]) -> String {
    if nearest.is_empty() { String::new() } else { format!("; did you mean {}?", nearest.join(" or ")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_survive_json() {
        let function = FunctionId { app: "shop".into(), name: "add".into() };
        let (timeout, retry_after) = (Duration::from_millis(1500), Duration::from_millis(250));
        let failure = Failure { kind: "ValueError".into(), message: "no".into(), stack: "at 1".into() };
        let reason = || "why".to_owned();
        for error in [
            Error::UnknownFunction { function: "shop/ad".into(), nearest: vec!["shop/add".into()] },
            Error::invalid("no"),
            Error::KeyReused { function: function.clone() },
            Error::TooLarge { what: "the answer".into(), limit_bytes: 7 },
            Error::FunctionFailed(Box::new(failure.clone())),
            Error::Throttled { reason: reason(), retry_after, rate: true },
            Error::DeadlineExceeded { function: function.clone(), timeout },
            Error::StartFailed { app: "shop".into(), failure: Box::new(failure), retry_after },
            Error::InstanceLost { function: function.clone(), reason: reason() },
            Error::PeerUnreachable { peer: "n2".into(), reason: reason() },
            Error::OutcomeUnknown { function, peer: "n2".into(), reason: reason() },
            Error::LoopDetected { hops: 8 },
            Error::Draining,
            Error::internal("oops"),
        ] {
            let json = serde_json::to_string(&error).unwrap();
            let read: Error = serde_json::from_str(&json).unwrap();
            assert_eq!(format!("{read:?}"), format!("{error:?}"), "{json}");
        }
    }
}
