use crate::harness::Attack;

const PYTHON: &str = r#"
import os, sys

def flood(mib: int):
    for _ in range(mib):
        sys.stdout.write("x" * (1 << 20))

def flood_pipe(mib: int):
    for _ in range(16 * mib):
        os.write(1, b"x" * (1 << 16))

def lines(pipe: bool):
    text = "x\n" * 200_000
    if pipe:
        while text:
            text = text[os.write(1, text.encode()):]
    else:
        sys.stdout.write(text)

def drown(pipe: bool):
    (flood_pipe if pipe else flood)(1024)

def huge():
    return "x" * (70 << 20)

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
exports.lines = (pipe) => {
  const text = 'x\n'.repeat(1000);
  for (let i = 0; i < 200; i++) pipe ? fs.writeSync(1, text) : process.stdout.write(text);
};
exports.drown = (pipe) => (pipe ? exports.flood_pipe : exports.flood)(1024);
exports.huge = () => 'x'.repeat(70 << 20);
exports.deep = () => { let nested = []; for (let i = 0; i < 100000; i++) nested = [nested]; return nested; };
exports.ok = () => null;
";

/// For 1 GiB of output without a newline.
const LIMIT: &str = "[functions.drown]\ntimeout = \"3s\"\n";

#[test]
fn flood_of_output_is_dropped_and_noted() {
    flood("[false]");
}

#[test]
fn flood_of_the_pipe_is_slowed_down() {
    flood("[true]");
}

fn flood(pipe: &str) {
    for (module, source) in [("a.py", PYTHON), ("a.js", NODE)] {
        let attack = Attack::prepare(&[(module, source), ("fnmesh.toml", LIMIT)]);
        attack.expect("lines", pipe, 200, "");
        attack.node.wait_for_stderr("app logs too much, lines are dropped");
        // Node.js keeps what it could not send, up to the limit of its memory.
        let (status, body) = attack.call("drown", pipe);
        assert!([200, 502, 504].contains(&status), "{module}: {status} {body}");
        attack.finish("ok", "[]");
    }
}

#[test]
fn huge_answer_is_refused() {
    for (module, source) in [("a.py", PYTHON), ("a.js", NODE)] {
        let attack = Attack::prepare(&[(module, source)]);
        attack.expect("huge", "[]", 500, "ResultTooLarge");
        attack.finish("ok", "[]");
    }
}

#[test]
fn deep_answer_is_refused() {
    for (module, source) in [("a.py", PYTHON), ("a.js", NODE)] {
        let attack = Attack::prepare(&[(module, source)]);
        attack.expect("deep", "[]", 500, "ResultError");
        attack.finish("ok", "[]");
    }
}
