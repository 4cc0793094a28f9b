use crate::harness::Attack;

const PEEK: &str = r#"
import ctypes, os

libc = ctypes.CDLL(None, use_errno=True)

def look(pid: int):
    seen = []
    for name in ("environ", "mem", "maps", "cmdline"):
        try:
            with open(f"/proc/{pid}/{name}", "rb") as file:
                file.read(1)
            seen.append(name)
        except OSError:
            pass
    for name in ("fd", "root/etc", "cwd/"):
        try:
            os.listdir(f"/proc/{pid}/{name}")
            seen.append(name)
        except OSError:
            pass
    return seen

def trace(pid: int):
    return libc.ptrace(16, pid, 0, 0), ctypes.get_errno()

def limit(pid: int):
    import resource
    try:
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (0, 0))
    except OSError as error:
        return error.errno
    return 0

def read(path: str):
    try:
        with open(path, "rb") as file:
            return file.read(1) and "read"
    except OSError as error:
        return error.strerror

def ok(): pass
"#;

#[test]
fn other_processes_are_closed_books() {
    let attack = Attack::prepare(&[("a.py", PEEK)]);
    assert!(attack.has("seccomp") && attack.has("landlock"), "needs Linux 5.13");
    let own_mounts = attack.has("private_mounts");
    for pid in [attack.canary_pid(), attack.pid()] {
        // Without mounts of its own a worker sees the list of processes, as everybody does.
        let seen = if own_mounts { "[]" } else { "[\"cmdline\"]" };
        attack.expect("look", &format!("[{pid}]"), 200, seen);
        attack.expect("trace", &format!("[{pid}]"), 200, "[-1,1]");
    }
    let refused = rustix::io::Errno::PERM.raw_os_error().to_string();
    attack.expect("limit", &format!("[{}]", attack.pid()), 200, &refused);
    attack.finish("ok", "[]");
}

#[test]
fn files_of_the_node_are_closed_books() {
    let attack = Attack::prepare(&[("a.py", PEEK)]);
    assert!(attack.has("landlock"), "needs Linux 5.13");
    let cache = attack.node.cache().join("secret");
    std::fs::write(&cache, "secret").unwrap();
    for path in [cache, attack.apps.path("canary/canary.py"), "/etc/shadow".into()] {
        attack.expect("read", &format!("[{path:?}]"), 200, "Permission denied");
    }
    attack.finish("ok", "[]");
}
