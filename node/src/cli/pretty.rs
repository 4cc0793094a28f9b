/// Indents JSON text by two spaces a level and changes nothing else: numbers keep all their digits.
///
/// `json` is taken to be valid; other text comes out with odd white space, but whole.
pub(super) fn indent(json: &str) -> String {
    let mut out = String::with_capacity(json.len() * 2);
    let mut depth = 0;
    let mut rest = json;
    while let Some(first) = rest.chars().next() {
        let length = if first == '"' { string_length(rest) } else { first.len_utf8() };
        let (token, tail) = rest.split_at(length);
        rest = tail.trim_ascii_start();
        match first {
            '{' | '[' if rest.starts_with(['}', ']']) => {
                out.push_str(token);
                out.push_str(&rest[..1]);
                rest = rest[1..].trim_ascii_start();
            }
            '{' | '[' => {
                depth += 1;
                out.push_str(token);
                line(&mut out, depth);
            }
            '}' | ']' => {
                depth = usize::saturating_sub(depth, 1);
                line(&mut out, depth);
                out.push_str(token);
            }
            ',' => {
                out.push_str(token);
                line(&mut out, depth);
            }
            ':' => out.push_str(": "),
            _ => out.push_str(token),
        }
    }
    out
}

fn line(out: &mut String, depth: usize) {
    out.push('\n');
    out.extend(std::iter::repeat_n("  ", depth));
}

/// Bytes of the string that `text` starts with, quotes included.
fn string_length(text: &str) -> usize {
    let mut escaped = false;
    for (index, byte) in text.bytes().enumerate().skip(1) {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => return index + 1,
            _ => {}
        }
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn numbers_keep_their_digits() {
        let json = r#" {"a":12345678901234567890123, "b":[1.0, -0,{}, []],"c":"x\"{,"} "#;
        let pretty = "{\n  \"a\": 12345678901234567890123,\n  \"b\": [\n    1.0,\n    -0,\n    {},\n    []\n  ],\n  \"c\": \"x\\\"{,\"\n}";
        assert_eq!(indent(json.trim()), pretty);
    }

    fn json() -> impl Strategy<Value = serde_json::Value> {
        let leaf = prop_oneof![
            Just(serde_json::Value::Null),
            any::<bool>().prop_map(Into::into),
            any::<i64>().prop_map(Into::into),
            any::<String>().prop_map(Into::into),
        ];
        leaf.prop_recursive(4, 32, 5, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..5).prop_map(Into::into),
                prop::collection::vec((any::<String>(), inner), 0..5)
                    .prop_map(|members| serde_json::Value::Object(members.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn looks_as_serde_json_would_write_it(value in json()) {
            prop_assert_eq!(indent(&value.to_string()), serde_json::to_string_pretty(&value).unwrap());
        }

        #[test]
        fn any_text_is_survived(text in any::<String>()) {
            indent(&text);
        }
    }
}
