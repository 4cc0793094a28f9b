use crate::refusal::Refusal;

/// A content type, as far as arguments care.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Media {
    Unsaid,
    Json,
    Form,
    Multipart,
    Text,
    Bytes,
}

impl Media {
    /// Reads a `Content-Type`.
    ///
    /// # Errors
    /// 415 where text comes in another charset than UTF-8.
    pub(super) fn of(content_type: Option<&[u8]>) -> Result<Self, Refusal> {
        let Some(value) = content_type else { return Ok(Self::Unsaid) };
        if value == b"application/json" {
            return Ok(Self::Json);
        }
        let end = value.iter().position(|&byte| byte == b';').unwrap_or(value.len());
        let (essence, parameters) = (value[..end].trim_ascii().to_ascii_lowercase(), &value[end..]);
        let media = match essence.as_slice() {
            b"" => Self::Unsaid,
            b"application/json" | b"text/json" => Self::Json,
            b"application/x-www-form-urlencoded" => Self::Form,
            essence if essence.starts_with(b"application/") && essence.ends_with(b"+json") => Self::Json,
            essence if essence.starts_with(b"multipart/form-data") => Self::Multipart,
            essence if essence.starts_with(b"text/") => Self::Text,
            _ => Self::Bytes,
        };
        if matches!(media, Self::Json | Self::Form | Self::Text) {
            check_charset(&String::from_utf8_lossy(parameters))?;
        }
        Ok(media)
    }
}

fn check_charset(parameters: &str) -> Result<(), Refusal> {
    let charset = parameters.split(';').filter_map(|parameter| parameter.split_once('=')).find_map(|(name, value)| {
        name.trim().eq_ignore_ascii_case("charset").then(|| value.trim().trim_matches('"').to_ascii_lowercase())
    });
    match charset.as_deref() {
        None | Some("utf-8" | "utf8" | "us-ascii" | "ascii") => Ok(()),
        Some(charset) => Err(Refusal::media_type(format!("charset {charset:?} is not taken; send UTF-8"))),
    }
}
