//! What workers may and may not reach, and how a node says so.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use serde_json::{Value, json};
use support::{Apps, Node, stderr, stdout};

const FILES_PY: &str = r#"
import os, subprocess, tempfile

def read(path: str) -> str:
    with open(path) as file:
        return file.read(1000)

def write(path: str) -> int:
    with open(path, "w") as file:
        return file.write("text")

def empty(path: str) -> str:
    for act in (lambda: os.truncate(path, 0), lambda: os.close(os.open(path, os.O_RDONLY | os.O_TRUNC))):
        try:
            act()
            return "done"
        except PermissionError:
            pass
    return "refused"

def temporary() -> str:
    with tempfile.NamedTemporaryFile(delete=False) as file:
        file.write(b"text")
    return file.name

def shell(command: str) -> list:
    done = subprocess.run(command, shell=True, capture_output=True, text=True)
    return [done.returncode, done.stdout, done.stderr]

def unshare() -> int:
    import ctypes
    libc = ctypes.CDLL(None, use_errno=True)
    return ctypes.get_errno() if libc.unshare(0x10000000) else 0

def kill(pid: int) -> str:
    try:
        os.kill(pid, 0)
    except OSError as error:
        return type(error).__name__
    return "done"

def pool() -> list:
    from concurrent.futures import ThreadPoolExecutor
    with ThreadPoolExecutor(8) as threads:
        return list(threads.map(abs, [-1, 2]))
"#;
const FILES_JS: &str = r"
const fs = require('fs'), os = require('os'), path = require('path');
exports.read = (file) => fs.readFileSync(file, 'utf8').slice(0, 1000);
exports.write = (file) => { fs.writeFileSync(file, 'text'); return 4; };
exports.temporary = () => {
  const file = path.join(fs.mkdtempSync(path.join(os.tmpdir(), 'x-')), 'file');
  fs.writeFileSync(file, 'text');
  return file;
};
exports.usage = () => process.memoryUsage().rss > 0 && os.cpus().length > 0;
";

/// Two apps that read and write files, a third one with a secret, and a node that serves them.
struct Fixture {
    node: Node,
    apps: Apps,
}

impl Fixture {
    fn new(options: &[&str]) -> Self {
        let apps = Apps::new(&[
            ("files/files.py", FILES_PY),
            ("files/fnmesh.toml", "writable = [\"data\", \"../shared\"]\nreadable = [\"../models\"]\n"),
            ("script/script.js", FILES_JS),
            ("other/other.py", "SECRET = 'of another app'\ndef f(): pass\n"),
            ("shared/old", "old"),
            ("models/model", "weights"),
        ]);
        let served = ["files", "script", "other"].map(|app| apps.path(app));
        Self { node: Node::settled("serve", &served, options), apps }
    }

    /// The answer to a call, or what the caller is told.
    fn call(&self, function: &str, arguments: Value) -> Result<Value, String> {
        let output = self.node.call(&[function, "-d", &arguments.to_string()]);
        match output.status.success() {
            true => Ok(serde_json::from_str(stdout(&output)).unwrap()),
            false => Err(stderr(&output).to_owned()),
        }
    }

    fn path(&self, file: &str) -> String {
        self.apps.path(file).display().to_string()
    }

    fn health(&self) -> Value {
        self.node.get("/_/health")["sandbox"].clone()
    }

    fn is_on(&self, level: &str) -> bool {
        self.health()[level]["on"] == true
    }
}

#[test]
fn files_of_the_node_and_of_other_apps_are_out_of_reach() {
    let fixture = Fixture::new(&[]);
    assert!(fixture.is_on("landlock"), "needs Linux 5.13 with Landlock: {}", fixture.health());
    let outside = tempfile::tempdir().unwrap();
    let secret = outside.path().join("secret");
    std::fs::write(&secret, "secret").unwrap();
    for path in ["/etc/shadow", &fixture.path("other/other.py"), secret.to_str().unwrap()] {
        for app in ["files", "script"] {
            let refused = fixture.call(&format!("{app}/read"), json!([path])).unwrap_err();
            assert!(refused.to_lowercase().contains("permission denied"), "{app} {path}: {refused}");
        }
    }
    let victim = fixture.path("models/model");
    for path in [&victim, secret.to_str().unwrap()] {
        assert_eq!(fixture.call("files/empty", json!([path])).unwrap(), "refused", "{path}");
    }
    assert_eq!(std::fs::read_to_string(&victim).unwrap() + &std::fs::read_to_string(&secret).unwrap(), "weightssecret");
    for path in ["files/files.py", "files/new.py", "other/new", "new"].map(|file| fixture.path(file)) {
        for app in ["files", "script"] {
            let refused = fixture.call(&format!("{app}/write"), json!([path])).unwrap_err();
            assert!(refused.to_lowercase().contains("permission denied"), "{app} {path}: {refused}");
        }
    }
}

#[test]
fn ordinary_files_are_within_reach() {
    let fixture = Fixture::new(&[]);
    for path in ["/etc/passwd", "/proc/self/status", "/proc/meminfo", "/sys/devices/system/cpu/online"] {
        for app in ["files", "script"] {
            fixture.call(&format!("{app}/read"), json!([path])).unwrap();
        }
    }
    assert_eq!(fixture.call("script/usage", json!([])), Ok(json!(true)));
    assert_eq!(fixture.call("files/pool", json!([])), Ok(json!([1, 2])));
    assert_eq!(fixture.call("files/shell", json!(["echo $0 | cat; exit 3"])), Ok(json!([3, "/bin/sh\n", ""])));
    assert_eq!(fixture.call("files/write", json!(["/dev/null"])), Ok(json!(4)));
}

#[test]
fn manifest_names_what_else_an_app_may_reach() {
    let fixture = Fixture::new(&[]);
    assert_eq!(fixture.call("files/read", json!([fixture.path("models/model")])), Ok(json!("weights")));
    fixture.call("files/write", json!([fixture.path("models/model")])).unwrap_err();
    assert_eq!(fixture.call("files/write", json!([fixture.path("shared/new")])), Ok(json!(4)));
    // Made by the node: it is a directory in the app.
    assert_eq!(fixture.call("files/write", json!(["data/new"])), Ok(json!(4)));
    fixture.call("script/write", json!([fixture.path("shared/new")])).unwrap_err();
}

#[test]
fn temporary_files_go_with_their_instance() {
    let mut fixture = Fixture::new(&[]);
    let files = ["files", "script"].map(|app| {
        let file = fixture.call(&format!("{app}/temporary"), json!([])).unwrap();
        std::path::PathBuf::from(file.as_str().unwrap())
    });
    let other = fixture.call("files/read", json!([files[1]])).unwrap_err();
    assert!(other.contains("Permission denied"), "{other}");
    assert!(files.iter().all(|file| file.exists()), "{files:?}");
    fixture.node.signal(rustix::process::Signal::TERM);
    assert_eq!(fixture.node.ended().code(), Some(0));
    assert!(!files.iter().any(|file| file.exists()), "{files:?}");
}

#[test]
fn dangerous_calls_are_refused() {
    let fixture = Fixture::new(&[]);
    assert!(fixture.is_on("seccomp"), "{}", fixture.health());
    let refused = rustix::io::Errno::PERM.raw_os_error();
    assert_eq!(fixture.call("files/unshare", json!([])), Ok(json!(refused)));
    let node = fixture.node.get("/_/health")["pid"].clone();
    assert_eq!(fixture.call("files/kill", json!([node])), Ok(json!("PermissionError")));
    assert_eq!(fixture.call("files/kill", json!([-1])), Ok(json!("PermissionError")));
}

#[test]
fn sandbox_can_be_turned_off() {
    let fixture = Fixture::new(&["--sandbox", "off"]);
    assert_eq!(fixture.health()["mode"], "off");
    assert!(!fixture.is_on("landlock") && !fixture.is_on("cgroup"));
    assert_eq!(fixture.call("files/write", json!([fixture.path("new")])), Ok(json!(4)));
}

#[test]
fn strict_node_starts_only_with_every_level() {
    let auto = Fixture::new(&[]);
    let complete = ["rlimits", "no_new_privs", "seccomp", "landlock", "cgroup"].iter().all(|level| auto.is_on(level));
    let mut strict =
        support::Running::spawn(support::fnmesh().args(["serve", "--listen", "127.0.0.1:0", "--sandbox", "strict"]));
    if complete {
        let mut line = String::new();
        std::io::BufRead::read_line(&mut std::io::BufReader::new(strict.0.stdout.take().unwrap()), &mut line).unwrap();
        assert!(line.contains("listens on"), "{line}");
    } else {
        assert_eq!(strict.ended().code(), Some(1));
    }
}
