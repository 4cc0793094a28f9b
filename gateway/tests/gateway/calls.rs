use fnmesh_invoke::{AppState, Outcome};
use serde_json::json;

use crate::{
    fake::FAILURES,
    support::{post, start, start_with},
};

#[test]
fn json_body_passes_as_it_is() {
    let node = start();
    let answer = node.post("/t/echo", r#"{"a": 1.0}"#);
    assert_eq!((answer.status, answer.text()), (200, r#"{"a": 1.0}"#));
    assert_eq!(answer.header("content-type"), "application/json");
    assert_eq!(answer.header("x-invocation-id").len(), 32);
    assert_eq!(node.post("/t/mod.echo", "1").text(), "1");
    assert_eq!(node.post("/%74/ech%6F", "1").text(), "1");
}

#[test]
fn arguments_come_from_query_or_body() {
    let node = start();
    assert_eq!(node.get("/t/typed?a=1&b=x").json(), json!({"format": "json", "body": r#"{"a":1,"b":["x"]}"#}));
    let answer = node.get("/t/typed?a=x");
    assert_eq!(answer.status, 400);
    assert_eq!(answer.message(), r#"query parameter "a" must be an integer, not "x""#);
    let answer = node.ask(&post("/t/args", "Content-Type: text/plain\r\n", "hi"));
    assert_eq!(answer.json(), json!({"format": "text", "body": "hi"}));
    let answer = node.ask(&post("/t/args", "Content-Type: image/png\r\n", "hi"));
    assert_eq!(answer.json(), json!({"format": "bytes", "body": "hi"}));
    let answer = node.ask(&post("/t/args", "Content-Type: multipart/form-data; boundary=x\r\n", "hi"));
    assert_eq!(answer.status, 415);
}

#[test]
fn each_error_has_its_status_and_body() {
    let node = start();
    for (name, status, kind, retry_after) in FAILURES {
        let answer = node.post("/t/fail", &format!("{name:?}"));
        assert_eq!(answer.status, status, "{name}");
        let error = &answer.json()["error"];
        assert_eq!(error["type"], kind, "{name}");
        assert_eq!(error["invocation_id"], answer.header("x-invocation-id"), "{name}");
        assert_eq!(answer.headers.get("retry-after").map(String::as_str), retry_after, "{name}");
        assert_eq!(error.get("stack").is_some(), matches!(name, "raised" | "start"), "{name}");
    }
    let error = node.post("/t/fail", "\"raised\"").json();
    assert_eq!(error["error"]["message"], "bad\nvalue");
    assert_eq!(error["error"]["stack"], "in f");
}

#[test]
fn unknown_and_private_functions_look_alike() {
    let node = start();
    for target in ["/t/ecko", "/x/echo", "/t/private", "/t/echo/below", "/t/echo/"] {
        let answer = node.post(target, "1");
        assert_eq!(
            (answer.status, answer.json()["error"]["type"].as_str()),
            (404, Some("UnknownFunction")),
            "{target}"
        );
        assert!(!answer.message().contains("or t/private"), "{}", answer.message());
        assert!(!answer.message().contains("mean t/private"), "{}", answer.message());
    }
    assert!(node.post("/t/ecko", "1").message().contains("did you mean t/echo"));
    assert_eq!(node.post("/broken/f", "1").status, 503);
    assert_eq!(node.get("/_x/y").status, 404);
}

#[test]
fn head_is_get_without_body() {
    let node = start();
    let mut client = node.connect();
    client.send("HEAD /t/text HTTP/1.1\r\nHost: t\r\n\r\n");
    let answer = client.answer_to("HEAD");
    assert_eq!((answer.status, answer.header("content-length")), (200, "6"));
    client.send("HEAD /t/stream HTTP/1.1\r\nHost: t\r\n\r\n");
    assert_eq!(client.answer_to("HEAD").status, 200);
    client.send(post("/t/echo", "", "1"));
    assert_eq!(client.answer().text(), "1");
}

#[test]
fn other_methods_get_405_with_allow() {
    let node = start();
    let answer = node.ask("DELETE /t/echo HTTP/1.1\r\nHost: t\r\n\r\n");
    assert_eq!((answer.status, answer.header("allow")), (405, "GET, HEAD, POST, OPTIONS"));
    let answer = node.ask("FNMESH-REFUSED /t/echo HTTP/1.1\r\nHost: t\r\n\r\n");
    assert_eq!(answer.status, 405);
    let answer = node.ask("OPTIONS /t/echo HTTP/1.1\r\nHost: t\r\n\r\n");
    assert_eq!((answer.status, answer.header("allow")), (204, "GET, HEAD, POST, OPTIONS"));
    assert_eq!(node.ask("OPTIONS * HTTP/1.1\r\nHost: t\r\n\r\n").status, 204);
    assert_eq!(node.ask("CONNECT t:80 HTTP/1.1\r\nHost: t\r\n\r\n").status, 405);
}

#[test]
fn functions_that_take_the_request_get_it() {
    let node = start();
    let request = "PATCH /t/http/items/a%20b?q=1&q=2 HTTP/1.1\r\nHost: t:80\r\nCookie: a=1\r\nX-Twice: 1\r\n\
                   X-Twice: 2\r\nContent-Encoding: gzip\r\nContent-Length: 3\r\n\r\nraw";
    let answer = node.ask(request).json();
    assert_eq!(answer["body"], "raw");
    assert_eq!(answer["head"]["method"], "PATCH");
    assert_eq!(answer["head"]["url"], "http://t:80/t/http/items/a%20b?q=1&q=2");
    assert_eq!(answer["head"]["path"], "/items/a%20b");
    assert_eq!(answer["head"]["query"], "q=1&q=2");
    let headers = answer["head"]["headers"].as_array().unwrap();
    assert!(headers.contains(&json!(["cookie", "a=1"])) && headers.contains(&json!(["x-twice", "2"])));
    assert_eq!(node.ask("OPTIONS /t/http HTTP/1.1\r\nHost: t\r\n\r\n").json()["head"]["method"], "OPTIONS");
}

#[test]
fn functions_may_make_their_own_response() {
    let node = start();
    let wish = json!({
        "status": 418,
        "headers": [["content-type", "text/html"], ["set-cookie", "a"], ["set-cookie", "b"], ["connection", "close"]],
        "body": "<p>",
    });
    let mut client = node.connect();
    client.send(post("/t/respond", "", &wish.to_string()));
    let answer = client.answer();
    assert_eq!((answer.status, answer.text()), (418, "<p>"));
    assert_eq!(answer.header("content-type"), "text/html");
    assert_eq!(answer.header("set-cookie"), "a|b");
    client.send(post("/t/respond", "", r#"{"status": 204, "body": "x"}"#));
    let answer = client.answer();
    assert_eq!((answer.status, answer.headers.get("content-length")), (204, None));
    client.send(post("/t/respond", "", r#"{"status": 200, "headers": [["bad name", "x"]]}"#));
    let answer = client.answer();
    assert_eq!(answer.status, 500);
    assert!(answer.message().contains("bad name"));
}

#[test]
fn answers_take_the_form_that_is_asked_for() {
    let node = start();
    let mut client = node.connect();
    client.send(post("/t/echo", "Accept: text/plain\r\n", r#""a\u00e9\n""#));
    let answer = client.answer();
    assert_eq!((answer.text(), answer.header("content-type")), ("aé\n", "text/plain; charset=utf-8"));
    client.send(post("/t/bytes", "", ""));
    let answer = client.answer();
    assert_eq!((&*answer.body, answer.header("content-type")), (&[0, 255][..], "application/octet-stream"));
}

#[test]
fn trace_and_idempotency_key_are_carried() {
    let node = start();
    let parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let answer = node.ask(&post("/t/trace", &format!("traceparent: {parent}\r\nIdempotency-Key: k1\r\n"), ""));
    let seen = answer.json();
    assert_eq!(seen["traceparent"], parent);
    assert_eq!(seen["idempotency_key"], "k1");
    assert_eq!(seen["id"], answer.header("x-invocation-id"));
    assert_eq!(seen["remaining_s"], 20.0);
    let child = answer.header("traceparent");
    assert!(child.starts_with("00-4bf92f3577b34da6a3ce929d0e0e4736-") && child.ends_with("-01") && child != parent);
    assert!(!node.post("/t/trace", "").headers.contains_key("traceparent"));
}

#[test]
fn browsers_of_other_origins_may_call() {
    let node = start();
    let answer = node.ask(&post("/t/echo", "Origin: http://a\r\n", "1"));
    assert_eq!(answer.header("access-control-allow-origin"), "*");
    assert_eq!(answer.header("access-control-expose-headers"), "x-invocation-id");
    let preflight = "OPTIONS /t/echo HTTP/1.1\r\nHost: t\r\nOrigin: http://a\r\n\
                     Access-Control-Request-Method: POST\r\nAccess-Control-Request-Headers: content-type\r\n\r\n";
    let answer = node.ask(preflight);
    assert_eq!(answer.status, 204);
    assert_eq!(answer.header("access-control-allow-origin"), "*");
    assert_eq!(answer.header("access-control-allow-methods"), "POST");
    assert_eq!(answer.header("access-control-allow-headers"), "content-type");
    assert_eq!(answer.header("access-control-max-age"), "600");
    let answer = node.ask("GET /_/health HTTP/1.1\r\nHost: t\r\nOrigin: http://a\r\n\r\n");
    assert!(!answer.headers.contains_key("access-control-allow-origin"));
    assert!(!node.post("/t/echo", "1").headers.contains_key("access-control-allow-origin"));
}

#[test]
fn cors_headers_follow_the_configuration() {
    let request = post("/t/echo", "Origin: http://a\r\n", "1");
    let node = start_with(AppState::Ready, |config| config.cors_origin = None);
    assert!(!node.ask(&request).headers.contains_key("access-control-allow-origin"));
    let node = start_with(AppState::Ready, |config| config.cors_origin = Some("http://a".into()));
    let answer = node.ask(&request);
    assert_eq!((answer.header("access-control-allow-origin"), answer.header("vary")), ("http://a", "origin"));
}

#[test]
fn calls_are_counted_once_by_outcome() {
    let node = start();
    let mut client = node.connect();
    for body in ["\"raised\"", "\"lost\"", "\"invalid\""] {
        client.send(post("/t/fail", "", body));
        client.answer();
    }
    client.send("DELETE /t/fail HTTP/1.1\r\nHost: t\r\n\r\n");
    client.answer();
    let fail = node.functions.iter().find(|function| &*function.id.name == "fail").unwrap();
    for (outcome, count) in [(Outcome::Failed, 1), (Outcome::Lost, 1), (Outcome::Refused, 1), (Outcome::Cancelled, 0)] {
        assert_eq!(fail.stats.calls(outcome), count, "{outcome:?}");
    }
}
