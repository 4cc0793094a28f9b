//! Whether processes have done anything, so that what they may have done need not be looked for.

use std::{collections::BTreeMap, mem::MaybeUninit};

/// What the clocks of a group's processes showed before it was looked which processes there are.
///
/// A process that writes, starts another or is refused to needs time on a core for it. So as long as each clock shows
/// the same, all is as it was: who is new was started by one that has run.
#[derive(Debug, Default)]
pub(crate) struct Activity(BTreeMap<u32, Option<Reading>>);

/// Seconds and nanoseconds on cores, of all threads together.
type Reading = (libc::time_t, libc::c_long);

impl Activity {
    /// Looks which processes there are. Those that were not there at the last look may have run since they were started:
    /// only the next look has a time of theirs.
    pub(crate) fn look(&mut self, processes: impl FnOnce() -> Vec<u32>) -> Vec<u32> {
        let before: BTreeMap<_, _> = self.0.keys().map(|pid| (*pid, reading(*pid))).collect();
        let pids = processes();
        self.0 = pids.iter().map(|pid| (*pid, before.get(pid).copied().flatten())).collect();
        pids
    }

    /// Whether any of them may have run since the last look, or has ended. Of no processes nothing is known.
    pub(crate) fn goes_on(&self) -> bool {
        let has_run = |(pid, before): (&u32, &Option<Reading>)| before.is_none() || reading(*pid) != *before;
        self.0.is_empty() || self.0.iter().any(has_run)
    }
}

/// `None` once it has ended.
fn reading(pid: u32) -> Option<Reading> {
    let (mut clock, mut time) = (0, MaybeUninit::<libc::timespec>::uninit());
    // SAFETY: both write what they are given a place for, where they return 0.
    let time = unsafe {
        if libc::clock_getcpuclockid(pid.cast_signed(), &raw mut clock) != 0
            || libc::clock_gettime(clock, time.as_mut_ptr()) != 0
        {
            return None;
        }
        time.assume_init()
    };
    Some((time.tv_sec, time.tv_nsec))
}

#[cfg(test)]
mod tests {
    use std::{
        io::{BufRead, BufReader, Write},
        process::{Command, Stdio},
        thread,
        time::Duration,
    };

    use super::*;

    #[test]
    fn process_that_waits_does_nothing() {
        // Says a line for each that it reads.
        let mut process = Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (mut stdin, mut lines) =
            (process.stdin.take().unwrap(), BufReader::new(process.stdout.take().unwrap()).lines());
        let mut ask = || {
            stdin.write_all(b"line\n").unwrap();
            lines.next().unwrap().unwrap()
        };
        ask();
        let mut activity = Activity::default();
        activity.look(|| vec![process.id()]);
        assert!(activity.goes_on(), "it may have run before");
        // On its way to wait for the next line it runs on for a while.
        let waits = |_| {
            activity.look(|| vec![process.id()]);
            thread::sleep(Duration::from_millis(10));
            !activity.goes_on()
        };
        assert!((0..500).any(waits));
        ask();
        assert!(activity.goes_on());
        process.kill().unwrap();
        process.wait().unwrap();
        assert!(activity.goes_on(), "it has ended");
    }
}
