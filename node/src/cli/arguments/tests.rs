use proptest::prelude::*;

use super::*;

fn encode(arguments: &[&str]) -> Result<Body, String> {
    named(&arguments.iter().map(|argument| (*argument).to_owned()).collect::<Vec<_>>())
}

fn text(body: &Body) -> &str {
    std::str::from_utf8(&body.bytes).unwrap()
}

fn no_stdin() -> std::io::Result<Vec<u8>> {
    panic!("standard input was read")
}

#[test]
fn no_argument_is_no_body() {
    assert_eq!(encode(&[]).unwrap(), Body::default());
}

#[test]
fn plain_values_travel_as_a_form() {
    let body = encode(&["a=Hello, ", "b=x=y&z", "empty="]).unwrap();
    assert_eq!(body.content_type.as_deref(), Some("application/x-www-form-urlencoded"));
    assert_eq!(text(&body), "a=Hello%2C+&b=x%3Dy%26z&empty=");
}

#[test]
fn one_json_value_makes_plain_ones_strings() {
    let body = encode(&["n=1", "items:=[1, 2.0]", "big:=123456789012345678901234567890"]).unwrap();
    assert_eq!(body.content_type.as_deref(), Some("application/json"));
    assert_eq!(text(&body), r#"{"n":"1","items":[1, 2.0],"big":123456789012345678901234567890}"#);
}

#[test]
fn wrong_arguments_are_named() {
    for (argument, says) in
        [("hello", "has no name"), ("=x", "has no name"), ("a:=x", "is not JSON"), (":=1", "no name")]
    {
        let error = encode(&[argument]).unwrap_err();
        assert!(error.contains(argument) && error.contains(says), "{error}");
    }
    assert!(encode(&["a=1", "a:=2"]).unwrap_err().contains("given twice"));
}

#[test]
fn inline_data_must_be_json() {
    let body = data("[1, 2]", None, no_stdin).unwrap();
    assert_eq!((body.content_type.as_deref(), text(&body)), (Some("application/json"), "[1, 2]"));
    assert!(data("{a: 1}", None, no_stdin).unwrap_err().contains("--content-type"));
    let plain = data("{a: 1}", Some("text/plain".to_owned()), no_stdin).unwrap();
    assert_eq!((plain.content_type.as_deref(), text(&plain)), (Some("text/plain"), "{a: 1}"));
}

#[test]
fn file_data_is_typed_by_content() {
    let directory = tempfile::tempdir().unwrap();
    for (name, content, expected) in [
        ("a.txt", &b"{\"a\": 1}"[..], "application/json"),
        ("b.txt", b"hello", "text/plain; charset=utf-8"),
        ("c.png", b"\x89PNG\xff", "application/octet-stream"),
    ] {
        let path = directory.path().join(name);
        fs::write(&path, content).unwrap();
        let body = data(&format!("@{}", path.display()), None, no_stdin).unwrap();
        assert_eq!((body.content_type.as_deref(), &body.bytes[..]), (Some(expected), content));
    }
    assert!(data("@/nonexistent", None, no_stdin).unwrap_err().contains("/nonexistent"));
}

#[test]
fn dash_reads_standard_input() {
    let body = data("-", None, || Ok(b"7".to_vec())).unwrap();
    assert_eq!((body.content_type.as_deref(), text(&body)), (Some("application/json"), "7"));
}

proptest! {
    #[test]
    fn form_decodes_to_what_was_given(name in "[a-z_]{1,8}", value in any::<String>()) {
        let body = encode(&[&format!("{name}={value}")]).unwrap();
        let decoded: Vec<_> = form_urlencoded::parse(&body.bytes).into_owned().collect();
        prop_assert_eq!(decoded, vec![(name, value)]);
    }

    #[test]
    fn json_value_survives(value in any::<i64>(), text in any::<String>()) {
        let body = encode(&[&format!("n:={value}"), &format!("s={text}")]).unwrap();
        let object: serde_json::Value = serde_json::from_slice(&body.bytes).unwrap();
        prop_assert_eq!(object, serde_json::json!({"n": value, "s": text}));
    }
}
