use crate::harness::Attack;

const PYTHON: &str = r#"
import json, re

def match():
    return bool(re.match(r"(a+)+$", "a" * 64 + "b"))

def parse():
    return len(json.loads("[" + "1," * (50 << 20) + "1]"))

def ok(): pass
"#;
const NODE: &str = r"
exports.spin = () => { for (;;); };
exports.match = () => /^(a+)+$/.test('a'.repeat(64) + 'b');
exports.reject = () => { setTimeout(() => Promise.reject(new Error('nobody waits for this')), 1); };
exports.exit = () => { setTimeout(() => process.exit(3), 1); };
exports.ok = () => null;
";
const LIMIT: &str = "timeout = \"1s\"\n";

#[test]
fn endless_work_in_c_code_ends_at_the_deadline() {
    let attack = Attack::prepare(&[("a.py", PYTHON), ("fnmesh.toml", LIMIT)]);
    attack.expect("match", "[]", 504, "");
    attack.finish("ok", "[]");
}

#[test]
fn huge_json_ends_at_a_limit() {
    let attack = Attack::prepare(&[("a.py", PYTHON), ("fnmesh.toml", "timeout = \"5s\"\nmemory = \"256MiB\"\n")]);
    let (status, body) = attack.call("parse", "[]");
    assert!([502, 504].contains(&status), "{status} {body}");
    attack.finish("ok", "[]");
}

#[test]
fn blocked_event_loop_ends_at_the_deadline() {
    let attack = Attack::prepare(&[("a.js", NODE), ("fnmesh.toml", LIMIT)]);
    attack.expect("spin", "[]", 504, "");
    attack.expect("match", "[]", 504, "");
    attack.finish("ok", "[]");
}

#[test]
fn unhandled_rejection_and_late_exit_cost_one_worker_at_most() {
    let attack = Attack::prepare(&[("a.js", NODE)]);
    attack.expect("reject", "[]", 200, "");
    attack.node.wait_for_stderr("nobody waits for this");
    // Node.js ends with an unhandled rejection.
    attack.node.wait_for_stderr("status 1");
    let answers = || attack.call("ok", "[]").0 == 200;
    crate::support::wait_until(answers, || "the worker was not replaced".to_owned());
    let before = attack.node.workers();
    attack.expect("exit", "[]", 200, "");
    attack.node.wait_for_stderr("status 3");
    crate::support::wait_until(
        || attack.node.workers().len() == before.len() && attack.node.workers() != before,
        || "the worker was not replaced".to_owned(),
    );
    attack.finish("ok", "[]");
}
