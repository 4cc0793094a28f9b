use crate::{harness::Attack, support::wait_until};

const BOMB: &str = r#"
import os, time

def bomb():
    end = time.monotonic() + 20
    while time.monotonic() < end:
        try:
            if os.fork() == 0:
                os.setsid()
        except OSError:
            time.sleep(0.001)

def daemon():
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            time.sleep(60)
        os._exit(0)
    return "left"

def ok(): pass
"#;
const NODE: &str = r"
const { spawn } = require('node:child_process');
exports.bomb = async () => {
  for (let i = 0; i < 500; i++) {
    spawn('sleep', ['20'], { detached: true, stdio: 'ignore' }).on('error', () => {}).unref();
    await new Promise((next) => setImmediate(next));
  }
  await new Promise((next) => setTimeout(next, 20000));
};
exports.ok = () => null;
";
const LIMIT: &str = "processes = 64\ntimeout = \"15s\"\n";

#[test]
fn fork_bomb_that_leaves_its_session_ends_with_its_worker() {
    let attack = Attack::prepare(&[("a.py", BOMB), ("fnmesh.toml", LIMIT)]);
    assert!(attack.has("cgroup"), "needs cgroups with memory and pids");
    attack.expect("bomb", "[]", 502, "more processes and threads than its app's limit of 64");
    attack.finish("ok", "[]");
}

/// The next one might do the same, and disturbs others most while it multiplies.
#[test]
fn instance_after_a_fork_bomb_has_a_small_part_of_the_cores() {
    let attack = Attack::prepare(&[("a.py", BOMB), ("fnmesh.toml", LIMIT)]);
    let has_parts = attack.detail("cgroup").is_some_and(|detail| detail.ends_with("with cpu"));
    let part = |app: &str| has_parts.then(|| attack.part(app));
    let equal = part("canary");
    assert_eq!(part("attacker"), equal);
    attack.expect("bomb", "[]", 502, "more processes and threads than its app's limit of 64");
    wait_until(|| attack.call("ok", "[]").0 == 200, || "the app is not back".to_owned());
    let small = equal.map(|equal| if equal == 1024 { 16 } else { 2 });
    wait_until(|| part("attacker") == small, || format!("{:?} is not {small:?}", part("attacker")));
    assert_eq!(part("canary"), equal);
    attack.finish("ok", "[]");
}

#[test]
fn processes_that_node_starts_end_with_its_worker() {
    let attack = Attack::prepare(&[("a.js", NODE), ("fnmesh.toml", LIMIT)]);
    assert!(attack.has("cgroup"), "needs cgroups with memory and pids");
    attack.expect("bomb", "[]", 502, "more processes and threads than its app's limit of 64");
    attack.finish("ok", "[]");
}

#[test]
fn daemon_ends_with_the_worker_that_started_it() {
    let attack = Attack::prepare(&[("a.py", &format!("{BOMB}\ndef die(): os._exit(3)\n"))]);
    attack.expect("daemon", "[]", 200, "left");
    attack.expect("die", "[]", 502, "status 3");
    attack.finish("ok", "[]");
}
