//! Runs one tool to its end: cleared environment, bounded time, output passed on as it comes.

use std::{
    collections::VecDeque,
    io,
    path::Path,
    pin::pin,
    process::{ExitStatus, Output, Stdio},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, BufReader},
    net::unix::pipe,
    process::{Child, Command},
    time::timeout,
};

use super::{InstallError, Progress, Tools, is_for_tools};
use crate::worker::known;

/// How long one tool may take.
pub(super) const TIMEOUT: Duration = Duration::from_secs(600);

const MAX_LINE_BYTES: u64 = 4096;
const MAX_OUTPUT_LINES: usize = 20;
/// How long output may come from children that outlive the tool.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(1);

/// A command that sees nothing of the node's environment but what tools may.
pub(super) fn command(program: &Path, directory: &Path, tools: &Tools) -> Command {
    let mut command = Command::new(program);
    command
        .current_dir(directory)
        .env_clear()
        .envs(tools.env.iter().filter(|(name, _)| is_for_tools(name)).map(|(name, value)| (name, value)))
        .stdin(Stdio::null())
        .kill_on_drop(true)
        // Tools have children of their own: all of them end together.
        .process_group(0);
    if let Some(path) = &tools.path {
        command.env("PATH", path);
    }
    command
}

/// Runs `command`, which does `what`, and fails unless it succeeds within `limit`.
pub(super) async fn run(
    mut command: Command,
    what: &str,
    limit: Duration,
    progress: &mut dyn FnMut(Progress),
) -> Result<(), InstallError> {
    let mut output = VecDeque::new();
    let ended = async {
        // One pipe for both keeps their lines in order.
        let (reader, writer) = io::pipe()?;
        let (mut child, _known) = known::spawn(command.stdout(writer.try_clone()?).stderr(writer))?;
        // The command holds our copies of the writing end.
        drop(command);
        let mut group = GroupGuard(child.id().and_then(|id| Pid::from_raw(id.cast_signed())));
        let lines = pass_on(reader, &mut output, progress);
        let ended = timeout(limit, finish(&mut child, lines)).await;
        if matches!(ended, Ok(Ok(_))) {
            // The id is free for others once the tool was waited for.
            group.0 = None;
        }
        drop(group);
        child.wait().await?;
        ended.map_or(Ok(None), |status| status.map(Some))
    };
    let reason = match ended.await {
        Ok(Some(status)) if status.success() => return Ok(()),
        Ok(Some(status)) => format!("failed ({status})"),
        Ok(None) => format!("did not end within its limit of {limit:?} and was stopped"),
        Err(error) => format!("cannot run: {error}"),
    };
    let output = Vec::from(output).join("\n");
    Err(InstallError::Tool { what: what.to_owned(), reason, hint: None, output })
}

/// Runs `command` to its end for what it writes.
pub(super) async fn output(command: &mut Command) -> io::Result<Output> {
    let (child, _known) = known::spawn(command.stdout(Stdio::piped()).stderr(Stdio::piped()))?;
    child.wait_with_output().await
}

async fn finish(child: &mut Child, lines: impl Future<Output = io::Result<()>>) -> io::Result<ExitStatus> {
    let mut lines = pin!(lines);
    tokio::select! {
        status = child.wait() => {
            // What is still in the pipe; a child that was left behind may keep it open.
            if let Ok(read) = timeout(DRAIN_TIMEOUT, lines).await {
                read?;
            }
            status
        }
        read = &mut lines => {
            read?;
            child.wait().await
        }
    }
}

async fn pass_on(
    reader: io::PipeReader,
    output: &mut VecDeque<String>,
    progress: &mut dyn FnMut(Progress),
) -> io::Result<()> {
    let mut reader = BufReader::new(pipe::Receiver::from_owned_fd(reader.into())?);
    let mut line = Vec::new();
    loop {
        line.clear();
        if (&mut reader).take(MAX_LINE_BYTES).read_until(b'\n', &mut line).await? == 0 {
            return Ok(());
        }
        let text = String::from_utf8_lossy(&line).trim_end().to_owned();
        if text.is_empty() {
            continue;
        }
        if output.len() == MAX_OUTPUT_LINES {
            output.pop_front();
        }
        output.push_back(text.clone());
        progress(Progress::Line { text });
    }
}

/// Kills the process group it names when dropped.
struct GroupGuard(Option<Pid>);

impl Drop for GroupGuard {
    fn drop(&mut self) {
        if let Some(group) = self.0 {
            // It may have ended by itself.
            let _ = kill_process_group(group, Signal::KILL);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, path::PathBuf, time::Instant};

    use super::*;

    fn shell(script: &str) -> Command {
        let env = vec![("HOME".into(), "/home/x".into()), ("SECRET".into(), "s".into())];
        let tools = Tools { path: Some("/usr/bin:/bin".into()), env, ..Tools::default() };
        let mut command = command(Path::new("/bin/sh"), Path::new("/"), &tools);
        command.args(["-c", script]);
        command
    }

    async fn lines_of(script: &str, limit: Duration) -> (Result<(), InstallError>, Vec<String>) {
        let mut lines = Vec::new();
        let mut collect = |progress| match progress {
            Progress::Line { text } => lines.push(text),
            other => panic!("{other:?}"),
        };
        (run(shell(script), "test", limit, &mut collect).await, lines)
    }

    #[tokio::test]
    async fn output_is_passed_on_in_order() {
        let (result, lines) = lines_of("echo a; echo; echo b >&2; printf 'c\\377'", TIMEOUT).await;
        result.unwrap();
        assert_eq!(lines, ["a", "b", "c\u{fffd}"]);
    }

    #[tokio::test]
    async fn environment_is_cleared() {
        let (_, lines) = lines_of("env | grep -v -e ^PWD= -e ^_= -e ^SHLVL= | sort", TIMEOUT).await;
        assert_eq!(lines, ["HOME=/home/x", "PATH=/usr/bin:/bin"]);
    }

    #[tokio::test]
    async fn failure_carries_status_and_last_lines() {
        let (result, lines) = lines_of("seq 30; exit 3", TIMEOUT).await;
        let Err(InstallError::Tool { reason, output, .. }) = result else { panic!() };
        assert_eq!(reason, "failed (exit status: 3)");
        assert_eq!(output.lines().collect::<Vec<_>>(), (11..=30).map(|n| n.to_string()).collect::<Vec<_>>());
        assert_eq!(lines.len(), 30);
    }

    #[tokio::test]
    async fn endless_line_is_split() {
        let (result, lines) = lines_of("head -c 10000 /dev/zero | tr '\\0' x", TIMEOUT).await;
        result.unwrap();
        assert_eq!(lines.iter().map(String::len).collect::<Vec<_>>(), [4096, 4096, 1808]);
    }

    #[tokio::test]
    async fn late_tool_ends_with_its_children() {
        let script = "sleep 600 & echo $!; wait";
        let (result, lines) = lines_of(script, Duration::from_millis(300)).await;
        let Err(InstallError::Tool { reason, .. }) = result else { panic!() };
        assert_eq!(reason, "did not end within its limit of 300ms and was stopped");
        gone(&lines[0]).await;
    }

    #[tokio::test]
    async fn child_left_behind_does_not_delay() {
        let started = Instant::now();
        let (result, lines) = lines_of("sleep 30 & echo $!", TIMEOUT).await;
        result.unwrap();
        assert!(started.elapsed() < Duration::from_secs(20));
        kill_process_group_of(&lines[0]);
    }

    #[tokio::test]
    async fn dropping_the_run_ends_the_tool() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let script = format!("sleep 600 & echo $! > {}; wait", file.path().display());
        let mut ignore = |_| {};
        let mut run = Box::pin(run(shell(&script), "test", TIMEOUT, &mut ignore));
        let started = Instant::now();
        let id = loop {
            assert!(timeout(Duration::from_millis(10), &mut run).await.is_err());
            let id = fs::read_to_string(file.path()).unwrap();
            if id.ends_with('\n') {
                break id;
            }
            assert!(started.elapsed() < Duration::from_secs(20));
        };
        drop(run);
        gone(id.trim()).await;
    }

    #[tokio::test]
    async fn missing_program_is_reported() {
        let missing = command(Path::new("/no/such/tool"), Path::new("/"), &Tools::default());
        let error = run(missing, "test", TIMEOUT, &mut |_| {}).await.unwrap_err();
        assert!(error.to_string().starts_with("test: cannot run: No such file"), "{error}");
    }

    /// Dead, or a zombie that its new parent has not waited for.
    async fn gone(id: &str) {
        let stat = PathBuf::from(format!("/proc/{id}/stat"));
        let started = Instant::now();
        while fs::read_to_string(&stat).is_ok_and(|stat| !stat.contains(") Z ")) {
            assert!(started.elapsed() < Duration::from_secs(20), "process {id} is alive");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    fn kill_process_group_of(id: &str) {
        let pid = Pid::from_raw(id.parse().unwrap()).unwrap();
        kill_process_group(rustix::process::getpgid(Some(pid)).unwrap(), Signal::KILL).unwrap();
    }
}
