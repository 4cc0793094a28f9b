use fnmesh_invoke::{Error, Outcome};
use http::StatusCode;

use crate::refusal::Refusal;

/// Why a request's answer is an error: of the call, or of the request itself.
#[derive(Debug)]
pub(crate) enum Rejection {
    Error(Error),
    Refusal(Refusal),
}

impl Rejection {
    pub(crate) fn status(&self) -> StatusCode {
        match self {
            Self::Error(error) => {
                StatusCode::from_u16(error.http_status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
            }
            Self::Refusal(refusal) => refusal.status,
        }
    }

    pub(crate) fn kind(&self) -> &str {
        match self {
            Self::Error(error) => error.kind(),
            Self::Refusal(refusal) => refusal.kind,
        }
    }

    pub(crate) fn message(&self) -> String {
        match self {
            Self::Error(error) => error.message(),
            Self::Refusal(refusal) => refusal.message.to_string(),
        }
    }

    pub(crate) fn stack(&self) -> Option<&str> {
        match self {
            Self::Error(error) => error.stack(),
            Self::Refusal(_) => None,
        }
    }

    /// How the metrics count it.
    pub(crate) fn outcome(&self) -> Outcome {
        match self {
            Self::Error(error) => error.into(),
            Self::Refusal(_) => Outcome::Refused,
        }
    }
}

impl From<Error> for Rejection {
    fn from(error: Error) -> Self {
        Self::Error(error)
    }
}

impl From<Refusal> for Rejection {
    fn from(refusal: Refusal) -> Self {
        Self::Refusal(refusal)
    }
}
