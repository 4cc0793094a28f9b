use std::borrow::Cow;

use http::StatusCode;

/// Why a request gets no call: the gateway's own answers, beside the [`fnmesh_invoke::Error`]s.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) status: StatusCode,
    /// The error's `type`.
    pub(crate) kind: &'static str,
    pub(crate) message: Cow<'static, str>,
    /// The `Allow` header, where the method is at fault.
    pub(crate) allow: Option<&'static str>,
    /// Whether what follows on the connection cannot be read any more.
    pub(crate) close: bool,
}

impl Refusal {
    fn new(status: StatusCode, kind: &'static str, message: impl Into<Cow<'static, str>>) -> Self {
        Self { status, kind, message: message.into(), allow: None, close: false }
    }

    /// The bytes are not a request; nothing after them can be trusted.
    pub(crate) fn malformed(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "MalformedRequest", message).closing()
    }

    /// One request is wrong; the next may be right.
    pub(crate) fn bad_request(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "InvalidInput", message)
    }

    pub(crate) fn head_too_large(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "HeadTooLarge", message).closing()
    }

    pub(crate) fn version(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::HTTP_VERSION_NOT_SUPPORTED, "UnsupportedVersion", message).closing()
    }

    pub(crate) fn timeout(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::REQUEST_TIMEOUT, "RequestTimeout", message).closing()
    }

    pub(crate) fn too_large(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "TooLarge", message).closing()
    }

    pub(crate) fn not_found(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "NotFound", message)
    }

    pub(crate) fn media_type(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "UnsupportedMediaType", message)
    }

    pub(crate) fn method(message: impl Into<Cow<'static, str>>, allow: &'static str) -> Self {
        let refusal = Self::new(StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed", message);
        Self { allow: Some(allow), ..refusal }
    }

    /// The connection ends after the answer.
    pub(crate) fn closing(self) -> Self {
        Self { close: true, ..self }
    }
}
