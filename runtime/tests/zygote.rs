//! Python instances that are forked from a process that has their app loaded.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use std::{collections::BTreeSet, fs};

use fnmesh_invoke::Error;
use rustix::process::{Pid, Signal, kill_process};
use support::{Fixture, is_running, until, with_app};

/// Each instance leaves a file named by its process id that says how it came to be.
const PREFIX: &str = r#"
import json, os, random, signal, sys
at_import = os.getpid()
forks = []
os.register_at_fork(before=lambda: forks.append("before"), after_in_child=lambda: forks.append("child"))
def __metacall_initialize__():
    about = {
        "at_import": at_import, "parent": os.getppid(), "forks": forks, "random": random.random(),
        "session": os.getsid(0), "sockets": sum("socket:" in link(fd) for fd in os.listdir("/proc/self/fd")),
    }
    with open(f"births/{os.getpid()}.partial", "w") as file:
        json.dump(about, file)
    os.rename(f"births/{os.getpid()}.partial", f"births/{os.getpid()}.json")
def link(fd):
    try: return os.readlink(f"/proc/self/fd/{fd}")
    except OSError: return ""
def ids(): return [os.getpid(), at_import]
def die(): os.kill(os.getpid(), signal.SIGKILL)
"#;

const MANIFEST: &str = "min_instances = 2\nwritable = [\"births\"]\n";

struct Birth {
    pid: i64,
    at_import: i64,
    facts: serde_json::Value,
}

impl Birth {
    fn is_forked(&self) -> bool {
        self.pid != self.at_import
    }
}

/// How all instances that were started so far came to be.
fn births(app: &Fixture) -> Vec<Birth> {
    let files = fs::read_dir(app.directory.path().join("births")).unwrap().map(|entry| entry.unwrap().path());
    let read = |file: std::path::PathBuf| {
        let facts: serde_json::Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
        let pid = file.file_stem().unwrap().to_str().unwrap().parse().unwrap();
        Birth { pid, at_import: facts["at_import"].as_i64().unwrap(), facts }
    };
    files.filter(|file| file.extension().is_some_and(|it| it == "json")).map(read).collect()
}

/// Deploys an app with two instances, which are ready when this returns.
async fn deploy(app: &Fixture, source: &str) {
    let source = format!("{PREFIX}{source}");
    app.deploy(&[("shop.py", &source), ("fnmesh.toml", MANIFEST)]).await.unwrap();
    until("both instances are ready", || app.pids().len() == 2).await;
}

async fn ids(app: &Fixture) -> [i32; 2] {
    serde_json::from_str(&app.json("ids", "[]").await).unwrap()
}

#[test]
fn instances_are_forked_and_differ() {
    with_app(async |app| {
        deploy(&app, "").await;
        let births = births(&app);
        assert_eq!(births.len(), 2);
        let here = i64::from(std::process::id());
        for birth in &births {
            assert!(birth.is_forked());
            assert_eq!((&birth.facts["parent"], &birth.facts["session"]), (&here.into(), &birth.pid.into()));
            assert_eq!(birth.facts["forks"][birth.facts["forks"].as_array().unwrap().len() - 1], "child");
            // Its two channels, and none of the zygote's.
            assert_eq!(birth.facts["sockets"], 2);
        }
        assert_eq!(births[0].at_import, births[1].at_import);
        assert_ne!(births[0].facts["random"], births[1].facts["random"]);
        let [pid, _] = ids(&app).await;
        assert!(app.pids().contains(&pid.cast_unsigned()));
    });
}

#[test]
fn apps_that_a_fork_would_break_are_spawned() {
    let sources = [
        "import threading\nthreading.Thread(target=threading.Event().wait, daemon=True).start()\n",
        "import socket\nlistener = socket.socket()\n",
        "import asyncio\nloop = asyncio.new_event_loop()\n",
        "import sqlite3\ndb = sqlite3.connect('births/shop.db')\ndb.execute('create table if not exists t (a)')\n",
        "import subprocess\nhelper = subprocess.Popen(['sleep', '60'])\n",
        "import multiprocessing\nlock = multiprocessing.Lock()\n",
        "import tempfile\nscratch = tempfile.TemporaryDirectory()\n",
    ];
    for source in sources {
        with_app(async |app| {
            deploy(&app, source).await;
            let births = births(&app);
            assert_eq!(births.len(), 2, "{source}");
            assert!(births.iter().all(|birth| !birth.is_forked()), "{source}");
            ids(&app).await;
        });
    }
}

#[test]
fn harmless_files_and_fork_aware_threads_do_not_prevent_forks() {
    let source = r#"
import threading
log = open("births/app.log", "a")
nothing = open(os.devnull, "w")
class Helper:
    def __init__(self):
        self.start()
        os.register_at_fork(before=self.stop, after_in_parent=self.start, after_in_child=self.start)
    def start(self):
        self.done = threading.Event()
        self.thread = threading.Thread(target=self.done.wait, daemon=True)
        self.thread.start()
    def stop(self):
        self.done.set()
        self.thread.join()
helper = Helper()
def helped(): return helper.thread.is_alive()
"#;
    with_app(async |app| {
        deploy(&app, source).await;
        assert!(births(&app).iter().all(Birth::is_forked));
        assert_eq!(app.json("helped", "[]").await, "true");
    });
}

/// As OpenBLAS does it: the handlers of `pthread_atfork()` run within `fork()`. A thread that was waited for may still
/// be there for a moment: this one sleeps in the destructor of a value of its own.
#[test]
fn threads_of_libraries_that_end_for_a_fork_do_not_prevent_it() {
    let source = r#"
import ctypes, threading
libc = ctypes.CDLL(None)
last_steps = ctypes.c_uint()
libc.pthread_key_create(ctypes.byref(last_steps), libc.usleep)
done = threading.Event()
def work():
    libc.pthread_setspecific(last_steps, ctypes.c_void_p(20_000))
    done.wait()
thread = threading.Thread(target=work, daemon=True)
thread.start()
@ctypes.CFUNCTYPE(None)
def prepare():
    done.set()
    thread.join()
libc.__register_atfork(prepare, None, None, None)
"#;
    with_app(async |app| {
        deploy(&app, source).await;
        assert!(births(&app).iter().all(Birth::is_forked));
        ids(&app).await;
    });
}

#[test]
fn instances_outlive_their_zygote_and_the_next_one_gets_another() {
    with_app(async |app| {
        deploy(&app, "").await;
        let before: BTreeSet<_> = app.pids().into_iter().collect();
        let [_, zygote] = ids(&app).await;
        kill_process(Pid::from_raw(zygote).unwrap(), Signal::KILL).unwrap();
        until("the zygote is waited for", || !is_running(zygote.cast_unsigned())).await;
        ids(&app).await;
        assert_eq!(app.pids().into_iter().collect::<BTreeSet<_>>(), before);

        let error = app.call("die", "[]").await.unwrap_err();
        assert!(matches!(&error, Error::InstanceLost { reason, .. } if reason.contains("SIGKILL")), "{error}");
        until("a new instance is ready", || births(&app).len() == 3 && app.pids().len() == 2).await;
        let new = births(&app).into_iter().find(|birth| birth.at_import != i64::from(zygote)).unwrap();
        assert!(new.is_forked());
    });
}

#[test]
fn app_is_loaded_anew_when_an_instance_dies_of_no_call() {
    with_app(async |app| {
        deploy(&app, "").await;
        let [idle, zygote] = ids(&app).await;
        kill_process(Pid::from_raw(idle).unwrap(), Signal::KILL).unwrap();
        until("a new instance is ready", || births(&app).len() == 3 && app.pids().len() == 2).await;
        let new = births(&app).into_iter().find(|birth| birth.at_import != i64::from(zygote)).unwrap();
        assert!(new.is_forked());
    });
}

#[test]
fn app_that_does_not_survive_the_fork_is_spawned() {
    // In the instance, and in the zygote.
    for hook in ["after_in_child", "before"] {
        with_app(async |app| {
            deploy(&app, &format!("os.register_at_fork({hook}=lambda: os._exit(3))\n")).await;
            assert!(births(&app).iter().all(|birth| !birth.is_forked()));
            ids(&app).await;
        });
    }
}

#[test]
fn what_a_hook_starts_ends_with_its_instance() {
    let source = r#"
import subprocess
def __metacall_initialize__():
    global helper
    helper = subprocess.Popen(["sleep", "60"], start_new_session=True)
def helper_of_this(): return [helper.pid, at_import]
"#;
    with_app(async |app| {
        let source = format!("{PREFIX}{source}");
        app.deploy(&[("shop.py", &source), ("fnmesh.toml", "")]).await.unwrap();
        let [helper, zygote]: [i32; 2] = serde_json::from_str(&app.json("helper_of_this", "[]").await).unwrap();
        app.call("die", "[]").await.unwrap_err();
        // Nobody waits for orphans here.
        let has_ended = || match fs::read_to_string(format!("/proc/{helper}/stat")) {
            Ok(stat) => stat.contains(") Z "),
            Err(_) => true,
        };
        until("the helper ends", has_ended).await;
        assert!(is_running(zygote.cast_unsigned()));
    });
}

#[test]
fn zygote_ends_when_there_is_no_instance_for_long() {
    with_app(async |app| {
        let manifest = "min_instances = 0\nkeep_alive = \"1s\"\nwritable = [\"births\"]\n";
        app.deploy(&[("shop.py", PREFIX), ("fnmesh.toml", manifest)]).await.unwrap();
        let zygote = app.pool().standby.unwrap();
        until("the zygote ends", || !is_running(zygote)).await;
        assert_eq!((app.pids().len(), app.pool().standby), (0, None));
        assert_ne!(ids(&app).await[1], zygote.cast_signed());
    });
}

#[test]
fn zygote_ends_with_its_version() {
    with_app(async |app| {
        deploy(&app, "").await;
        let [_, zygote] = ids(&app).await;
        deploy(&app, "changed = True\n").await;
        until("the old zygote ends", || !is_running(zygote.cast_unsigned())).await;
        assert_ne!(ids(&app).await[1], zygote);
        app.runtime.remove("shop");
        until("everything ends", || births(&app).iter().all(|birth| !is_running(birth.at_import.try_into().unwrap())))
            .await;
    });
}

#[test]
fn failing_hook_of_a_forked_instance_is_reported() {
    with_app(async |app| {
        let source = "def __metacall_initialize__(): raise ValueError('no such shop')\ndef f(): ...\n";
        let failure = app.deploy(&[("shop.py", source)]).await.unwrap_err();
        assert_eq!((&*failure.kind, &*failure.message), ("ValueError", "no such shop"));
    });
}
