//! Where and why a text is no JSON, found by a second reading that builds nothing.

use jiter::{Jiter, JiterError, JiterErrorType, JsonErrorType, LinePosition, Peek};

use super::{MAX_DEPTH, Reason, number::MAX_DIGITS};

/// Line and column of a byte.
pub(super) fn position(text: &[u8], index: usize) -> LinePosition {
    Jiter::new(text).error_position(index)
}

/// The first thing that is wrong with `text`.
pub(super) fn find(text: &[u8]) -> Reason {
    let mut jiter = Jiter::new(text);
    let found = jiter.peek().map_err(Reason::from).and_then(|peek| skip(&mut jiter, peek, 0));
    let found = found.and_then(|()| Ok(jiter.finish()?));
    found.err().unwrap_or_else(|| Reason { what: "invalid text".into(), index: jiter.current_index() })
}

fn skip(jiter: &mut Jiter<'_>, peek: Peek, depth: u8) -> Result<(), Reason> {
    let refuse = |jiter: &Jiter<'_>, what: &str| Err(Reason { what: what.into(), index: jiter.current_index() });
    match peek {
        Peek::Array | Peek::Object if depth >= MAX_DEPTH => refuse(jiter, "more than 128 levels inside each other"),
        Peek::Array => {
            let mut next = jiter.known_array()?;
            while let Some(peek) = next {
                skip(jiter, peek, depth + 1)?;
                next = jiter.array_step()?;
            }
            Ok(())
        }
        Peek::Object => {
            let mut more = jiter.known_object()?.is_some();
            while more {
                let peek = jiter.peek()?;
                skip(jiter, peek, depth + 1)?;
                more = jiter.next_key()?.is_some();
            }
            Ok(())
        }
        Peek::String => Ok(jiter.known_str().map(drop)?),
        Peek::True | Peek::False => Ok(jiter.known_bool(peek).map(drop)?),
        Peek::Null => Ok(jiter.known_null()?),
        Peek::NaN | Peek::Infinity => refuse(jiter, "NaN and Infinity are not JSON"),
        _ if peek.is_num() => Ok(jiter.known_number_bytes(peek).map(drop)?),
        _ => refuse(jiter, "expected a value"),
    }
}

impl From<JiterError> for Reason {
    fn from(error: JiterError) -> Self {
        let what = match error.error_type {
            JiterErrorType::JsonError(JsonErrorType::NumberOutOfRange) => {
                format!("a number has more than {MAX_DIGITS} digits")
            }
            JiterErrorType::JsonError(kind) => kind.to_string(),
            kind @ JiterErrorType::WrongType { .. } => kind.to_string(),
        };
        Self { what, index: error.index }
    }
}
