use std::fs;

use serde::de::IgnoredAny;
use serde_json::value::RawValue;

/// The body of a call and its media type; no type and no bytes without arguments.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Body {
    pub(super) content_type: Option<String>,
    pub(super) bytes: Vec<u8>,
}

impl Body {
    fn new(content_type: &str, bytes: impl Into<Vec<u8>>) -> Self {
        Self { content_type: Some(content_type.to_owned()), bytes: bytes.into() }
    }
}

/// Encodes `name=value` and `name:=json` arguments.
///
/// Without a `:=` they travel as a form, whose values the node converts by type hint; with one, as
/// a JSON object in which plain values are strings.
///
/// # Errors
/// A sentence that names the argument.
pub(super) fn named(arguments: &[String]) -> Result<Body, String> {
    if arguments.is_empty() {
        return Ok(Body::default());
    }
    let arguments = arguments.iter().map(|argument| Argument::parse(argument)).collect::<Result<Vec<_>, _>>()?;
    for (index, argument) in arguments.iter().enumerate() {
        if arguments[..index].iter().any(|earlier| earlier.name == argument.name) {
            return Err(format!("argument {:?} is given twice", argument.name));
        }
    }
    if arguments.iter().all(|argument| matches!(argument.value, Plain::Text(_))) {
        return Ok(Body::new("application/x-www-form-urlencoded", form(&arguments)));
    }
    Ok(Body::new("application/json", object(&arguments)))
}

/// Reads the body that `-d` names: JSON text, `@FILE`, or `-` for what `stdin` reads.
///
/// # Errors
/// A sentence that says what cannot be read or is not JSON.
pub(super) fn data(
    data: &str,
    content_type: Option<String>,
    stdin: impl FnOnce() -> std::io::Result<Vec<u8>>,
) -> Result<Body, String> {
    let bytes = match data.strip_prefix('@') {
        _ if data == "-" => stdin().map_err(|error| format!("standard input cannot be read: {error}"))?,
        Some(file) => fs::read(file).map_err(|error| format!("{file} cannot be read: {error}"))?,
        None => data.as_bytes().to_vec(),
    };
    if content_type.is_some() {
        return Ok(Body { content_type, bytes });
    }
    let claims_json = data.ends_with(".json") || !(data == "-" || data.starts_with('@'));
    match serde_json::from_slice::<IgnoredAny>(&bytes) {
        Ok(_) => Ok(Body::new("application/json", bytes)),
        Err(error) if claims_json => {
            Err(format!("-d {data:?} is not JSON: {error}; for text as it is add --content-type text/plain"))
        }
        Err(_) if std::str::from_utf8(&bytes).is_ok() => Ok(Body::new("text/plain; charset=utf-8", bytes)),
        Err(_) => Ok(Body::new("application/octet-stream", bytes)),
    }
}

struct Argument<'a> {
    name: &'a str,
    value: Plain<'a>,
}

enum Plain<'a> {
    Text(&'a str),
    /// Kept as written, so that no number loses digits.
    Json(&'a RawValue),
}

impl<'a> Argument<'a> {
    fn parse(argument: &'a str) -> Result<Self, String> {
        let no_name =
            || format!("argument {argument:?} has no name; write name=value, name:=json, or -d for a whole body");
        let (name, text) = argument.split_once('=').ok_or_else(no_name)?;
        let (name, is_json) = name.strip_suffix(':').map_or((name, false), |name| (name, true));
        if name.is_empty() {
            return Err(no_name());
        }
        let value = if is_json {
            Plain::Json(serde_json::from_str(text).map_err(|error| {
                format!("argument {argument:?} is not JSON after := ({error}); for text write {name}={text}")
            })?)
        } else {
            Plain::Text(text)
        };
        Ok(Self { name, value })
    }
}

fn object(arguments: &[Argument<'_>]) -> String {
    let quoted = |text: &str| serde_json::Value::from(text).to_string();
    let members: Vec<_> = arguments
        .iter()
        .map(|argument| match argument.value {
            Plain::Text(text) => format!("{}:{}", quoted(argument.name), quoted(text)),
            Plain::Json(value) => format!("{}:{}", quoted(argument.name), value.get()),
        })
        .collect();
    format!("{{{}}}", members.join(","))
}

fn form(arguments: &[Argument<'_>]) -> String {
    let mut form = form_urlencoded::Serializer::new(String::new());
    for argument in arguments {
        if let Plain::Text(text) = argument.value {
            form.append_pair(argument.name, text);
        }
    }
    form.finish()
}

#[cfg(test)]
mod tests;
