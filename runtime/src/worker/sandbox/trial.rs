use std::io;

use rustix::process::{Pid, WaitOptions, waitpid};

use crate::worker::known::Expected;

/// Runs `attempt` in a process of its own, which ends with it: whether it works here can be known only by trying.
///
/// `attempt` must be async-signal-safe: it runs in a fork of a process that may have other threads.
pub(super) fn trial(attempt: impl Fn() -> io::Result<()>) -> io::Result<()> {
    let expected = Expected::new();
    // SAFETY: the child only runs `attempt`, which is async-signal-safe as this function demands, and ends by `_exit`.
    let pid = unsafe { libc::fork() };
    if pid == 0 {
        let errno = attempt().map_or_else(|error| error.raw_os_error().unwrap_or(libc::EIO), |()| 0);
        // SAFETY: ends this process without running anything of the one it was forked from.
        unsafe { libc::_exit(errno) }
    }
    let Some(pid) = Pid::from_raw(pid.max(0)) else { return Err(io::Error::last_os_error()) };
    let _known = expected.found(pid);
    let status = rustix::io::retry_on_intr(|| waitpid(Some(pid), WaitOptions::empty()))?;
    match status.and_then(|(_, status)| status.exit_status()) {
        Some(0) => Ok(()),
        Some(errno) => Err(io::Error::from_raw_os_error(errno)),
        None => Err(io::Error::other("a process that tried it was killed")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trial_tells_how_the_attempt_ended() {
        trial(|| Ok(())).unwrap();
        let error = trial(|| Err(io::Error::from_raw_os_error(libc::ENOSYS))).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ENOSYS));
        let killed =
            trial(|| Ok(rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL)?));
        assert!(killed.unwrap_err().to_string().contains("killed"));
    }
}
