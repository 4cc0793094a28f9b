use bytes::Bytes;
use fnmesh_invoke::{Error, Failure, Format, Invocation, Payload, Reply, ReplyBody, ResponseHead};

/// The start of a hash: nobody finds a second text for the same 128 bits.
pub(super) type Digest = [u8; 16];

/// What tells calls with a key from each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Identity {
    /// Hash of function and key: which call it is.
    pub(super) call: Digest,
    /// Hash of the arguments, which must be the same each time.
    pub(super) arguments: Digest,
}

impl Identity {
    /// That of an invocation with this key.
    pub(super) fn of(invocation: &Invocation, key: &str) -> Self {
        let Invocation { function, payload, request, .. } = invocation;
        let call = digest(&[function.id.app.as_bytes(), function.id.name.as_bytes(), key.as_bytes()]);
        let format = [payload.format as u8];
        let arguments = match request {
            None => digest(&[&format, &payload.body]),
            // The path and the query are arguments, too; most headers are not.
            Some(it) => {
                digest(&[&format, &payload.body, it.method.as_bytes(), it.path.as_bytes(), it.query.as_bytes()])
            }
        };
        Self { call, arguments }
    }
}

fn digest(parts: &[&[u8]]) -> Digest {
    let mut hasher = blake3::Hasher::new();
    for part in parts {
        hasher.update(&(part.len() as u64).to_le_bytes()).update(part);
    }
    let mut digest = Digest::default();
    hasher.finalize_xof().fill(&mut digest);
    digest
}

/// What a function answered: always the same for the same call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// A value.
    Value {
        /// Set when the function made an HTTP response.
        head: Option<Box<ResponseHead>>,
        /// The value.
        payload: Payload,
    },
    /// It raised.
    Failure(Box<Failure>),
}

impl Answer {
    /// Bytes it takes to keep it, about.
    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::Value { head, payload } => {
                let headers = head.iter().flat_map(|head| &head.headers);
                payload.body.len() + headers.map(|(name, value)| name.len() + value.len() + 8).sum::<usize>()
            }
            Self::Failure(failure) => failure.kind.len() + failure.message.len() + failure.stack.len(),
        }
    }

    /// Without the rest of the buffer that it was read into.
    pub(super) fn compact(&self) -> Self {
        match self {
            Self::Value { head, payload: Payload { format, body } } => {
                let payload = Payload { format: *format, body: Bytes::copy_from_slice(body) };
                Self::Value { head: head.clone(), payload }
            }
            failure => failure.clone(),
        }
    }

    /// As the answer to a repeated call.
    pub(super) fn replay(&self) -> Result<Reply, Error> {
        match self {
            Self::Value { head, payload } => {
                Ok(Reply { head: head.clone(), body: ReplyBody::Full(payload.clone()), is_replayed: true })
            }
            Self::Failure(failure) => Err(Error::FunctionFailed(failure.clone())),
        }
    }

    /// What it is, the head and the body, as the table has them.
    pub(super) fn columns(&self) -> (&'static str, Option<String>, Bytes) {
        match self {
            Self::Value { head, payload } => {
                let kind = match payload.format {
                    Format::Json => "json",
                    Format::Bytes => "bytes",
                    Format::Text => "text",
                };
                // Strings and numbers into memory: it cannot fail.
                let head = head.as_ref().map(|head| serde_json::to_string(head).unwrap_or_default());
                (kind, head, payload.body.clone())
            }
            Self::Failure(failure) => ("failure", None, serde_json::to_vec(failure).unwrap_or_default().into()),
        }
    }

    /// The reverse of [`Answer::columns`]; `None` where they say nothing that this version knows.
    pub(super) fn from_columns(kind: &str, head: Option<&str>, body: Vec<u8>) -> Option<Self> {
        let format = match kind {
            "failure" => return serde_json::from_slice(&body).ok().map(Self::Failure),
            "json" => Format::Json,
            "bytes" => Format::Bytes,
            "text" => Format::Text,
            _ => return None,
        };
        let head = head.map(serde_json::from_str).transpose().ok()?;
        Some(Self::Value { head, payload: Payload { format, body: body.into() } })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_survive_their_columns() {
        let head = ResponseHead { status: 201, headers: vec![("set-cookie".into(), "a=1".into())] };
        for answer in [
            Answer::Value { head: None, payload: Payload::json("[1]") },
            Answer::Value { head: Some(Box::new(head)), payload: Payload::bytes(&b"\0\xff"[..]) },
            Answer::Value { head: None, payload: Payload::text("text") },
            Answer::Failure(Box::new(Failure { kind: "E".into(), message: "m".into(), stack: "s".into() })),
        ] {
            let (kind, head, body) = answer.columns();
            assert_eq!(Answer::from_columns(kind, head.as_deref(), body.to_vec()), Some(answer));
        }
        assert_eq!(Answer::from_columns("video", None, Vec::new()), None);
        assert_eq!(Answer::from_columns("failure", None, b"{".to_vec()), None);
    }

    #[test]
    fn parts_of_a_hash_do_not_run_together() {
        assert_ne!(digest(&[b"ab", b"c"]), digest(&[b"a", b"bc"]));
        assert_ne!(digest(&[b"ab"]), digest(&[b"ab", b""]));
    }
}
