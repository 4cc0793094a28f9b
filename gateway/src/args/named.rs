use std::{
    borrow::Cow,
    collections::{BTreeMap, btree_map::Entry},
};

use fnmesh_invoke::{Error, Function, Parameter, ParameterKind, Payload, ValueType};
use percent_encoding::percent_decode;
use serde_json::value::RawValue;

/// Arguments by name from a query or a form. Text becomes another type only where the parameter
/// asks for it.
///
/// # Errors
/// [`Error::InvalidInput`] for a name that is no parameter, a value that does not convert, a
/// repeated name whose parameter is no array, and bytes that are not UTF-8.
pub(super) fn arguments(function: &Function, encoded: &[u8], what: &str) -> Result<Payload, Error> {
    let parameters = &function.signature.parameters;
    let mut values: Vec<Vec<Cow<'_, str>>> = vec![Vec::new(); parameters.len()];
    let mut others: BTreeMap<Cow<'_, str>, Cow<'_, str>> = BTreeMap::new();
    for pair in encoded.split(|&byte| byte == b'&').filter(|pair| !pair.is_empty()) {
        let equals = pair.iter().position(|&byte| byte == b'=').unwrap_or(pair.len());
        let name = decode(&pair[..equals], what)?;
        let value = decode(pair.get(equals + 1..).unwrap_or_default(), what)?;
        if let Some(index) = parameters.iter().position(|parameter| parameter.name == name && has_name(parameter)) {
            values[index].push(value);
        } else if !parameters.iter().any(|parameter| parameter.kind == ParameterKind::VarKeyword) {
            let (id, signature) = (&function.id, &function.signature);
            return Err(Error::invalid(format!("{what} {name:?} is no parameter of {id}{signature}")));
        } else {
            match others.entry(name) {
                Entry::Vacant(entry) => entry.insert(value),
                Entry::Occupied(entry) => {
                    return Err(Error::invalid(format!("{what} {:?} is given more than once", entry.key())));
                }
            };
        }
    }
    write(parameters, &values, &others, what)
}

fn write(
    parameters: &[Parameter],
    values: &[Vec<Cow<'_, str>>],
    others: &BTreeMap<Cow<'_, str>, Cow<'_, str>>,
    what: &str,
) -> Result<Payload, Error> {
    let mut json = Vec::new();
    for (parameter, texts) in parameters.iter().zip(values).filter(|(_, texts)| !texts.is_empty()) {
        key(&mut json, &parameter.name);
        convert(&mut json, parameter, texts, what)?;
    }
    for (name, text) in others {
        key(&mut json, name);
        string(&mut json, text);
    }
    if !json.is_empty() {
        json.push(b'}');
    }
    Ok(Payload::json(json))
}

fn has_name(parameter: &Parameter) -> bool {
    !matches!(parameter.kind, ParameterKind::VarPositional | ParameterKind::VarKeyword)
}

fn decode<'a>(encoded: &'a [u8], what: &str) -> Result<Cow<'a, str>, Error> {
    let bytes: Cow<'a, [u8]> = if encoded.contains(&b'+') {
        let spaced: Vec<u8> = encoded.iter().map(|&byte| if byte == b'+' { b' ' } else { byte }).collect();
        Cow::Owned(percent_decode(&spaced).collect())
    } else {
        percent_decode(encoded).into()
    };
    let text = match bytes {
        Cow::Borrowed(bytes) => std::str::from_utf8(bytes).map(Cow::Borrowed),
        Cow::Owned(bytes) => String::from_utf8(bytes).map(Cow::Owned).map_err(|error| error.utf8_error()),
    };
    text.map_err(|_| Error::invalid(format!("{what} \"{}\" is not UTF-8 once decoded", encoded.escape_ascii())))
}

fn convert(json: &mut Vec<u8>, parameter: &Parameter, texts: &[Cow<'_, str>], what: &str) -> Result<(), Error> {
    let fault = |text: &str| {
        let (name, kind) = (&parameter.name, noun(parameter.value_type));
        Error::invalid(format!("{what} {name:?} must be {kind}, not {text:?}"))
    };
    match texts {
        [text] if parameter.value_type != ValueType::Array => {
            scalar(json, parameter.value_type, text).ok_or_else(|| fault(text))
        }
        [text] if text.trim_start().starts_with('[') => raw(json, text, '[').ok_or_else(|| fault(text)),
        texts if parameter.value_type == ValueType::Array => {
            let item = item_type(parameter.hint.as_deref().unwrap_or_default());
            json.push(b'[');
            for (index, text) in texts.iter().enumerate() {
                if index > 0 {
                    json.push(b',');
                }
                scalar(json, item, text).ok_or_else(|| {
                    let (name, kind) = (&parameter.name, noun(item));
                    Error::invalid(format!("{what} {name:?}: each item must be {kind}, not {text:?}"))
                })?;
            }
            json.push(b']');
            Ok(())
        }
        _ => {
            let (name, kind) = (&parameter.name, noun(parameter.value_type));
            Err(Error::invalid(format!("{what} {name:?} is given {} times and must be {kind}", texts.len())))
        }
    }
}

/// Writes one text as a value of this type; `None` if it is not one.
fn scalar(json: &mut Vec<u8>, wanted: ValueType, text: &str) -> Option<()> {
    match (wanted, text) {
        (ValueType::Integer, _) => return integer(json, text),
        (ValueType::Number, _) => return number(json, text),
        (ValueType::Object, _) => return raw(json, text, '{'),
        (ValueType::Boolean, "true" | "1") => json.extend_from_slice(b"true"),
        (ValueType::Boolean, "false" | "0") => json.extend_from_slice(b"false"),
        (ValueType::Boolean, _) => return None,
        _ => string(json, text),
    }
    Some(())
}

/// Any number of digits: integers stay integers, however large.
fn integer(json: &mut Vec<u8>, text: &str) -> Option<()> {
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let digits = digits.trim_start_matches('0');
    if text.starts_with('-') && !digits.is_empty() {
        json.push(b'-');
    }
    json.extend_from_slice(if digits.is_empty() { b"0" } else { digits.as_bytes() });
    Some(())
}

fn number(json: &mut Vec<u8>, text: &str) -> Option<()> {
    let plain = text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'+' | b'-' | b'.' | b'e' | b'E'));
    let value = text.parse::<f64>().ok().filter(|value| plain && value.is_finite())?;
    // What is JSON stays as written, with all its digits; `.5` and `+1` do not.
    match serde_json::from_str::<&RawValue>(text) {
        Ok(raw) => json.extend_from_slice(raw.get().as_bytes()),
        Err(_) => serde_json::to_writer(json, &value).ok()?,
    }
    Some(())
}

/// Writes JSON text that begins so.
fn raw(json: &mut Vec<u8>, text: &str, begin: char) -> Option<()> {
    let raw = serde_json::from_str::<&RawValue>(text).ok()?.get();
    raw.starts_with(begin).then(|| json.extend_from_slice(raw.as_bytes()))
}

fn key(json: &mut Vec<u8>, name: &str) {
    json.push(if json.is_empty() { b'{' } else { b',' });
    string(json, name);
    json.push(b':');
}

fn string(json: &mut Vec<u8>, text: &str) {
    // A string into memory: neither can fail.
    let _ = serde_json::to_writer(json, text);
}

/// The type of the items, from hints such as `list[int]`, `number[]` or `Array<boolean>`.
fn item_type(hint: &str) -> ValueType {
    let inner = hint
        .strip_suffix("[]")
        .or_else(|| hint.split_once(['[', '<']).map(|(_, inner)| inner.trim_end_matches([']', '>'])))
        .map_or("", |inner| inner.split(',').next().unwrap_or_default().trim());
    match inner {
        "int" => ValueType::Integer,
        "float" | "number" => ValueType::Number,
        "bool" | "boolean" => ValueType::Boolean,
        _ => ValueType::Any,
    }
}

fn noun(value_type: ValueType) -> &'static str {
    match value_type {
        ValueType::Integer => "an integer",
        ValueType::Number => "a number",
        ValueType::Boolean => "a boolean (true, false, 1 or 0)",
        ValueType::Array => "an array (JSON, or the name repeated)",
        ValueType::Object => "an object as JSON",
        _ => "one value",
    }
}
