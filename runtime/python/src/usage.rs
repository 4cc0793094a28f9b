//! What the process or a thread of it has used: getrusage(2), clock_gettime(2).

use std::{mem, time::Duration};

use libc::{CLOCK_THREAD_CPUTIME_ID, RUSAGE_SELF, clockid_t, timespec, timeval};

/// Of all threads of the process, since its start.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Usage {
    pub(crate) cpu: Duration,
    /// How often a thread had to leave its core to another while it computed.
    pub(crate) preemptions: i64,
}

impl Usage {
    pub(crate) fn of_process() -> Self {
        // SAFETY: plain integers, for which 0 is a value; the call fills them in, and cannot fail.
        let usage = unsafe {
            let mut usage = mem::zeroed();
            libc::getrusage(RUSAGE_SELF, &mut usage);
            usage
        };
        let duration = |time: timeval| Duration::new(time.tv_sec as u64, time.tv_usec as u32 * 1000);
        Self { cpu: duration(usage.ru_utime) + duration(usage.ru_stime), preemptions: usage.ru_nivcsw }
    }
}

/// The CPU time of the calling thread.
pub(crate) fn of_thread() -> Duration {
    cpu_time(CLOCK_THREAD_CPUTIME_ID)
}

/// The clock of the CPU time of the calling thread, for other threads.
pub(crate) fn clock_of_thread() -> clockid_t {
    let mut clock = CLOCK_THREAD_CPUTIME_ID;
    // SAFETY: `clock` is written to; the calling thread exists. On failure the clock stays one that always can be read.
    unsafe { libc::pthread_getcpuclockid(libc::pthread_self(), &mut clock) };
    clock
}

/// What a clock of CPU time says; 0 once its thread has ended.
pub(crate) fn cpu_time(clock: clockid_t) -> Duration {
    let mut time = timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is written to.
    unsafe { libc::clock_gettime(clock, &mut time) };
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}
