use std::sync::Arc;

use fnmesh_invoke::{AppState, FunctionId, Language, Limits, Signature, Stats, Target};

use super::*;

fn app(functions: &[&str]) -> AppStatus {
    let function = |name: &&str| {
        Arc::new(Function {
            id: FunctionId { app: "shop".into(), name: (*name).into() },
            module: "cart".to_owned(),
            file: "cart.js".to_owned(),
            language: Language::Node,
            signature: Signature::default(),
            limits: Limits::default(),
            public: true,
            target: Target::default(),
            stats: Arc::new(Stats::default()),
        })
    };
    AppStatus {
        name: "shop".to_owned(),
        directory: "/srv/shop".to_owned(),
        version: "0123456789ab".to_owned(),
        hash: [1; 32],
        state: AppState::Ready,
        pools: Vec::new(),
        functions: functions.iter().map(function).collect(),
    }
}

fn plain(event: &Event) -> String {
    anstream::adapter::strip_str(&text(event, "http://n")).to_string()
}

#[test]
fn durations_are_short() {
    for (us, expected) in [(250, "250 µs"), (1_240, "1.2 ms"), (143_900, "143 ms"), (2_500_000, "2.5 s")] {
        assert_eq!(elapsed(Duration::from_micros(us)), expected);
    }
}

#[test]
fn settled_lists_one_url_per_function() {
    let text = plain(&Event::Settled { apps: vec![app(&["total", "tax"])] });
    assert!(text.contains("GET POST  http://n/shop/total  ()\n"), "{text}");
    assert!(text.contains("http://n/shop/tax"), "{text}");
}

#[test]
fn reload_names_what_changed() {
    let event = Event::Reloaded {
        app: app(&["total"]),
        elapsed_ms: 143,
        added: vec!["shop/total".to_owned()],
        removed: vec!["shop/tax".to_owned()],
    };
    assert_eq!(plain(&event), "reloaded shop in 143 ms (v: 0123456789ab)\n  + shop/total ()\n  - shop/tax\n");
}

#[test]
fn failure_shows_the_stack_and_what_serves() {
    let error =
        Failure { kind: "SyntaxError".to_owned(), message: "bad".to_owned(), stack: "a.py:1\n  x\n".to_owned() };
    let event =
        |serving| Event::Failed { app: "shop".to_owned(), directory: String::new(), error: error.clone(), serving };
    let first = plain(&event(None));
    assert!(first.starts_with("failed shop: SyntaxError: bad\n  a.py:1\n    x\n"), "{first}");
    assert!(plain(&event(Some("0123456789ab".to_owned()))).contains("0123456789ab) keeps serving"));
}

#[test]
fn json_events_name_themselves() {
    let json = serde_json::to_value(Event::Ready { app: app(&["total"]), elapsed_ms: 5 }).unwrap();
    assert_eq!((&json["event"], &json["name"], &json["state"]), (&"ready".into(), &"shop".into(), &"ready".into()));
    assert_eq!(json["functions"][0]["id"], "shop/total");
}
