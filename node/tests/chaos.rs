//! Processes of a node that are killed at random while it is called.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use std::{
    fs,
    sync::atomic::{AtomicBool, Ordering::SeqCst},
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};
use support::{Apps, Node, PATIENCE, post, wait_until};

const APPS: [&str; 3] = ["py", "cold", "js"];
const CALLERS: usize = 8;
const DURATION: Duration = Duration::from_secs(5);
/// Longer than any pause between two starts within the duration.
const WAIT: Duration = Duration::from_secs(20);

/// Instances, those that start, and what they are made from.
#[test]
fn no_call_hangs_when_workers_are_killed_all_the_time() {
    let apps = Apps::new(&[
        ("py/app.py", "def f(a: int) -> int: return a\n"),
        ("py/fnmesh.toml", "min_instances = 2\n"),
        ("cold/app.py", "def f(a: int) -> int: return a\n"),
        ("cold/fnmesh.toml", "min_instances = 0\nkeep_alive = \"1s\"\n"),
        ("js/app.js", "exports.f = (a) => a;\n"),
    ]);
    let node = Node::settled("serve", &APPS.map(|app| apps.path(app)), &[]);
    let pid = node.get("/_/health")["pid"].as_u64().unwrap();
    let (url, over) = (&node.url, &AtomicBool::new(false));
    thread::scope(|scope| {
        let callers: Vec<_> = (0..CALLERS).map(|caller| scope.spawn(move || call_until(url, caller, over))).collect();
        let end = Instant::now() + DURATION;
        for turn in 0.. {
            if Instant::now() > end {
                break;
            }
            let children = children(pid);
            if let Some(child) = children.get(turn % children.len().max(1)) {
                // It may have ended meanwhile.
                let _ = kill_process(*child, Signal::KILL);
            }
            thread::sleep(Duration::from_millis(70));
        }
        over.store(true, SeqCst);
        let answered: usize = callers.into_iter().map(|caller| caller.join().unwrap()).sum();
        assert!(answered > 0);
    });
    for app in APPS {
        let call = || post(&node.url, &format!("{app}/f"), "[1]", PATIENCE).unwrap();
        wait_until(|| call() == (200, "1".to_owned()), || format!("{app} answers {:?}", call()));
    }
    assert_eq!(node.get("/_/health")["pid"], pid);
}

/// Calls one app after the other; how often a function has answered.
fn call_until(url: &str, caller: usize, over: &AtomicBool) -> usize {
    let mut answered = 0;
    for turn in caller.. {
        if over.load(SeqCst) {
            break;
        }
        let app = APPS[turn % APPS.len()];
        let (status, body) = post(url, &format!("{app}/f"), &format!("[{turn}]"), WAIT).unwrap();
        match status {
            200 => assert_eq!(body, turn.to_string()),
            _ => assert!([502, 503].contains(&status), "{app}: {status} {body}"),
        }
        answered += usize::from(status == 200);
    }
    answered
}

fn children(pid: u64) -> Vec<Pid> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap().flatten();
    let lists = tasks.map(|task| fs::read_to_string(task.path().join("children")).unwrap_or_default());
    lists
        .flat_map(|list| {
            list.split_ascii_whitespace().filter_map(|pid| Pid::from_raw(pid.parse().ok()?)).collect::<Vec<_>>()
        })
        .collect()
}
