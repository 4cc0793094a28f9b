use crate::harness::Attack;

const SIGNALS: &str = r#"
import os, signal, time

def stop():
    os.kill(os.getpid(), signal.SIGSTOP)

def deaf():
    for number in range(1, 65):
        try:
            signal.signal(number, signal.SIG_IGN)
        except (OSError, ValueError):
            pass
    while True:
        pass

def send(pid: int, number: int):
    try:
        os.kill(pid, number)
    except OSError as error:
        return error.strerror
    return "sent"

def parent():
    return send(os.getppid(), signal.SIGKILL)

def group():
    os.killpg(0, signal.SIGTERM)
    time.sleep(10)

def ok(): pass
"#;
const LIMIT: &str = "timeout = \"1s\"\n";

#[test]
fn stopped_worker_is_replaced() {
    let attack = Attack::prepare(&[("a.py", SIGNALS), ("fnmesh.toml", LIMIT)]);
    attack.expect("stop", "[]", 504, "");
    attack.finish("ok", "[]");
}

#[test]
fn worker_that_ignores_signals_is_replaced() {
    let attack = Attack::prepare(&[("a.py", SIGNALS), ("fnmesh.toml", LIMIT)]);
    attack.expect("deaf", "[]", 504, "");
    attack.finish("ok", "[]");
}

#[test]
fn signals_to_others_are_refused() {
    let attack = Attack::prepare(&[("a.py", SIGNALS)]);
    assert!(attack.has("seccomp") && attack.has("landlock"), "needs Linux 6.12");
    attack.expect("parent", "[]", 200, "Operation not permitted");
    for pid in [attack.pid().to_string(), format!("-{}", attack.pid()), "-1".to_owned()] {
        attack.expect("send", &format!("[{pid}, 9]"), 200, "Operation not permitted");
    }
    let own = attack.node.apps();
    let canary = own.as_array().unwrap().iter().find(|app| app["name"] == "canary").unwrap()["pools"][0]["instances"]
        [0]["pid"]
        .clone();
    attack.expect("send", &format!("[{canary}, 9]"), 200, "Operation not permitted");
    attack.finish("ok", "[]");
}

#[test]
fn signal_to_the_group_ends_the_worker_alone() {
    let attack = Attack::prepare(&[("a.py", SIGNALS)]);
    attack.expect("group", "[]", 502, "SIGTERM");
    attack.finish("ok", "[]");
}
