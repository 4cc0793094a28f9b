use std::borrow::Cow;

use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

/// A request that cannot become a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fault {
    pub(super) code: i32,
    /// As the specification words it.
    pub(super) message: &'static str,
    pub(super) reason: Cow<'static, str>,
}

impl Fault {
    pub(super) fn parse(reason: impl Into<Cow<'static, str>>) -> Self {
        Self { code: -32700, message: "Parse error", reason: reason.into() }
    }

    pub(super) fn invalid(reason: impl Into<Cow<'static, str>>) -> Self {
        Self { code: -32600, message: "Invalid Request", reason: reason.into() }
    }
}

/// One well-formed request.
#[derive(Debug)]
pub(super) struct Call<'a> {
    pub(super) method: Cow<'a, str>,
    /// An array or an object.
    pub(super) params: Option<&'a RawValue>,
    /// As it was written; `None` in a notification.
    pub(super) id: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Members<'a> {
    #[serde(borrow, default, deserialize_with = "present")]
    jsonrpc: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    method: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    params: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    id: Option<&'a RawValue>,
}

/// Keeps `null` apart from nothing: `"id": null` is no notification.
fn present<'de: 'a, 'a, D: Deserializer<'de>>(deserializer: D) -> Result<Option<&'a RawValue>, D::Error> {
    <&RawValue>::deserialize(deserializer).map(Some)
}

impl<'a> Call<'a> {
    /// Reads a request object.
    ///
    /// # Errors
    /// What is wrong with it, and its id if that can be told.
    pub(super) fn read(value: &'a RawValue) -> Result<Self, (Option<&'a RawValue>, Fault)> {
        if !value.get().starts_with('{') {
            return Err((None, Fault::invalid("a request is an object")));
        }
        let members: Members<'a> =
            serde_json::from_str(value.get()).map_err(|error| (None, Fault::invalid(error.to_string())))?;
        let id = members.id;
        if id.is_some_and(|id| id.get().starts_with(['{', '[', 't', 'f'])) {
            return Err((None, Fault::invalid("\"id\" must be a string, a number or null")));
        }
        let fault = |reason: &'static str| (id, Fault::invalid(reason));
        if members.jsonrpc.map(RawValue::get) != Some("\"2.0\"") {
            return Err(fault("\"jsonrpc\" must be \"2.0\""));
        }
        let method = members.method.and_then(|method| text(method.get()));
        let Some(method) = method else { return Err(fault("\"method\" must be a string")) };
        if members.params.is_some_and(|params| !params.get().starts_with(['{', '['])) {
            return Err(fault("\"params\" must be an array or an object"));
        }
        Ok(Self { method, params: members.params, id })
    }
}

fn text(json: &str) -> Option<Cow<'_, str>> {
    match json.strip_prefix('"')?.strip_suffix('"') {
        Some(plain) if !plain.contains('\\') => Some(Cow::Borrowed(plain)),
        _ => serde_json::from_str(json).ok().map(Cow::Owned),
    }
}
