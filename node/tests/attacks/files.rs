use crate::harness::Attack;

const FILES: &str = r#"
import os, tempfile

def exhaust():
    held = []
    try:
        while len(held) < 1000000:
            held.append(os.open("/dev/null", os.O_RDONLY))
    except OSError as error:
        return error.strerror
    finally:
        for fd in held:
            os.close(fd)

def fill(count: int):
    for _ in range(count):
        with tempfile.NamedTemporaryFile(delete=False) as file:
            file.write(b"x" * (1 << 20))

def fill_unseen(count: int):
    file = tempfile.TemporaryFile()
    for _ in range(count):
        file.write(b"x" * (1 << 20))
        file.flush()
    import time
    time.sleep(10)

def litter(count: int):
    for _ in range(count):
        os.close(tempfile.mkstemp()[0])

def stretch():
    try:
        with tempfile.TemporaryFile() as file:
            file.truncate(1 << 40)
    except OSError as error:
        return error.strerror

def ok(): pass
"#;
const NODE: &str = r"
const fs = require('node:fs'), os = require('node:os'), path = require('node:path');
exports.fill = async (count) => {
  for (let i = 0; i < count; i++) {
    fs.writeFileSync(path.join(os.tmpdir(), String(i)), Buffer.alloc(1 << 20));
    await new Promise((next) => setImmediate(next));
  }
};
exports.ok = () => null;
";
/// Each attack writes far more than that, and far less than a disk holds.
const LIMIT: &str = "tmp = \"8MiB\"\n";

#[test]
fn open_files_run_out_for_the_worker_alone() {
    let attack = Attack::prepare(&[("a.py", FILES)]);
    attack.expect("exhaust", "[]", 200, "Too many open files");
    attack.finish("ok", "[]");
}

#[test]
fn temporary_files_are_bounded_and_removed() {
    for (module, source) in [("a.py", FILES), ("a.js", NODE)] {
        let attack = Attack::prepare(&[(module, source), ("fnmesh.toml", LIMIT)]);
        // At most 1 GiB, should nobody stop it.
        attack.expect("fill", "[1024]", 502, "more temporary files than its app's limit of 8 MiB");
        attack.finish("ok", "[]");
    }
}

#[test]
fn files_without_a_name_count_too() {
    let attack = Attack::prepare(&[("a.py", FILES), ("fnmesh.toml", LIMIT)]);
    attack.expect("fill_unseen", "[64]", 502, "more temporary files than its app's limit of 8 MiB");
    attack.finish("ok", "[]");
}

#[test]
fn many_empty_files_count_too() {
    let attack = Attack::prepare(&[("a.py", FILES), ("fnmesh.toml", LIMIT)]);
    attack.expect("litter", "[1000000]", 502, "more temporary files than its app's limit of 8 MiB");
    attack.finish("ok", "[]");
}

#[test]
fn single_file_is_bounded() {
    let attack = Attack::prepare(&[("a.py", FILES)]);
    attack.expect("stretch", "[]", 200, "File too large");
    attack.finish("ok", "[]");
}
