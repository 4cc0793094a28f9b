use std::fs;

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

def refused(act, *arguments):
    try:
        act(*arguments)
    except OSError as error:
        return error.strerror
    return "done"

def send_by_descriptor(pid: int, number: int):
    def act():
        directory = os.open(f"/proc/{pid}", os.O_RDONLY | os.O_DIRECTORY)
        try:
            signal.pidfd_send_signal(directory, number)
        finally:
            os.close(directory)
    return refused(act)

def own(pid: int, number: int):
    import fcntl, socket
    ours, theirs = socket.socketpair()
    def act():
        fcntl.fcntl(ours, fcntl.F_SETOWN, pid)
        fcntl.fcntl(ours, 10, number)  # F_SETSIG
        fcntl.fcntl(ours, fcntl.F_SETFL, os.O_ASYNC)
        theirs.send(b"x")
    return refused(act)

def slow_down(pid: int):
    attempts = [
        (os.sched_setaffinity, pid, [0]),
        (os.sched_setscheduler, pid, os.SCHED_IDLE, os.sched_param(0)),
        (os.setpriority, os.PRIO_PROCESS, pid, 19),
    ]
    return [refused(*attempt) for attempt in attempts]

def slow_down_all():
    return [refused(os.setpriority, os.PRIO_USER, 0, 19), refused(os.setpriority, os.PRIO_USER, os.getuid(), 19)]

def treat_own():
    import subprocess, threading
    child = subprocess.Popen(["sleep", "1000"], start_new_session=True)
    grandchild = subprocess.Popen(["sh", "-c", "sleep 1000 & echo $!; wait"], stdout=subprocess.PIPE, text=True)
    pids = [os.getpid(), threading.get_native_id(), child.pid, int(grandchild.stdout.readline())]
    seen = [refused(os.sched_setaffinity, pid, os.sched_getaffinity(0)) for pid in pids]
    seen += [refused(os.setpriority, os.PRIO_PROCESS, pid, 1) for pid in pids]
    seen += [refused(os.kill, pid, 0) for pid in pids]
    seen += [refused(os.setpriority, os.PRIO_PGRP, child.pid, 2), refused(os.killpg, child.pid, 0)]
    seen.append(refused(signal.pthread_kill, threading.get_ident(), 0))
    os.kill(pids[3], signal.SIGTERM)
    grandchild.kill()
    os.killpg(child.pid, signal.SIGKILL)
    seen += [child.wait() == -signal.SIGKILL, grandchild.wait() == -signal.SIGKILL]
    seen.append(refused(os.kill, child.pid, 0))
    return seen

def ok(): pass
"#;
const REFUSED: &str = "Operation not permitted";
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
    assert!(attack.has("seccomp") && attack.detail("seccomp").is_none(), "needs Linux 5.9");
    attack.expect("parent", "[]", 200, REFUSED);
    let node = attack.pid();
    for pid in [node.to_string(), format!("-{node}"), "-1".to_owned()] {
        attack.expect("send", &format!("[{pid}, 9]"), 200, REFUSED);
    }
    for pid in threads(node).into_iter().chain([attack.canary_pid()]) {
        attack.expect("send", &format!("[{pid}, 9]"), 200, REFUSED);
        // Where `/proc` lists only the worker's own processes there is no such directory; a kernel whose signals are not
        // in the reach of Landlock has no such call for it.
        let answer = attack.call("send_by_descriptor", &format!("[{pid}, 9]"));
        let ends = ["No such file or directory", "Function not implemented", "Bad file descriptor", REFUSED];
        assert!(answer.0 == 200 && ends.iter().any(|end| answer.1.contains(end)), "{pid}: {answer:?}");
        // It may name anybody; what counts is that no signal comes.
        assert_eq!(attack.call("own", &format!("[{pid}, 9]")).0, 200);
    }
    attack.finish("ok", "[]");
}

#[test]
fn others_are_not_slowed_down() {
    let attack = Attack::prepare(&[("a.py", SIGNALS)]);
    let node = attack.pid();
    for pid in threads(node).into_iter().chain([node, attack.canary_pid()]) {
        let all = format!("[\"{REFUSED}\",\"{REFUSED}\",\"{REFUSED}\"]");
        attack.expect("slow_down", &format!("[{pid}]"), 200, &all);
    }
    attack.expect("slow_down_all", "[]", 200, &format!("[\"{REFUSED}\",\"{REFUSED}\"]"));
    attack.finish("ok", "[]");
}

#[test]
fn what_a_worker_starts_is_its_own() {
    let attack = Attack::prepare(&[("a.py", SIGNALS)]);
    let done = vec![r#""done""#; 15].join(",");
    attack.expect("treat_own", "[]", 200, &format!("[{done},true,true,\"No such process\"]"));
    attack.finish("ok", "[]");
}

/// The threads of the node but its first one, which has the id of the process.
fn threads(node: u64) -> Vec<u64> {
    let tasks = fs::read_dir(format!("/proc/{node}/task")).unwrap();
    let ids = tasks.map(|task| task.unwrap().file_name().to_str().unwrap().parse().unwrap());
    ids.filter(|&id| id != node).collect()
}

#[test]
fn signal_to_the_group_ends_the_worker_alone() {
    let attack = Attack::prepare(&[("a.py", SIGNALS)]);
    attack.expect("group", "[]", 502, "SIGTERM");
    attack.finish("ok", "[]");
}
