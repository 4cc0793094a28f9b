//! How pools of real workers grow, shrink, queue and fail.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use std::{fs, rc::Rc, time::Duration};

use fnmesh_invoke::{CircuitState, Error, Invoke};
use support::{Fixture, PATIENCE, is_running, until, with_app};
use tokio::task::{JoinHandle, spawn_local};

const APP: &str = r#"
import os, pathlib, re, signal, threading, time
if pathlib.Path("broken").exists():
    raise RuntimeError("not today")
if pathlib.Path("dying").exists():
    threading.Timer(0.01, lambda: os._exit(5)).start()
def add(a, b): return a + b
def length(text): return len(text)
def pid(): return os.getpid()
def hold(name):
    while not pathlib.Path(name).exists():
        time.sleep(0.005)
    return "done"
def die(): os._exit(3)
def perish(): os.kill(os.getpid(), signal.SIGKILL)
def spin(): re.match(r"(a+)+$", "a" * 40 + "b")
"#;

async fn deploy(app: &Fixture, manifest: &str) {
    app.deploy(&[("shop.py", APP), ("fnmesh.toml", manifest)]).await.unwrap();
}

/// A call that ends once [`release`] is called.
fn hold(app: &Rc<Fixture>) -> JoinHandle<String> {
    let app = Rc::clone(app);
    spawn_local(async move { app.json("hold", "[\"go\"]").await })
}

fn release(app: &Fixture) {
    app.write(&[("go", "")]);
}

fn kill(pid: u32) {
    let pid = rustix::process::Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
}

#[test]
fn saturated_pool_grows_and_shrinks_again() {
    with_app(async |app| {
        deploy(&app, "concurrency = 1\nmax_instances = 3\nkeep_alive = \"1s\"\n").await;
        let app = Rc::new(app);
        let calls: Vec<_> = (0..5).map(|_| hold(&app)).collect();
        until("the pool has grown", || app.pool().instances.len() == 3 && app.pool().queued == 2).await;
        let pool = app.pool();
        assert_eq!((pool.in_flight, pool.want, pool.starting, pool.cold_starts), (3, 3, 0, 0));
        assert!(pool.start_ms.unwrap() > 0.0 && pool.instances.iter().all(|it| it.memory_bytes.is_some()));
        release(&app);
        for call in calls {
            assert_eq!(call.await.unwrap(), "\"done\"");
        }
        assert_eq!(app.pool().instances.iter().map(|it| it.calls).sum::<u64>(), 5);
        let pids = app.pids();
        until("the pool has shrunk", || app.pool().instances.len() == 1).await;
        until("the workers are gone", || pids.iter().filter(|pid| is_running(**pid)).count() == 1).await;
        assert_eq!((app.json("add", "[1,2]").await.as_str(), app.pool().lost), ("3", 0));
    });
}

#[test]
fn stuck_instance_does_not_attract_calls() {
    with_app(async |app| {
        deploy(&app, "min_instances = 2\n").await;
        until("both are there", || app.pool().instances.len() == 2).await;
        let app = Rc::new(app);
        let stuck = Rc::clone(&app);
        let stuck = spawn_local(async move { stuck.call_within("spin", "[]", PATIENCE).await });
        until("one is stuck", || app.pool().in_flight == 1).await;
        // Until it is known to be stuck, calls may go there; they are not waited for.
        let answered = async { while app.call_within("add", "[1,2]", Duration::from_millis(100)).await.is_err() {} };
        tokio::time::timeout(PATIENCE, answered).await.unwrap();
        for _ in 0..50 {
            assert_eq!(app.json("add", "[1,2]").await, "3");
        }
        stuck.abort();
    });
}

#[test]
fn pool_without_minimum_ends_and_starts_on_demand() {
    with_app(async |app| {
        deploy(&app, "min_instances = 0\nkeep_alive = \"1s\"\n").await;
        until("the pool is empty", || app.pool().instances.is_empty()).await;
        assert_eq!(app.pool().cold_starts, 0);
        let app = Rc::new(app);
        let calls: Vec<_> = (0..3).map(|_| hold(&app)).collect();
        until("all calls have an instance", || app.pool().in_flight == 3).await;
        let pool = app.pool();
        assert_eq!((pool.instances.len(), pool.cold_starts), (1, 3));
        assert!(pool.cold_start_last_ms.unwrap() > 0.0 && pool.cold_start_total_ms > pool.cold_start_last_ms.unwrap());
        release(&app);
        for call in calls {
            assert_eq!(call.await.unwrap(), "\"done\"");
        }
    });
}

#[test]
fn full_queue_refuses_with_the_limit() {
    with_app(async |app| {
        deploy(&app, "concurrency = 1\nmax_instances = 1\nqueue = 2\n").await;
        let app = Rc::new(app);
        let calls: Vec<_> = (0..3).map(|_| hold(&app)).collect();
        until("two wait", || app.pool().queued == 2).await;
        let error = app.call("add", "[1,2]").await.unwrap_err();
        assert!(error.to_string().contains("2 calls already wait for app \"shop\""), "{error}");
        assert!(matches!(error, Error::Throttled { retry_after, rate: false, .. } if retry_after.as_secs() >= 1));
        release(&app);
        for call in calls {
            assert_eq!(call.await.unwrap(), "\"done\"");
        }
        assert_eq!(app.json("add", "[1,2]").await, "3");
    });
}

#[test]
fn calls_that_wait_for_their_function_count_as_queued() {
    with_app(async |app| {
        deploy(&app, "queue = 2\n[functions.hold]\nconcurrency = 1\n").await;
        let app = Rc::new(app);
        let calls: Vec<_> = (0..3).map(|_| hold(&app)).collect();
        until("two wait", || app.pool().queued == 2).await;
        let error = app.call("hold", "[\"go\"]").await.unwrap_err();
        assert!(matches!(error, Error::Throttled { .. }), "{error}");
        assert_eq!(app.json("add", "[1,2]").await, "3", "other functions need not wait");
        release(&app);
        for call in calls {
            assert_eq!(call.await.unwrap(), "\"done\"");
        }
    });
}

#[test]
fn queue_is_bounded_by_bytes() {
    with_app(async |app| {
        deploy(&app, "concurrency = 1\nmax_instances = 1\n").await;
        let app = Rc::new(app);
        let held = hold(&app);
        until("the only place is taken", || app.pool().in_flight == 1).await;
        let limit = app.pool().max_queued_bytes;
        let large = format!("[\"{}\"]", "x".repeat(limit));
        let waiting = Rc::clone(&app);
        let waiting = spawn_local(async move { waiting.json("length", &large).await });
        until("a call larger than the limit waits alone", || app.pool().queued_bytes > limit).await;
        let error = app.call("add", "[1,2]").await.unwrap_err();
        assert!(error.to_string().contains(&format!("the limit of {limit} bytes")), "{error}");
        release(&app);
        assert_eq!(held.await.unwrap(), "\"done\"");
        assert_eq!(waiting.await.unwrap(), limit.to_string());
    });
}

#[test]
fn call_that_would_wait_too_long_is_refused_at_once() {
    with_app(async |app| {
        deploy(&app, "concurrency = 1\nmax_instances = 1\n").await;
        let app = Rc::new(app);
        let calls: Vec<_> = (0..5).map(|_| hold(&app)).collect();
        until("four wait", || app.pool().queued == 4).await;
        // The longer nothing moves, the longer five will take.
        let mut refused = None;
        while refused.is_none() {
            refused = match app.call_within("add", "[1,2]", Duration::from_millis(300)).await {
                Err(Error::Throttled { reason, .. }) => Some(reason),
                other => {
                    assert!(matches!(other, Err(Error::DeadlineExceeded { .. })), "{other:?}");
                    None
                }
            };
        }
        assert!(refused.unwrap().contains("longer than it may take"));
        release(&app);
        for call in calls {
            assert_eq!(call.await.unwrap(), "\"done\"");
        }
    });
}

#[test]
fn deadly_calls_fail_one_by_one_and_others_are_answered() {
    with_app(async |app| {
        deploy(&app, "").await;
        let app = Rc::new(app);
        let beside = Rc::clone(&app);
        let beside = spawn_local(async move {
            let mut answers = 0;
            loop {
                match beside.call("add", "[1,2]").await {
                    Ok(_) => answers += 1,
                    Err(Error::InstanceLost { .. }) => {}
                    Err(other) => panic!("{other}"),
                }
                if answers > 20 {
                    return;
                }
            }
        });
        for call in 0..30 {
            let function = if call % 2 == 0 { "die" } else { "perish" };
            let error = app.call(function, "[]").await.unwrap_err();
            assert!(matches!(error, Error::InstanceLost { .. }), "{error}");
        }
        beside.await.unwrap();
        assert_eq!(app.pool().circuit, CircuitState::Closed);
    });
}

#[test]
fn app_whose_instances_die_by_themselves_is_refused_until_it_recovers() {
    with_app(async |app| {
        deploy(&app, "").await;
        app.write(&[("dying", "")]);
        kill(app.pids()[0]);
        until("the circuit is open", || app.pool().circuit == CircuitState::Open).await;
        let error = app.call("add", "[1,2]").await.unwrap_err();
        assert_eq!((error.http_status(), error.kind()), (503, "StartFailed"));
        let text = error.to_string();
        for part in ["\"shop\"", "keep dying", "exited with status 5", "failures in a row", "next try is in"] {
            assert!(text.contains(part), "{part:?} in {text}");
        }
        assert!(error.retry_after().is_some());
        assert!(app.pool().failures >= 3 && app.pool().failure.is_some());
        fs::remove_file(app.directory.path().join("dying")).unwrap();
        until("an instance stays", || app.pool().circuit == CircuitState::HalfOpen && !app.pids().is_empty()).await;
        assert_eq!(app.json("add", "[1,2]").await, "3");
        until("the circuit is closed", || app.pool().circuit == CircuitState::Closed).await;
        assert_eq!((app.pool().failures, app.pool().failure), (0, None));
    });
}

#[test]
fn app_that_cannot_start_again_says_why_and_recovers() {
    with_app(async |app| {
        deploy(&app, "").await;
        app.write(&[("broken", "")]);
        kill(app.pids()[0]);
        until("a start has failed", || app.pool().failures >= 2).await;
        let mut error = app.call("add", "[1,2]").await;
        while let Err(Error::InstanceLost { .. }) = error {
            error = app.call("add", "[1,2]").await;
        }
        let error = error.unwrap_err();
        assert!(error.to_string().contains("RuntimeError: not today"), "{error}");
        assert!(error.stack().unwrap().contains("shop.py"), "{error}");
        fs::remove_file(app.directory.path().join("broken")).unwrap();
        until("an instance is there", || !app.pids().is_empty()).await;
        assert_eq!(app.json("add", "[1,2]").await, "3");
    });
}

#[test]
fn replaced_version_takes_its_pool_along() {
    with_app(async |app| {
        deploy(&app, "min_instances = 2\n").await;
        until("both are there", || app.pool().instances.len() == 2).await;
        let before = app.pids();
        deploy(&app, "min_instances = 1\n").await;
        until("the old workers are gone", || !before.iter().any(|pid| is_running(*pid))).await;
        assert_eq!((app.pool().instances.len(), app.pool().min_instances), (1, 1));
        assert!(app.local.resolve("shop", "add").await.is_ok());
    });
}
