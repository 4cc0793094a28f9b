use std::ops::Range;

use super::class::{TOKEN, run, value_run};
use crate::refusal::Refusal;

/// One whole line of a header or trailer section.
#[derive(Debug)]
pub(super) enum Line {
    /// `name: value`: where the name ends, and where the value is, without white space around it.
    Field { name: usize, value: Range<usize>, length: usize },
    /// The empty line behind the last field.
    End { length: usize },
}

/// Reads the line that `input` begins with; `None` while it is not whole.
///
/// Bytes are judged in order, so that the verdict does not depend on how the input was cut.
pub(super) fn line(input: &[u8]) -> Result<Option<Line>, Refusal> {
    let colon = run(input, TOKEN);
    match input.get(colon) {
        None => return Ok(None),
        Some(b':') if colon > 0 => {}
        Some(b'\r') if colon == 0 => return line_end(input, 0).map(|end| end.map(|length| Line::End { length })),
        Some(&byte) => return Err(bad_name(&input[..colon], byte)),
    }
    let start = colon + 1;
    let end = start + value_run(&input[start..]);
    match input.get(end) {
        None => Ok(None),
        Some(b'\r' | b'\n') => match line_end(input, end)? {
            Some(length) => {
                let value = &input[start..end];
                let start = end - value.trim_ascii_start().len();
                let value = start..start + value.trim_ascii().len();
                Ok(Some(Line::Field { name: colon, value, length }))
            }
            None => Ok(None),
        },
        Some(_) => Err(control(&input[..colon])),
    }
}

/// Where the line ends whose last byte is before `at`; `None` while that is not there.
pub(super) fn line_end(input: &[u8], at: usize) -> Result<Option<usize>, Refusal> {
    match input[at..] {
        [] | [b'\r'] => Ok(None),
        [b'\r', b'\n', ..] => Ok(Some(at + 2)),
        [b'\n', ..] => Err(Refusal::malformed("a line ends with LF alone; it must end with CR LF")),
        _ => Err(Refusal::malformed("a CR is not followed by LF; it is a control character that no line may have")),
    }
}

#[cold]
fn bad_name(name: &[u8], next: u8) -> Refusal {
    match next {
        b'\n' => Refusal::malformed("a line ends with LF alone; it must end with CR LF"),
        b'\r' => Refusal::malformed(format!("header line {} has no colon", shown(name))),
        b' ' | b'\t' if name.is_empty() => {
            Refusal::malformed("a header line begins with white space; folded headers are not taken")
        }
        b' ' | b'\t' => {
            Refusal::malformed(format!("header name {} is followed by white space, not by a colon", shown(name)))
        }
        other => Refusal::malformed(format!("header name {} is not a token", shown(&[name, &[other]].concat()))),
    }
}

#[cold]
fn control(name: &[u8]) -> Refusal {
    Refusal::malformed(format!("the value of header {} has a control character", shown(name)))
}

/// Bytes from the wire as a short quoted text for a message.
#[cold]
pub(super) fn shown(bytes: &[u8]) -> String {
    const MOST: usize = 60;
    let cut = if bytes.len() > MOST { "..." } else { "" };
    format!("\"{}{cut}\"", bytes[..bytes.len().min(MOST)].escape_ascii())
}
