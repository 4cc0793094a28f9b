use crate::harness::Attack;

const PYTHON: &str = r#"
import os, sys

def flood(mib: int):
    for _ in range(mib):
        sys.stdout.write("x" * (1 << 20))

def flood_pipe(mib: int):
    for _ in range(16 * mib):
        os.write(1, b"x" * (1 << 16))

def huge():
    return "x" * (200 << 20)

def deep():
    nested = []
    for _ in range(100000):
        nested = [nested]
    return nested


def ok(): pass
"#;
const NODE: &str = r"
const fs = require('node:fs');
exports.flood = (mib) => { for (let i = 0; i < mib; i++) process.stdout.write('x'.repeat(1 << 20)); };
exports.flood_pipe = (mib) => { for (let i = 0; i < 16 * mib; i++) fs.writeSync(1, Buffer.alloc(1 << 16, 120)); };
exports.huge = () => 'x'.repeat(200 << 20);
exports.deep = () => { let nested = []; for (let i = 0; i < 100000; i++) nested = [nested]; return nested; };
exports.ok = () => null;
";

#[test]
fn flood_of_output_is_dropped_and_noted() {
    for (module, source) in [("a.py", PYTHON), ("a.js", NODE)] {
        let attack = Attack::prepare(&[(module, source), ("fnmesh.toml", "timeout = \"3s\"\n")]);
        // Whether it gets through in time or not.
        let (status, body) = attack.call("flood", "[1024]");
        assert!([200, 504].contains(&status), "{status} {body}");
        attack.node.wait_for_stderr("app logs too much, lines are dropped");
        attack.is_over("ok", "[]");
    }
}

#[test]
fn flood_of_the_pipe_is_slowed_down() {
    for (module, source) in [("a.py", PYTHON), ("a.js", NODE)] {
        let attack = Attack::prepare(&[(module, source), ("fnmesh.toml", "timeout = \"2s\"\n")]);
        let (status, body) = attack.call("flood_pipe", "[1024]");
        assert!([200, 504].contains(&status), "{status} {body}");
        attack.node.wait_for_stderr("app logs too much, lines are dropped");
        attack.is_over("ok", "[]");
    }
}

#[test]
fn huge_answer_is_refused() {
    for (module, source) in [("a.py", PYTHON), ("a.js", NODE)] {
        let attack = Attack::prepare(&[(module, source)]);
        attack.expect("huge", "[]", 500, "ResultTooLarge");
        attack.is_over("ok", "[]");
    }
}

#[test]
fn deep_answer_is_refused() {
    for (module, source) in [("a.py", PYTHON), ("a.js", NODE)] {
        let attack = Attack::prepare(&[(module, source)]);
        attack.expect("deep", "[]", 500, "ResultError");
        attack.is_over("ok", "[]");
    }
}
