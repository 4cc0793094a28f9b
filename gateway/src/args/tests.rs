use std::{sync::Arc, time::Duration};

use fnmesh_invoke::{FunctionId, Language, Limits, Parameter, ParameterKind, Signature, ValueType};
use http::{Request, StatusCode};
use proptest::prelude::*;

use super::*;

fn parameter(name: &str, value_type: ValueType) -> Parameter {
    Parameter { name: name.into(), value_type, ..Parameter::default() }
}

fn function(parameters: Vec<Parameter>) -> Function {
    Function {
        id: FunctionId { app: "app".into(), name: "f".into() },
        module: "m".into(),
        file: "m.py".into(),
        language: Language::Python,
        signature: Signature { parameters, ..Signature::default() },
        limits: Limits { timeout: Duration::from_secs(1), concurrency: None },
        public: true,
        target: fnmesh_invoke::Target::default(),
        stats: Arc::default(),
    }
}

fn typed() -> Function {
    let list = Parameter { hint: Some("list[int]".into()), ..parameter("ids", ValueType::Array) };
    function(vec![
        parameter("i", ValueType::Integer),
        parameter("n", ValueType::Number),
        parameter("b", ValueType::Boolean),
        parameter("s", ValueType::String),
        parameter("x", ValueType::Any),
        parameter("l", ValueType::Array),
        list,
        parameter("o", ValueType::Object),
    ])
}

fn send(function: &Function, method: &str, target: &str, content_type: &str, body: &str) -> Result<Payload, Rejection> {
    let mut request = Request::builder().method(method).uri(target);
    if !content_type.is_empty() {
        request = request.header("content-type", content_type);
    }
    let (head, ()) = request.body(()).unwrap().into_parts();
    let head = Head::of_parts(&head);
    payload(function, &head, &Hints::of(&head), Bytes::copy_from_slice(body.as_bytes()))
}

fn query(query: &str) -> Result<String, String> {
    match send(&typed(), "GET", &format!("/app/f?{query}"), "", "") {
        Ok(payload) => {
            assert_eq!(payload.format, Format::Json);
            Ok(String::from_utf8(payload.body.to_vec()).unwrap())
        }
        Err(rejection) => {
            assert_eq!(rejection.status(), StatusCode::BAD_REQUEST);
            Err(rejection.message())
        }
    }
}

#[test]
fn query_converts_by_parameter_type() {
    for (given, json) in [
        ("", ""),
        ("i=42&s=42&x=42", r#"{"i":42,"s":"42","x":"42"}"#),
        ("s=b&i=-007", r#"{"i":-7,"s":"b"}"#),
        ("i=123456789012345678901234567890", r#"{"i":123456789012345678901234567890}"#),
        ("i=-0", r#"{"i":0}"#),
        ("n=1.50", r#"{"n":1.50}"#),
        ("n=1e5", r#"{"n":1e5}"#),
        ("n=.5", r#"{"n":0.5}"#),
        ("b=1", r#"{"b":true}"#),
        ("b=false", r#"{"b":false}"#),
        ("l=a&l=b", r#"{"l":["a","b"]}"#),
        ("l=a", r#"{"l":["a"]}"#),
        ("l=[1,%20%222%22]", r#"{"l":[1, "2"]}"#),
        ("ids=1&ids=2", r#"{"ids":[1,2]}"#),
        ("o={%22a%22:[1]}", r#"{"o":{"a":[1]}}"#),
        ("s=a+b%2B%26%3D=", r#"{"s":"a b+&=="}"#),
        ("s", r#"{"s":""}"#),
        ("s=na%C3%AFve%22", r#"{"s":"naïve\""}"#),
    ] {
        assert_eq!(query(given).as_deref(), Ok(json), "{given}");
    }
}

#[test]
fn values_that_do_not_convert_are_named() {
    for (given, message) in [
        ("i=abc", r#"query parameter "i" must be an integer, not "abc""#),
        ("i=1.5", r#"query parameter "i" must be an integer, not "1.5""#),
        ("i=", r#"query parameter "i" must be an integer, not """#),
        ("n=nan", r#"query parameter "n" must be a number, not "nan""#),
        ("n=1e999", r#"query parameter "n" must be a number, not "1e999""#),
        ("b=yes", r#"query parameter "b" must be a boolean (true, false, 1 or 0), not "yes""#),
        ("o=[]", r#"query parameter "o" must be an object as JSON, not "[]""#),
        ("l=[1", r#"query parameter "l" must be an array (JSON, or the name repeated), not "[1""#),
        ("ids=1&ids=x", r#"query parameter "ids": each item must be an integer, not "x""#),
        ("i=1&i=2", r#"query parameter "i" is given 2 times and must be an integer"#),
        ("s=%ff", r#"query parameter "%ff" is not UTF-8 once decoded"#),
    ] {
        assert_eq!(query(given).unwrap_err(), message, "{given}");
    }
    assert!(query("zz=1").unwrap_err().starts_with(r#"query parameter "zz" is no parameter of app/f(i, n"#));
}

#[test]
fn other_names_go_to_var_keyword() {
    let mut rest = parameter("kwargs", ValueType::Any);
    rest.kind = ParameterKind::VarKeyword;
    let function = function(vec![parameter("a", ValueType::Integer), rest]);
    let payload = send(&function, "GET", "/app/f?z=1&a=2&kwargs=3", "", "").unwrap();
    assert_eq!(payload.body, r#"{"a":2,"kwargs":"3","z":"1"}"#);
    assert!(send(&function, "GET", "/app/f?z=1&z=2", "", "").is_err());
}

#[test]
fn post_bodies_are_read_by_content_type() {
    for (content_type, body, expected) in [
        ("", r#"{"a": 1}"#, Payload::json(r#"{"a": 1}"#)),
        ("", "", Payload::json("")),
        ("application/json", "[1]", Payload::json("[1]")),
        ("Application/JSON; charset=\"UTF-8\"", "[1]", Payload::json("[1]")),
        ("application/problem+json", "[1]", Payload::json("[1]")),
        ("application/x-www-form-urlencoded", " {\"a\":1}", Payload::json(" {\"a\":1}")),
        ("application/x-www-form-urlencoded", "42", Payload::json("42")),
        ("application/x-www-form-urlencoded", "null", Payload::json("null")),
        ("application/x-www-form-urlencoded", "i=42&s=t", Payload::json(r#"{"i":42,"s":"t"}"#)),
        ("application/x-www-form-urlencoded", "n=1", Payload::json(r#"{"n":1}"#)),
        ("text/plain", "hello", Payload::text("hello")),
        ("text/csv; charset=us-ascii", "a,b", Payload::text("a,b")),
        ("application/octet-stream", "\0", Payload::bytes("\0")),
        ("image/png; charset=latin1", "x", Payload::bytes("x")),
        ("text/plain", "", Payload::text("")),
    ] {
        let sent = send(&typed(), "POST", "/app/f", content_type, body);
        assert_eq!(sent.unwrap(), expected, "{content_type} {body}");
    }
}

#[test]
fn query_counts_only_without_a_body() {
    let sent = |target, body| send(&typed(), "POST", target, "", body).unwrap().body;
    assert_eq!(sent("/app/f?i=1", ""), r#"{"i":1}"#);
    assert_eq!(sent("/app/f?i=1", "[2]"), "[2]");
}

#[test]
fn bodies_that_cannot_be_arguments_are_refused() {
    for (method, content_type, body, status, reason) in [
        ("POST", "application/json", "", 400, "empty, which is not JSON"),
        ("POST", "application/json; charset=latin1", "[]", 415, "charset \"latin1\""),
        ("POST", "text/plain; charset=utf-16", "a", 415, "charset"),
        ("POST", "multipart/form-data; boundary=x", "--x--", 415, "fnmesh.Request"),
        ("GET", "application/json", "[1]", 400, "by POST"),
        ("POST", "application/x-www-form-urlencoded", "i=x", 400, "form field \"i\""),
    ] {
        let rejection = send(&typed(), method, "/app/f", content_type, body).unwrap_err();
        assert_eq!(rejection.status().as_u16(), status, "{content_type}");
        assert!(rejection.message().contains(reason), "{content_type}: {}", rejection.message());
    }
}

#[test]
fn encoded_bodies_are_refused() {
    let request = Request::post("/app/f").header("content-encoding", "gzip").body(()).unwrap();
    let (head, ()) = request.into_parts();
    let rejection =
        payload(&typed(), &Head::of_parts(&head), &Hints::of(&Head::of_parts(&head)), Bytes::from_static(b"x"))
            .unwrap_err();
    assert_eq!(rejection.status(), 415);
}

#[test]
fn bytes_that_are_not_utf8_are_placed() {
    let request = Request::post("/app/f").body(()).unwrap();
    let (head, ()) = request.into_parts();
    let sent = payload(
        &typed(),
        &Head::of_parts(&head),
        &Hints::of(&Head::of_parts(&head)),
        Bytes::from_static(b"[\"ab\xff\"]"),
    );
    assert!(sent.unwrap_err().message().contains("byte 4 is not valid UTF-8"));
}

proptest! {
    #[test]
    fn queries_become_json_or_an_error(query in "[a-z=&%0-9+\\[\\]{}\".,:é-]{0,60}") {
        if let Ok(payload) = named::arguments(&typed(), query.as_bytes(), "query parameter") {
            let json = payload.body;
            prop_assert!(json.is_empty() || serde_json::from_slice::<serde::de::IgnoredAny>(&json).is_ok());
        }
    }
}
