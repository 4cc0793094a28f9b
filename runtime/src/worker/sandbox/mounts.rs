//! A view of the machine of the worker's own, where the node may mount: root's privilege.

use std::{ffi::CStr, io, ptr};

const SHARED_MEMORY: &CStr = c"size=64m,mode=1777";

/// Gives this process a `/proc` with no processes that it may not trace, which under Landlock are all but its own
/// and those it starts, and an empty `/dev/shm` of 64 MiB. Async-signal-safe.
pub(super) fn enter() -> io::Result<()> {
    // SAFETY: no memory is passed.
    check(unsafe { libc::unshare(libc::CLONE_NEWNS) })?;
    mount(None, c"/", None, libc::MS_REC | libc::MS_SLAVE, None)?;
    let inert = libc::MS_NOSUID | libc::MS_NODEV | libc::MS_NOEXEC;
    mount(Some(c"proc"), c"/proc", Some(c"proc"), inert, Some(c"hidepid=ptraceable"))?;
    mount(Some(c"tmpfs"), c"/dev/shm", Some(c"tmpfs"), inert, Some(SHARED_MEMORY))
}

fn mount(
    source: Option<&CStr>,
    target: &CStr,
    kind: Option<&CStr>,
    flags: libc::c_ulong,
    data: Option<&CStr>,
) -> io::Result<()> {
    let pointer = |text: Option<&CStr>| text.map_or(ptr::null(), CStr::as_ptr);
    // SAFETY: every pointer is null or a string that ends in NUL.
    check(unsafe { libc::mount(pointer(source), target.as_ptr(), pointer(kind), flags, pointer(data).cast()) })
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
