//! A process of the mesh of `fnmesh dev`, and its lines with its name.

use std::{
    env,
    ffi::OsString,
    io,
    process::{ExitStatus, Stdio},
    time::Duration,
};

use rustix::{
    fd::OwnedFd,
    process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal},
};
use serde_json::{Map, Value};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncRead, BufReader},
    process::{Child as Process, ChildStdin, Command},
    task::JoinSet,
    time::timeout,
};

use crate::terminal::{self, DIM};

/// How long the last lines of a process may take that has ended.
const LAST_LINES: Duration = Duration::from_secs(1);

/// How the lines of a node are shown.
#[derive(Clone, Debug)]
pub(super) struct Label {
    pub(super) node: String,
    /// Of the longest name.
    pub(super) width: usize,
    /// Whether standard output has JSON.
    pub(super) json: bool,
}

/// A node that has been started. Dropped, it ends at once.
#[derive(Debug)]
pub(super) struct Child {
    pub(super) name: String,
    process: OwnedFd,
    stdin: Option<ChildStdin>,
}

impl Child {
    /// Starts `fnmesh` with these arguments; the second one resolves when it has ended.
    ///
    /// # Errors
    /// What the system says.
    pub(super) fn start(
        label: &Label,
        arguments: &[OsString],
        token: Option<&str>,
    ) -> io::Result<(Self, impl Future<Output = io::Result<ExitStatus>> + use<>)> {
        let mut command = Command::new(env::current_exe()?);
        command
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // Ctrl-C is for this process, which knows in which order nodes stop.
            .process_group(0)
            .kill_on_drop(true);
        for name in ["FNMESH_MESH", "FNMESH_DATA", "FNMESH_JOIN", "FNMESH_TOKEN"] {
            command.env_remove(name);
        }
        if let Some(token) = token {
            // Arguments can be read by everybody.
            command.env("FNMESH_TOKEN", token);
        }
        let mut process = command.spawn()?;
        let pid = process.id().and_then(|pid| Pid::from_raw(pid.cast_signed())).ok_or(io::ErrorKind::NotFound)?;
        let child = Self {
            name: label.node.clone(),
            process: pidfd_open(pid, PidfdFlags::empty())?,
            stdin: process.stdin.take(),
        };
        let mut lines = JoinSet::new();
        if let (Some(stdout), Some(stderr)) = (process.stdout.take(), process.stderr.take()) {
            let (out, errors) = (label.clone(), label.clone());
            lines.spawn(relay(stdout, move |line| terminal::print(&out.output(line))));
            lines.spawn(relay(stderr, move |line| terminal::print_error(errors.text(line).as_bytes())));
        }
        Ok((child, ended(process, lines)))
    }

    /// Sends it a signal, unless it has ended.
    pub(super) fn signal(&self, signal: Signal) {
        let _ = pidfd_send_signal(&self.process, signal);
    }

    /// Has it end at once.
    pub(super) fn give_up(&mut self) {
        self.stdin = None;
    }
}

async fn ended(mut process: Process, mut lines: JoinSet<()>) -> io::Result<ExitStatus> {
    let status = process.wait().await;
    let all = async { while lines.join_next().await.is_some() {} };
    let _ = timeout(LAST_LINES, all).await;
    status
}

async fn relay(from: impl AsyncRead + Unpin, show: impl Fn(&str)) {
    let mut lines = BufReader::new(from).split(b'\n');
    while let Ok(Some(line)) = lines.next_segment().await {
        show(&String::from_utf8_lossy(&line));
    }
}

impl Label {
    /// A line of standard output.
    fn output(&self, line: &str) -> String {
        match serde_json::from_str::<Map<String, Value>>(line) {
            Ok(mut event) if self.json => {
                event.insert("on".to_owned(), self.node.as_str().into());
                format!("{}\n", Value::Object(event))
            }
            _ => self.text(line),
        }
    }

    /// A line for people.
    pub(super) fn text(&self, line: &str) -> String {
        let Self { node, width, .. } = self;
        let space = if line.is_empty() { "" } else { " " };
        let width = if line.is_empty() { 0 } else { *width };
        format!("{DIM}{node:<width$}{DIM:#}{space}{line}\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_say_which_node_they_are_of() {
        let label = |json| Label { node: "n2".to_owned(), width: 3, json };
        let plain = |text: String| anstream::adapter::strip_str(&text).to_string();
        assert_eq!(plain(label(false).output("ready shop")), "n2  ready shop\n");
        assert_eq!(plain(label(false).text("")), "n2\n");
        assert_eq!(
            label(true).output(r#"{"event":"ready","name":"shop"}"#),
            "{\"event\":\"ready\",\"name\":\"shop\",\"on\":\"n2\"}\n"
        );
    }
}
