use serde_json::{Value, json};

use crate::{
    fake::FAILURES,
    support::{Answer, Node, post, start},
};

fn ask(node: &Node, body: &str) -> Answer {
    node.post("/rpc", body)
}

/// Keeps what the specification fixes: `data` is ours to choose.
fn bare(mut answer: Value) -> Value {
    let members = match &mut answer {
        Value::Array(members) => members.iter_mut().collect(),
        other => vec![other],
    };
    for member in members {
        if let Some(error) = member.get_mut("error").and_then(Value::as_object_mut) {
            error.remove("data");
        }
    }
    answer
}

/// <https://www.jsonrpc.org/specification#examples>, with `t/` before the names that exist.
#[test]
fn examples_of_the_specification_hold() {
    let node = start();
    let invalid = json!({"jsonrpc": "2.0", "error": {"code": -32600, "message": "Invalid Request"}, "id": null});
    let parse = json!({"jsonrpc": "2.0", "error": {"code": -32700, "message": "Parse error"}, "id": null});
    let batch = r#"[
        {"jsonrpc": "2.0", "method": "t/sum", "params": [1,2,4], "id": "1"},
        {"jsonrpc": "2.0", "method": "t/update", "params": [7]},
        {"jsonrpc": "2.0", "method": "t/subtract", "params": [42,23], "id": "2"},
        {"foo": "boo"},
        {"jsonrpc": "2.0", "method": "foo.get", "params": {"name": "myself"}, "id": "5"},
        {"jsonrpc": "2.0", "method": "t/get_data", "id": "9"}
    ]"#;
    for (request, expected) in [
        (
            r#"{"jsonrpc": "2.0", "method": "t/subtract", "params": [42, 23], "id": 1}"#,
            json!({"jsonrpc": "2.0", "result": 19, "id": 1}),
        ),
        (
            r#"{"jsonrpc": "2.0", "method": "t/subtract", "params": [23, 42], "id": 2}"#,
            json!({"jsonrpc": "2.0", "result": -19, "id": 2}),
        ),
        (
            r#"{"jsonrpc": "2.0", "method": "t/subtract", "params": {"subtrahend": 23, "minuend": 42}, "id": 3}"#,
            json!({"jsonrpc": "2.0", "result": 19, "id": 3}),
        ),
        (
            r#"{"jsonrpc": "2.0", "method": "foobar", "id": "1"}"#,
            json!({"jsonrpc": "2.0", "error": {"code": -32601, "message": "Method not found"}, "id": "1"}),
        ),
        (r#"{"jsonrpc": "2.0", "method": "foobar, "params": "bar", "baz]"#, parse.clone()),
        (r#"{"jsonrpc": "2.0", "method": 1, "params": "bar"}"#, invalid.clone()),
        (r#"[{"jsonrpc": "2.0", "method": "sum", "params": [1,2,4], "id": "1"},{"jsonrpc": "2.0", "method"]"#, parse),
        ("[]", invalid.clone()),
        ("[1]", json!([invalid])),
        ("[1,2,3]", json!([invalid, invalid, invalid])),
        (
            batch,
            json!([
                {"jsonrpc": "2.0", "result": 7, "id": "1"},
                {"jsonrpc": "2.0", "result": 19, "id": "2"},
                invalid,
                {"jsonrpc": "2.0", "error": {"code": -32601, "message": "Method not found"}, "id": "5"},
                {"jsonrpc": "2.0", "result": ["hello", 5], "id": "9"},
            ]),
        ),
    ] {
        let answer = ask(&node, request);
        assert_eq!(answer.status, 200, "{request}");
        assert_eq!(bare(answer.json()), expected, "{request}");
    }
}

#[test]
fn notifications_run_and_get_no_answer() {
    let node = start();
    for request in [
        r#"{"jsonrpc": "2.0", "method": "t/update", "params": [1,2,3,4,5]}"#,
        r#"[{"jsonrpc": "2.0", "method": "t/update"}, {"jsonrpc": "2.0", "method": "foobar"}]"#,
    ] {
        let answer = ask(&node, request);
        assert_eq!((answer.status, answer.body.len()), (204, 0), "{request}");
        node.wait_for("started update");
    }
}

#[test]
fn ids_come_back_as_written() {
    let node = start();
    for id in ["1.50", "null", r#""\u0061""#, "123456789012345678901234567890", "-0"] {
        let answer = ask(&node, &format!(r#"{{"id":{id},"jsonrpc":"2.0","method":"t/echo","params":[1]}}"#));
        assert_eq!(answer.text(), format!(r#"{{"jsonrpc":"2.0","result":[1],"id":{id}}}"#));
    }
    for id in ["[]", "{}", "true"] {
        let answer = ask(&node, &format!(r#"{{"id":{id},"jsonrpc":"2.0","method":"t/echo"}}"#)).json();
        assert_eq!((&answer["error"]["code"], &answer["id"]), (&json!(-32600), &Value::Null), "{id}");
    }
}

#[test]
fn invalid_requests_keep_a_valid_id() {
    let node = start();
    for request in [
        r#"{"id":7,"method":"t/echo"}"#,
        r#"{"id":7,"jsonrpc":"1.0","method":"t/echo"}"#,
        r#"{"id":7,"jsonrpc":"2.0"}"#,
        r#"{"id":7,"jsonrpc":"2.0","method":"t/echo","params":3}"#,
        r#"{"id":7,"jsonrpc":"2.0","method":"t/echo","params":null}"#,
    ] {
        let answer = ask(&node, request).json();
        assert_eq!((&answer["error"]["code"], &answer["id"]), (&json!(-32600), &json!(7)), "{request}");
    }
}

#[test]
fn errors_of_calls_have_their_code_and_data() {
    let node = start();
    let error = |method: &str, params: &str| {
        let request = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"{method}","params":{params}}}"#);
        ask(&node, &request).json()["error"].clone()
    };
    for (name, _, kind, _) in FAILURES {
        let code = match name {
            "unknown" => -32601,
            "invalid" | "large" => 1002,
            "raised" => 1003,
            "rate" | "queue" => 1004,
            "deadline" => 1005,
            "start" => 1006,
            "lost" => 1007,
            "peer" => 1008,
            "loop" => 1009,
            "draining" => 1010,
            _ => -32603,
        };
        let error = error("t/fail", &format!("[{name:?}]"));
        assert_eq!((&error["code"], &error["data"]["type"]), (&json!(code), &json!(kind)), "{name}");
        assert_eq!(error["data"]["invocation_id"].as_str().unwrap().len(), 32);
    }
    let error = error("t/stream", r#"{"items":[],"fail":true}"#);
    assert_eq!((&error["message"], &error["data"]["stack"]), (&json!("bad\nvalue"), &json!("in f")));
}

#[test]
fn unknown_methods_name_the_nearest() {
    let node = start();
    for method in ["t/subtrakt", "t/private", "x/y", "/echo", "t"] {
        let answer = ask(&node, &format!(r#"{{"jsonrpc":"2.0","id":1,"method":"{method}"}}"#)).json();
        assert_eq!(answer["error"]["code"], -32601, "{method}");
        assert!(!answer["error"]["data"]["nearest"].to_string().contains("private"), "{answer}");
    }
    let answer = ask(&node, r#"{"jsonrpc":"2.0","id":1,"method":"t/subtrakt"}"#).json();
    assert_eq!(answer["error"]["data"]["nearest"][0], "t/subtract");
}

#[test]
fn results_that_are_not_json_are_converted_or_refused() {
    let node = start();
    let call = |method: &str, params: &str| {
        ask(&node, &format!(r#"{{"jsonrpc":"2.0","id":1,"method":"{method}","params":{params}}}"#)).json()
    };
    assert_eq!(call("t/text", "[]")["result"], "plain\n");
    assert_eq!(call("t/stream", r#"{"items":[1,[2]]}"#)["result"], json!([1, [2]]));
    assert_eq!(call("t/stream", r#"{"items":["a"],"format":"text"}"#)["result"], json!(["a"]));
    assert_eq!(call("t/bytes", "[]")["error"]["code"], 1003);
    assert_eq!(call("t/http", "[]")["error"]["code"], 1002);
}

#[test]
fn batches_run_side_by_side_and_are_bounded() {
    let node = start();
    let call = r#"{"jsonrpc":"2.0","id":1,"method":"t/slow"}"#;
    let mut client = node.connect();
    client.send(post("/rpc", "", &format!("[{call},{call}]")));
    node.wait_for("started slow");
    node.wait_for("started slow");
    node.release.add_permits(2);
    assert_eq!(client.answer().json().as_array().unwrap().len(), 2);
    let answer = ask(&node, &format!("[{}]", vec![call; 101].join(","))).json();
    assert_eq!(answer["error"]["code"], -32600);
    assert!(answer["error"]["data"]["reason"].as_str().unwrap().contains("limit of 100"));
}

#[test]
fn a_client_that_leaves_cancels_its_batch() {
    let node = start();
    let mut client = node.connect();
    client.send(post("/rpc", "", r#"[{"jsonrpc":"2.0","id":1,"method":"t/pending"}]"#));
    node.wait_for("started pending");
    drop(client);
    node.wait_for("dropped pending");
}

#[test]
fn only_post_is_taken() {
    let node = start();
    let answer = node.get("/rpc");
    assert_eq!((answer.status, answer.header("allow")), (405, "POST, OPTIONS"));
    assert_eq!(ask(&node, "\u{1}").json()["error"]["code"], -32700);
    let nested = "[".repeat(100_000);
    assert_eq!(ask(&node, &nested).json()["error"]["code"], -32700);
}
