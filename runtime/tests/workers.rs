//! Apps in real worker processes, called the way a gateway thread calls them.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use std::{future::poll_fn, rc::Rc, time::Duration};

use fnmesh_invoke::{AppState, Error, Payload, ReplyBody};
use support::{Fixture, PATIENCE, is_running, until, with_app};
use tokio::task::spawn_local;

const NODE_APP: (&str, &str) = (
    "shop.js",
    "exports.add = (a, b = 1) => a + b;
     exports.die = () => process.exit(3);
     exports.kill = () => process.kill(process.pid, 'SIGKILL');
     exports.spin = () => { for (;;); };
     exports.later = async (ms) => { await new Promise((done) => setTimeout(done, ms)); return 'done'; };
     exports.count = function* (n) { for (let i = 0; i < n; i++) yield i; };
     exports.fail = () => { throw new TypeError('no such thing'); };",
);

/// The answers to `count` calls that are in flight at once.
async fn together(app: Fixture, function: &'static str, count: usize) -> Vec<String> {
    let app = Rc::new(app);
    let call = |_| {
        let app = Rc::clone(&app);
        spawn_local(async move { app.json(function, "[]").await })
    };
    let calls: Vec<_> = (0..count).map(call).collect();
    let mut answers = Vec::new();
    for call in calls {
        answers.push(call.await.unwrap());
    }
    answers
}

async fn replaces_stuck_worker(app: &Fixture, source: (&str, &str)) {
    app.deploy(&[source]).await.unwrap();
    let before = app.pids();
    let error = app.call_within("spin", "[]", Duration::from_millis(100)).await.unwrap_err();
    assert!(matches!(error, Error::DeadlineExceeded { .. }), "{error}");
    until("the stuck worker is killed", || !is_running(before[0])).await;
    assert_eq!(app.json("add", "[1,2]").await, "3");
}

const PYTHON_APP: (&str, &str) = (
    "shop.py",
    r#"
import ctypes, os, re, signal, threading, time
barrier = threading.Barrier(64)
def add(a: int, b: int = 1) -> int:
    return a + b
def exit(): os._exit(7)
def crash(): ctypes.string_at(0)
def kill(): os.kill(os.getpid(), signal.SIGKILL)
def spin():
    re.match(r"(a+)+$", "a" * 40 + "b")
def meet():
    barrier.wait(20)
    return "met"
def hold(seconds: float):
    time.sleep(seconds)
def count(n: int):
    yield from range(n)
async def later(seconds: float):
    import asyncio
    await asyncio.sleep(seconds)
    return "done"
"#,
);

#[test]
fn python_functions_are_found_and_called() {
    with_app(async |app| {
        app.deploy(&[PYTHON_APP]).await.unwrap();
        assert_eq!(app.json("add", "[1,2]").await, "3");
        assert_eq!(app.json("add", "{\"a\":5}").await, "6");
        assert_eq!(app.function("add").await.signature.to_string(), "(a: int, b: int = 1) -> int");
        assert_eq!(app.json("later", "[0.01]").await, "\"done\"");
        let bad = app.call("add", "[]").await.unwrap_err();
        assert!(matches!(&bad, Error::InvalidInput { message } if message.contains('a')), "{bad}");
    });
}

/// The scheduling policies of all threads of a process.
fn policies(pid: u32) -> Vec<i32> {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let stats = threads.map(|thread| std::fs::read_to_string(thread.unwrap().path().join("stat")));
    // The 41st field, counted from behind the name: proc_pid_stat(5). A thread may have ended by now.
    let fields = stats.flatten().map(|stat| stat.rsplit(')').next()?.split_whitespace().nth(38)?.parse().ok());
    fields.map(|policy| policy.unwrap()).collect()
}

/// Calls `f` of `source` from so many callers until all threads of its worker run in batches, and waits until they run
/// as others do when nobody calls any more.
fn runs_in_batches_while_busy(source: (&'static str, &'static str), callers: usize) {
    with_app(async move |app| {
        app.deploy(&[source]).await.unwrap();
        let (pid, app) = (app.pids()[0], Rc::new(app));
        let all_have = |policy| policies(pid).iter().all(|it| *it == policy);
        assert!(all_have(libc::SCHED_OTHER), "{:?}", policies(pid));
        let busy = (0..callers).map(|_| {
            let app = Rc::clone(&app);
            spawn_local(async move {
                loop {
                    app.json("f", "[]").await;
                }
            })
        });
        let busy: Vec<_> = busy.collect();
        until("it runs in batches", || all_have(libc::SCHED_BATCH)).await;
        for caller in busy {
            caller.abort();
        }
        until("it runs soon again", || all_have(libc::SCHED_OTHER)).await;
    });
}

#[test]
fn workers_run_in_batches_while_many_calls_come() {
    runs_in_batches_while_busy(("m.py", "def f(): return 1"), 16);
    runs_in_batches_while_busy(("m.js", "exports.f = () => 1;"), 16);
}

#[test]
fn workers_run_in_batches_while_they_compute() {
    runs_in_batches_while_busy(("m.py", "def f(): return sum(range(1_000_000))"), 1);
}

#[test]
fn python_death_fails_its_calls_only_and_a_new_worker_starts() {
    with_app(async |app| {
        app.deploy(&[PYTHON_APP]).await.unwrap();
        let ends = [("exit", "exited with status 7"), ("crash", "SIGSEGV"), ("kill", "SIGKILL")];
        for (function, reason) in ends {
            let error = app.call(function, "[]").await.unwrap_err();
            assert!(matches!(&error, Error::InstanceLost { reason: it, .. } if it.contains(reason)), "{error}");
            assert_eq!(app.json("add", "[1,2]").await, "3");
        }
    });
}

#[test]
fn python_stuck_in_native_code_is_replaced_after_the_deadline() {
    with_app(async |app| {
        replaces_stuck_worker(&app, PYTHON_APP).await;
    });
}

#[test]
fn worker_beyond_its_memory_limit_is_replaced() {
    with_app(async |app| {
        let source = "def add(a, b): return a + b\ndef grow(): return len([bytes(1 << 20) for _ in iter(int, 1)])\n";
        app.deploy(&[("shop.py", source), ("fnmesh.toml", "memory = \"128MiB\"\n")]).await.unwrap();
        let error = app.call("grow", "[]").await.unwrap_err();
        assert!(matches!(&error, Error::InstanceLost { reason, .. } if reason.contains("limit of 128 MiB")), "{error}");
        assert_eq!(app.json("add", "[1,2]").await, "3");
    });
}

#[test]
fn blocking_calls_of_one_instance_run_at_once() {
    with_app(async |app| {
        app.deploy(&[PYTHON_APP]).await.unwrap();
        // Each waits for all the others.
        assert_eq!(together(app, "meet", 64).await, vec!["\"met\""; 64]);
    });
}

#[test]
fn fast_calls_are_answered_while_others_block() {
    with_app(async |app| {
        app.deploy(&[PYTHON_APP]).await.unwrap();
        let blocked = app.call_within("hold", "[30]", PATIENCE);
        tokio::pin!(blocked);
        for _ in 0..20 {
            tokio::select! {
                biased;
                answer = &mut blocked => panic!("the blocking call ended: {answer:?}"),
                sum = app.json("add", "[1,2]") => assert_eq!(sum, "3"),
            }
        }
    });
}

#[test]
fn both_languages_serve_one_app() {
    with_app(async |app| {
        let node = ("other.js", "exports.shout = (text) => text.toUpperCase(); exports.add = () => 'node';");
        app.deploy(&[PYTHON_APP, node]).await.unwrap();
        assert_eq!(app.json("shout", "[\"hi\"]").await, "\"HI\"");
        assert_eq!(app.json("shop.add", "[1,2]").await, "3");
        assert_eq!(app.json("other.add", "[]").await, "\"node\"");
        let ambiguous = app.call("add", "[1,2]").await.unwrap_err();
        let names = ["shop/shop.add", "shop/other.add"];
        assert!(names.iter().all(|name| ambiguous.to_string().contains(name)), "{ambiguous}");
    });
}

#[test]
fn modules_of_one_name_in_two_languages_are_told_apart_by_file() {
    with_app(async |app| {
        let python = ("same.py", "def add(): return 'python'\n");
        app.deploy(&[python, ("same.js", "exports.add = () => 'node';")]).await.unwrap();
        assert_eq!(app.json("same.py.add", "").await, "\"python\"");
        assert_eq!(app.json("same.js.add", "").await, "\"node\"");
        let ambiguous = app.call("same.add", "").await.unwrap_err().to_string();
        assert!(["shop/same.py.add", "shop/same.js.add"].iter().all(|name| ambiguous.contains(name)), "{ambiguous}");
    });
}

#[test]
fn functions_own_limits_hold() {
    with_app(async |app| {
        let source = "import threading\nnow = most = 0\nlock = threading.Lock()\n\
            def alone():\n    global now, most\n    with lock:\n        now += 1\n        most = max(most, now)\n\
            \x20   threading.Event().wait(0.01)\n    with lock:\n        now -= 1\n    return most\n\
            def hidden(): pass\n";
        let manifest = "[functions.alone]\nconcurrency = 2\ntimeout = \"7s\"\n[functions.hidden]\npublic = false\n";
        app.deploy(&[("shop.py", source), ("fnmesh.toml", manifest)]).await.unwrap();
        assert_eq!(app.function("alone").await.limits.timeout, Duration::from_secs(7));
        assert!(!app.function("hidden").await.public);
        for most in together(app, "alone", 20).await {
            assert!(["1", "2"].contains(&&*most), "{most} at once");
        }
    });
}

#[test]
fn node_functions_are_found_and_called() {
    with_app(async |app| {
        app.deploy(&[NODE_APP]).await.unwrap();
        assert_eq!(app.json("add", "[1,2]").await, "3");
        assert_eq!(app.json("add", "{\"a\":5}").await, "6");
        assert_eq!(app.json("shop.add", "[1]").await, "2");
        assert_eq!(app.function("add").await.signature.to_string(), "(a, b = 1)");
        let unknown = app.call("ad", "[]").await.unwrap_err();
        assert!(matches!(&unknown, Error::UnknownFunction { nearest, .. } if nearest[0] == "shop/add"), "{unknown}");
        let failed = app.call("fail", "[]").await.unwrap_err();
        assert!(
            matches!(&failed, Error::FunctionFailed(it) if it.kind == "TypeError" && it.stack.contains("shop.js")),
            "{failed:?}"
        );
        let bad = app.call("add", "[").await.unwrap_err();
        assert!(matches!(bad, Error::InvalidInput { .. }), "{bad:?}");
    });
}

#[test]
fn node_generator_streams() {
    with_app(async |app| {
        app.deploy(&[NODE_APP]).await.unwrap();
        let ReplyBody::Stream(mut stream) = app.call("count", "[100]").await.unwrap().body else {
            panic!("not a stream")
        };
        for expected in 0..100 {
            let item = poll_fn(|cx| stream.as_mut().poll_next(cx)).await.unwrap().unwrap();
            assert_eq!(item, Payload::json(expected.to_string()));
        }
        assert!(poll_fn(|cx| stream.as_mut().poll_next(cx)).await.is_none());
    });
}

#[test]
fn death_of_a_worker_fails_its_calls_only_and_a_new_one_starts() {
    with_app(async |app| {
        app.deploy(&[NODE_APP]).await.unwrap();
        for (function, reason) in [("die", "exited with status 3"), ("kill", "killed by signal 9 (SIGKILL)")] {
            let before = app.pids();
            let error = app.call(function, "[]").await.unwrap_err();
            assert!(matches!(&error, Error::InstanceLost { reason: it, .. } if it.contains(reason)), "{error}");
            assert_eq!(app.json("add", "[1,2]").await, "3");
            assert_ne!(app.pids(), before);
        }
        assert_eq!(app.runtime.apps()[0].pools[0].lost, 2);
    });
}

#[test]
fn stuck_worker_is_replaced_after_the_deadline() {
    with_app(async |app| {
        replaces_stuck_worker(&app, NODE_APP).await;
    });
}

#[test]
fn redeploy_serves_the_new_version_and_ends_the_old_calls() {
    with_app(async |app| {
        app.deploy(&[NODE_APP]).await.unwrap();
        let before = app.pids();
        let (slow, redeployed) = tokio::join!(app.json("later", "[300]"), async {
            app.deploy(&[("shop.js", "exports.add = (a, b) => `${a}${b}`;")]).await.unwrap();
            app.json("add", "[1,2]").await
        });
        assert_eq!((slow.as_str(), redeployed.as_str()), ("\"done\"", "\"12\""));
        until("the old worker stops", || !is_running(before[0])).await;
    });
}

#[test]
fn version_that_cannot_start_leaves_the_last_good_one() {
    with_app(async |app| {
        app.deploy(&[NODE_APP]).await.unwrap();
        let failure = app.deploy(&[("shop.js", "exports.add = (a b) => 1;")]).await.unwrap_err();
        assert_eq!(failure.kind, "SyntaxError");
        assert_eq!(app.json("add", "[1,2]").await, "3");
        assert!(matches!(&app.runtime.apps()[0].state, AppState::Stale { error } if *error == failure));
        app.deploy(&[("shop.js", "exports.add = () => 0;")]).await.unwrap();
        assert_eq!(app.runtime.apps()[0].state, AppState::Ready);
    });
}

#[test]
fn app_that_cannot_start_says_why() {
    with_app(async |app| {
        let failure = app.deploy(&[("shop.js", "throw new RangeError('not today');")]).await.unwrap_err();
        assert_eq!((failure.kind.as_str(), failure.message.as_str()), ("RangeError", "not today"));
        assert!(failure.stack.contains("shop.js:1"), "{}", failure.stack);
        let error = app.call("add", "[]").await.unwrap_err();
        assert!(matches!(error, Error::StartFailed { .. }), "{error}");
    });
}

#[test]
fn worker_that_dies_while_loading_leaves_its_last_words() {
    with_app(async |app| {
        let source = "import os\nos.write(2, b'no space left for dreams\\n')\nos._exit(9)\n";
        let failure = app.deploy(&[("shop.py", source)]).await.unwrap_err();
        assert!(failure.message.contains("exited with status 9"), "{failure}");
        assert_eq!(failure.stack, "no space left for dreams");
    });
}

#[test]
fn drain_lets_calls_end_and_stops_every_worker() {
    with_app(async |app| {
        app.deploy(&[NODE_APP]).await.unwrap();
        let pids = app.pids();
        let (slow, ()) = tokio::join!(app.json("later", "[200]"), async {
            let runtime = app.runtime.clone();
            until("the call is in flight", || runtime.apps()[0].pools[0].in_flight == 1).await;
            runtime.drain(PATIENCE).await;
        });
        assert_eq!(slow, "\"done\"");
        assert!(matches!(app.call("add", "[1]").await, Err(Error::Draining)));
        assert!(!is_running(pids[0]));
    });
}
