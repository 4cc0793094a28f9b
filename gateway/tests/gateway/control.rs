use fnmesh_invoke::{AppState, Failure};
use serde_json::json;

use crate::support::{post, start, start_with};

#[test]
fn health_tells_of_node_and_apps() {
    let node = start();
    let health = node.get("/_/health").json();
    assert_eq!((&health["status"], &health["sandbox"]), (&json!("ok"), &json!("full")));
    assert_eq!(health["apps"], json!([{"name": "t", "version": "0123456789ab", "state": "ready"}]));
    assert!(health["uptime_s"].is_u64() && health["version"].is_string());
}

#[test]
fn readiness_follows_the_apps() {
    let failure = Failure { kind: "SyntaxError".into(), message: "no".into(), stack: String::new() };
    for (state, status, reason) in [
        (AppState::Ready, 200, ""),
        (AppState::Stale { error: failure.clone() }, 200, ""),
        (AppState::Loading, 503, "app \"t\" is loading"),
        (AppState::Failed { error: failure }, 503, "app \"t\" cannot start: SyntaxError: no"),
    ] {
        let answer = start_with(state, |_| {}).get("/_/ready");
        assert_eq!(answer.status, status);
        assert_eq!(answer.json()["reason"].as_str().unwrap_or_default(), reason);
    }
}

#[test]
fn apps_are_listed_in_full() {
    let node = start();
    let apps = node.get("/_/apps").json();
    assert_eq!(apps[0]["name"], "t");
    let second = &apps[0]["pools"][0]["instances"][1];
    assert_eq!((&second["pid"], &second["state"], &second["calls"]), (&json!(2), &json!("draining"), &json!(10)));
    assert_eq!(node.get("/_/apps/t").json(), apps[0]);
    assert_eq!(node.get("/_/apps/x").status, 404);
    assert_eq!(node.get("/_/nothing").status, 404);
    assert_eq!(node.post("/_/apps", "").status, 405);
}

#[test]
fn app_lists_its_public_functions() {
    let node = start();
    let functions = node.get("/t").json();
    let names: Vec<_> = functions.as_array().unwrap().iter().map(|function| function["id"].as_str().unwrap()).collect();
    assert!(names.contains(&"t/typed") && !names.contains(&"t/private"), "{names:?}");
    let typed = functions.as_array().unwrap().iter().find(|function| function["id"] == "t/typed").unwrap();
    assert_eq!((&typed["url"], &typed["signature"]), (&json!("/t/typed"), &json!("(a, b)")));
    assert_eq!(typed["parameters"][0]["type"], "integer");
    assert_eq!(node.get("/x").status, 404);
    let greeting = node.get("/").json();
    assert!(greeting["apps"][0]["functions"].as_array().unwrap().contains(&json!("/t/echo")));
}

#[test]
fn metrics_are_prometheus_text() {
    let node = start();
    let mut client = node.connect();
    client.send(post("/t/echo", "", "1"));
    client.answer();
    client.send(post("/t/fail", "", "\"raised\""));
    client.answer();
    client.send("GET /_/metrics HTTP/1.1\r\nHost: t\r\n\r\n");
    let answer = client.answer();
    assert_eq!(answer.header("content-type"), "text/plain; version=0.0.4; charset=utf-8");
    let text = answer.text();
    for line in [
        "# TYPE fnmesh_calls_total counter",
        "fnmesh_calls_total{app=\"t\",function=\"echo\",outcome=\"ok\"} 1",
        "fnmesh_calls_total{app=\"t\",function=\"fail\",outcome=\"failed\"} 1",
        "# TYPE fnmesh_call_duration_seconds histogram",
        "fnmesh_call_duration_seconds_bucket{app=\"t\",function=\"echo\",le=\"+Inf\"} 1",
        "fnmesh_call_duration_seconds_count{app=\"t\",function=\"echo\"} 1",
        "fnmesh_http_requests_total{code=\"2xx\"} 1",
        "fnmesh_http_requests_total{code=\"5xx\"} 1",
        "fnmesh_http_connections 1",
        "fnmesh_instances{app=\"t\",language=\"python\"} 1",
        "fnmesh_instances_starting{app=\"t\",language=\"python\"} 7",
        "fnmesh_instance_memory_bytes{app=\"t\",language=\"python\"} 2000",
        "fnmesh_cold_starts_total{app=\"t\",language=\"python\"} 8",
        "fnmesh_cold_start_seconds_total{app=\"t\",language=\"python\"} 9.5",
        "fnmesh_circuit_state{app=\"t\",language=\"python\"} 2",
        "fnmesh_calls_in_flight{app=\"t\",language=\"python\"} 3",
        "fnmesh_queue_length{app=\"t\",language=\"python\"} 4",
        "fnmesh_instances_started_total{app=\"t\",language=\"python\"} 5",
        "fnmesh_instances_lost_total{app=\"t\",language=\"python\"} 6",
        "fnmesh_extra 1",
    ] {
        assert!(text.lines().any(|found| found == line), "{line} is missing in\n{text}");
    }
    assert!(text.contains("le=\"0.00025\"") && text.contains("\nprocess_resident_memory_bytes "));
}
