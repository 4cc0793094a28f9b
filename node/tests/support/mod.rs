//! Runs the `fnmesh` program on apps in temporary directories.

#![allow(dead_code, reason = "each test file uses a part of it")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::{
    fs,
    io::{self, BufRead, BufReader, Read, Write as _},
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Output, Stdio},
    sync::{Arc, Mutex, mpsc},
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use serde_json::Value;

/// How long anything may take before a test gives up; a debug build on a busy machine is slow.
pub(crate) const PATIENCE: Duration = Duration::from_secs(40);

/// Directories of an app, gone after the test.
pub(crate) struct Apps {
    root: tempfile::TempDir,
}

impl Apps {
    pub(crate) fn new(files: &[(&str, &str)]) -> Self {
        let apps = Self { root: tempfile::tempdir().unwrap() };
        for (file, content) in files {
            apps.write(file, content);
        }
        apps
    }

    pub(crate) fn path(&self, file: &str) -> PathBuf {
        self.root.path().join(file)
    }

    pub(crate) fn write(&self, file: &str, content: &str) {
        let path = self.path(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }
}

/// A build of `fnmesh`, with the Python extension beside it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Program(PathBuf);

impl Program {
    /// What these tests are of.
    pub(crate) fn present() -> Self {
        let program = Self(env!("CARGO_BIN_EXE_fnmesh").into());
        let extension = program.extension();
        assert!(extension.is_file(), "{} is missing: cargo build -p fnmesh-python", extension.display());
        program
    }

    /// Another one, which is there.
    pub(crate) fn at(path: PathBuf) -> Self {
        Self(path)
    }

    pub(crate) fn extension(&self) -> PathBuf {
        self.0.with_file_name("libfnmesh_python.so")
    }

    /// It with nothing of the tester's own settings in it.
    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new(&self.0);
        for name in ["LISTEN", "NODE", "LOG", "CACHE", "PYTHON_EXTENSION", "SANDBOX", "MESH", "DATA", "JOIN", "TOKEN"] {
            command.env_remove(format!("FNMESH_{name}"));
        }
        command.stdin(Stdio::null());
        command
    }
}

/// The program with nothing of the tester's own settings in it.
pub(crate) fn fnmesh() -> Command {
    Program::present().command()
}

/// Runs a command line to its end.
pub(crate) fn run(arguments: &[&str]) -> Output {
    output(fnmesh().args(arguments))
}

/// Runs a command to its end; what it prints must fit into a pipe.
pub(crate) fn output(command: &mut Command) -> Output {
    let mut running = Running::spawn(command);
    let status = running.ended();
    let mut output = Output { status, stdout: Vec::new(), stderr: Vec::new() };
    running.0.stdout.take().unwrap().read_to_end(&mut output.stdout).unwrap();
    running.0.stderr.take().unwrap().read_to_end(&mut output.stderr).unwrap();
    output
}

/// A process with its output in pipes. Killed when dropped.
pub(crate) struct Running(pub(crate) Child);

impl Running {
    pub(crate) fn spawn(command: &mut Command) -> Self {
        Self(command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap())
    }

    /// Waits for its end.
    pub(crate) fn ended(&mut self) -> ExitStatus {
        let mut status = None;
        wait_until(
            || {
                status = self.0.try_wait().unwrap();
                status.is_some()
            },
            || "a process still runs".to_owned(),
        );
        status.unwrap()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub(crate) fn stdout(output: &Output) -> &str {
    std::str::from_utf8(&output.stdout).unwrap()
}

pub(crate) fn stderr(output: &Output) -> &str {
    std::str::from_utf8(&output.stderr).unwrap()
}

/// A node in a process of its own. Killed when dropped.
pub(crate) struct Node {
    /// What it runs.
    pub(crate) program: Program,
    child: Running,
    events: mpsc::Receiver<Value>,
    stderr: Arc<Mutex<String>>,
    pub(crate) url: String,
    cache: tempfile::TempDir,
}

impl Node {
    /// `fnmesh serve` or `dev` on these directories, on a free port.
    pub(crate) fn start(command: &str, directories: &[PathBuf], options: &[&str]) -> Self {
        Self::start_of(Program::present(), "127.0.0.1:0", command, directories, options)
    }

    /// The same of another build, on this address.
    fn start_of(program: Program, listen: &str, command: &str, directories: &[PathBuf], options: &[&str]) -> Self {
        let cache = tempfile::tempdir().unwrap();
        let mut child = Running::spawn(
            program
                .command()
                // So that commands of the tester do not find it.
                .env("XDG_RUNTIME_DIR", cache.path())
                .arg(command)
                .args(directories)
                .args(["--listen", listen, "--threads", "2", "--json", "--cache"])
                .arg(cache.path())
                .args(options),
        );
        let events = lines(child.0.stdout.take().unwrap());
        let stderr = collect(child.0.stderr.take().unwrap());
        let mut node = Self { program, child, events, stderr, url: String::new(), cache };
        node.url = node.event("listening")["url"].as_str().unwrap().to_owned();
        node
    }

    /// Starts it and waits until every app was loaded or has failed.
    pub(crate) fn settled(command: &str, directories: &[PathBuf], options: &[&str]) -> Self {
        Self::settled_at("127.0.0.1:0", command, directories, options)
    }

    /// The same, on this address.
    pub(crate) fn settled_at(listen: &str, command: &str, directories: &[PathBuf], options: &[&str]) -> Self {
        Self::settled_of(Program::present(), listen, command, directories, options)
    }

    /// The same of another build.
    pub(crate) fn settled_of(
        program: Program,
        listen: &str,
        command: &str,
        directories: &[PathBuf],
        options: &[&str],
    ) -> Self {
        let node = Self::start_of(program, listen, command, directories, options);
        node.event("settled");
        node
    }

    /// The next event of this name; others before it are skipped.
    pub(crate) fn event(&self, name: &str) -> Value {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.events.recv_timeout(left) {
                Ok(event) if event["event"] == name => return event,
                Ok(_) => {}
                Err(error) => panic!("no event {name:?} ({error}); the node wrote:\n{}", self.stderr()),
            }
        }
    }

    /// Events that are there by now.
    pub(crate) fn events(&self) -> Vec<Value> {
        self.events.try_iter().collect()
    }

    pub(crate) fn stderr(&self) -> String {
        self.stderr.lock().unwrap().clone()
    }

    /// Waits until the node's stderr contains `text`.
    pub(crate) fn wait_for_stderr(&self, text: &str) {
        wait_until(|| self.stderr().contains(text), || format!("{text:?} in stderr:\n{}", self.stderr()));
    }

    /// `fnmesh call` on this node.
    pub(crate) fn call(&self, arguments: &[&str]) -> Output {
        output(&mut self.client("call", arguments))
    }

    /// A client command on this node, not started yet.
    pub(crate) fn client(&self, command: &str, arguments: &[&str]) -> Command {
        let mut client = fnmesh();
        client.arg(command).args(arguments).args(["--node", &self.url]);
        client
    }

    /// The JSON at `path`, asked for as any HTTP client would.
    pub(crate) fn get(&self, path: &str) -> Value {
        let mut stream = TcpStream::connect(self.url.strip_prefix("http://").unwrap()).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nHost: node\r\nConnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (_, body) = answer.split_once("\r\n\r\n").unwrap();
        serde_json::from_str(body).unwrap()
    }

    /// What `/_/apps` says.
    pub(crate) fn apps(&self) -> Value {
        let output = output(&mut self.client("ls", &["--json"]));
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// Process ids of all workers.
    pub(crate) fn workers(&self) -> Vec<u32> {
        let instances = self.pools().into_iter().flat_map(|pool| pool["instances"].as_array().unwrap().clone());
        instances.map(|instance| u32::try_from(instance["pid"].as_u64().unwrap()).unwrap()).collect()
    }

    /// The processes that serve no calls but are there for the next instance.
    pub(crate) fn standbys(&self) -> Vec<u32> {
        let pids = self.pools().into_iter().filter_map(|pool| pool["standby"].as_u64());
        pids.map(|pid| u32::try_from(pid).unwrap()).collect()
    }

    fn pools(&self) -> Vec<Value> {
        let apps = self.apps();
        apps.as_array().unwrap().iter().flat_map(|app| app["pools"].as_array().unwrap().clone()).collect()
    }

    /// Where it keeps what it installs, and its workers' temporary files.
    pub(crate) fn cache(&self) -> &Path {
        self.cache.path()
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.0.id()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(pid(self.pid()), signal).unwrap();
    }

    /// Waits for its end.
    pub(crate) fn ended(&mut self) -> ExitStatus {
        self.child.ended()
    }
}

/// Waits until `is_so`, for at most [`PATIENCE`].
pub(crate) fn wait_until(mut is_so: impl FnMut() -> bool, what: impl Fn() -> String) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "waited in vain: {}", what());
        thread::sleep(Duration::from_millis(10));
    }
}

pub(crate) fn is_alive(process: u32) -> bool {
    test_kill_process(pid(process)).is_ok()
}

fn pid(process: u32) -> Pid {
    Pid::from_raw(i32::try_from(process).unwrap()).unwrap()
}

fn lines(stdout: impl Read + Send + 'static) -> mpsc::Receiver<Value> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        for line in BufReader::new(stdout).lines().map_while(Result::ok) {
            let event = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{line:?} is no event: {error}"));
            if sender.send(event).is_err() {
                return;
            }
        }
    });
    receiver
}

fn collect(stderr: impl Read + Send + 'static) -> Arc<Mutex<String>> {
    let text = Arc::new(Mutex::new(String::new()));
    let shared = Arc::clone(&text);
    thread::spawn(move || {
        for line in BufReader::new(stderr).lines().map_while(Result::ok) {
            let mut text = shared.lock().unwrap();
            text.push_str(&line);
            text.push('\n');
        }
    });
    text
}

/// Calls a function: status and body.
pub(crate) fn post(url: &str, path: &str, body: &str, patience: Duration) -> io::Result<(u16, String)> {
    let mut stream = TcpStream::connect(url.strip_prefix("http://").unwrap())?;
    stream.set_read_timeout(Some(patience))?;
    write!(
        stream,
        "POST /{path} HTTP/1.1\r\nHost: node\r\nConnection: close\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok());
    let body = answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned());
    status.zip(body).ok_or_else(|| io::Error::other(format!("no answer: {answer:?}")))
}

/// Sends one request; the whole answer as text.
pub(crate) fn request(url: &str, line: &str, headers: &str, body: &str, patience: Duration) -> io::Result<String> {
    let mut stream = TcpStream::connect(url.strip_prefix("http://").unwrap())?;
    stream.set_read_timeout(Some(patience))?;
    let length = body.len();
    write!(
        stream,
        "{line} HTTP/1.1\r\nHost: node\r\nConnection: close\r\n{headers}Content-Length: {length}\r\n\r\n{body}"
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}
