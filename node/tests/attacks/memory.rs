use crate::harness::Attack;

const PYTHON: &str = r#"
def bomb():
    held = []
    while len(held) < 4096:
        held.append(b"\1" * (1 << 20))

def child():
    import subprocess, sys
    code = "held = [b'\\1' * (1 << 20) for _ in range(4096)]"
    return subprocess.run([sys.executable, "-c", code]).returncode

def ok(): pass
"#;
const NODE: &str = r"
exports.bomb = () => { const held = []; while (held.length < 4096) held.push(Buffer.alloc(1 << 20, 1)); };
exports.objects = () => { const held = []; while (held.length < 1e9) held.push({ held: [held.length] }); };
exports.ok = () => null;
";

#[test]
fn memory_bomb_in_python_ends_its_worker() {
    let attack = Attack::prepare(&[("a.py", PYTHON), ("fnmesh.toml", "memory = \"64MiB\"\n")]);
    attack.expect("bomb", "[]", 502, "memory than its app's limit of 64 MiB");
    attack.finish("ok", "[]");
}

#[test]
fn memory_bomb_in_node_ends_its_worker() {
    let attack = Attack::prepare(&[("a.js", NODE), ("fnmesh.toml", "memory = \"128MiB\"\n")]);
    attack.expect("bomb", "[]", 502, "memory than its app's limit of 128 MiB");
    attack.expect("objects", "[]", 502, "its worker");
    attack.finish("ok", "[]");
}

#[test]
fn memory_of_processes_that_a_worker_starts_counts() {
    let attack = Attack::prepare(&[("a.py", PYTHON), ("fnmesh.toml", "memory = \"64MiB\"\n")]);
    assert!(attack.has("cgroup"), "needs cgroups with memory and pids");
    // The kernel ends the child, or the child with its worker.
    let (status, body) = attack.call("child", "[]");
    assert!((status, body.as_str()) == (200, "-9") || status == 502, "{status} {body}");
    attack.finish("ok", "[]");
}

#[test]
fn memory_bomb_at_import_fails_the_app_alone() {
    let bomb = format!("{PYTHON}\nbomb()\n");
    let attack = Attack::prepare(&[("a.py", &bomb), ("fnmesh.toml", "memory = \"64MiB\"\n")]);
    attack.expect("ok", "[]", 503, "limit of 64 MiB");
}
