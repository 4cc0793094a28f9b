use std::{borrow::Cow, fmt, marker::PhantomData};

use serde::{
    Deserialize, Deserializer,
    de::{IgnoredAny, SeqAccess, Visitor},
};
use serde_json::value::RawValue;

use crate::args;

const MAX_BATCH: usize = 100;

/// A request that cannot become a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    pub(crate) code: i32,
    /// As the specification words it.
    pub(crate) message: &'static str,
    pub(crate) reason: Cow<'static, str>,
}

impl Fault {
    pub(crate) fn parse(reason: impl Into<Cow<'static, str>>) -> Self {
        Self { code: -32700, message: "Parse error", reason: reason.into() }
    }

    pub(crate) fn invalid(reason: impl Into<Cow<'static, str>>) -> Self {
        Self { code: -32600, message: "Invalid Request", reason: reason.into() }
    }
}

/// What a body holds, not looked into.
#[derive(Debug)]
pub(crate) enum Members<'a> {
    Single(&'a RawValue),
    Batch(Vec<&'a RawValue>),
}

/// Tells a batch from a single request.
///
/// # Errors
/// What is no JSON, and batches without members or with too many.
pub(crate) fn members(body: &[u8]) -> Result<Members<'_>, Fault> {
    let text = match args::check_utf8(body, "JSON") {
        Ok(()) => std::str::from_utf8(body).map_err(|error| Fault::parse(error.to_string()))?,
        Err(error) => return Err(Fault::parse(error.message())),
    };
    let value: &RawValue = serde_json::from_str(text).map_err(|error| Fault::parse(error.to_string()))?;
    if !value.get().starts_with('[') {
        return Ok(Members::Single(value));
    }
    let Batch(members) = serde_json::from_str(value.get()).map_err(|error| Fault::parse(error.to_string()))?;
    match members.len() {
        0 => Err(Fault::invalid("the batch is empty")),
        1..=MAX_BATCH => Ok(Members::Batch(members)),
        _ => Err(Fault::invalid(format!("the batch is larger than the limit of {MAX_BATCH} members"))),
    }
}

/// The first members of a batch: one more than are allowed, so that a body full of commas takes
/// no memory.
struct Batch<'a>(Vec<&'a RawValue>);

impl<'de: 'a, 'a> Deserialize<'de> for Batch<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(BatchVisitor(PhantomData))
    }
}

struct BatchVisitor<'a>(PhantomData<&'a ()>);

impl<'de: 'a, 'a> Visitor<'de> for BatchVisitor<'a> {
    type Value = Batch<'a>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Batch<'a>, A::Error> {
        let mut members = Vec::new();
        while members.len() <= MAX_BATCH {
            let Some(member) = seq.next_element()? else { return Ok(Batch(members)) };
            members.push(member);
        }
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Batch(members))
    }
}

/// One well-formed request.
#[derive(Debug)]
pub(crate) struct Call<'a> {
    pub(crate) method: Cow<'a, str>,
    /// An array or an object.
    pub(crate) params: Option<&'a RawValue>,
    /// As it was written; `None` in a notification.
    pub(crate) id: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Fields<'a> {
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
    pub(crate) fn read(value: &'a RawValue) -> Result<Self, (Option<&'a RawValue>, Fault)> {
        if !value.get().starts_with('{') {
            return Err((None, Fault::invalid("a request is an object")));
        }
        let members: Fields<'a> =
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
