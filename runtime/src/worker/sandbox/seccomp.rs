//! System calls that no function needs: they change the machine, look into other processes, or open parts of the
//! kernel that have had most of its holes. A deny-list, since what libraries call is not known beforehand (ADR 0020).

use std::{
    collections::BTreeMap,
    io,
    os::fd::{FromRawFd, OwnedFd, RawFd},
};

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    TargetArch, sock_filter,
};

use super::landlock::Gaps;

/// Refused with EPERM whatever the arguments.
const DENIED: &[i64] = &[
    // Mounts and roots
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_move_mount,
    libc::SYS_open_tree,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_mount_setattr,
    // Other namespaces
    libc::SYS_setns,
    libc::SYS_unshare,
    // Other processes
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_process_madvise,
    libc::SYS_pidfd_getfd,
    libc::SYS_kcmp,
    // The machine
    libc::SYS_kexec_load,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_reboot,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_acct,
    libc::SYS_quotactl,
    libc::SYS_quotactl_fd,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
    libc::SYS_syslog,
    libc::SYS_vhangup,
    // Parts of the kernel
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_open_by_handle_at,
    libc::SYS_fanotify_init,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_keyctl,
    libc::SYS_lookup_dcookie,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_kexec_file_load,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_iopl,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_ioperm,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_modify_ldt,
];

/// Answered with ENOSYS, as an older kernel would, so that libraries use what came before: flags of `clone3` lie in
/// memory that a filter cannot read, and what is done through io_uring passes every filter by.
const UNKNOWN: &[i64] =
    &[libc::SYS_clone3, libc::SYS_io_uring_setup, libc::SYS_io_uring_enter, libc::SYS_io_uring_register];

/// Calls that open a file, and which of their arguments are its flags. Of `openat2` they lie in memory.
const OPENING: &[(i64, u8)] = &[
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_open, 1),
    (libc::SYS_openat, 2),
];

/// `clone` with one of these would make a namespace.
const NAMESPACES: [i32; 7] = [
    libc::CLONE_NEWNS,
    libc::CLONE_NEWCGROUP,
    libc::CLONE_NEWUTS,
    libc::CLONE_NEWIPC,
    libc::CLONE_NEWUSER,
    libc::CLONE_NEWPID,
    libc::CLONE_NEWNET,
];

/// Terminal ioctls that type for the user.
const TYPING: [u32; 2] = [0x5412 /* TIOCSTI */, 0x541C /* TIOCLINUX */];

/// `ioctl` and `fcntl` that name who gets signals of a descriptor, which can then be any.
const OWNING: [u32; 2] = [0x8901 /* FIOSETOWN */, 0x8902 /* SIOCSPGRP */];
const OWNING_BY_FCNTL: [i32; 2] = [libc::F_SETOWN, 15 /* F_SETOWN_EX */];

/// Calls that signal the process or thread that is their first argument.
const SIGNALS: &[i64] = &[libc::SYS_kill, libc::SYS_tkill, libc::SYS_rt_sigqueueinfo];

/// The same where the first argument is a process, and the second one of its threads.
const SIGNALS_TO_THREADS: &[i64] = &[libc::SYS_tgkill, libc::SYS_rt_tgsigqueueinfo];

/// Other calls whose first argument is the process or thread that they act on.
const ON_FIRST: &[i64] = &[
    libc::SYS_pidfd_open,
    libc::SYS_sched_setaffinity,
    libc::SYS_sched_setscheduler,
    libc::SYS_sched_setparam,
    libc::SYS_sched_setattr,
    libc::SYS_migrate_pages,
    libc::SYS_move_pages,
];

/// The same where it is the second, and the first says whether it is a process, a process group or a user.
const ON_SECOND: [(i64, [u64; 3]); 2] = [
    (libc::SYS_setpriority, [libc::PRIO_PROCESS as u64, libc::PRIO_PGRP as u64, libc::PRIO_USER as u64]),
    (libc::SYS_ioprio_set, [1 /* IOPRIO_WHO_PROCESS */, 2 /* IOPRIO_WHO_PGRP */, 3 /* IOPRIO_WHO_USER */]),
];

/// `BPF_RET | BPF_K`: ends a program with a constant.
const RETURN: u16 = 0x06;

/// Bit of x32 system calls, a second way to each call that the rules do not know.
#[cfg(target_arch = "x86_64")]
const X32: u32 = 0x4000_0000;

type Rules = BTreeMap<i64, Vec<SeccompRule>>;

/// Programs for the kernel, ready to be installed between fork and exec.
pub(super) struct Filters(Vec<BpfProgram>);

impl Filters {
    /// Filters for workers of the process `node`, which close what they can of `gaps`.
    ///
    /// # Errors
    /// On a processor that they are not written for.
    pub(super) fn new(node: u32, gaps: Gaps) -> Result<Self, seccompiler::BackendError> {
        let denied = compile(denied(node, gaps)?, errno(libc::EPERM))?;
        // Its descriptor may be a directory in `/proc`, which nobody had to ask for.
        let by_descriptor = gaps.signals.then_some(libc::SYS_pidfd_send_signal);
        let by_struct = gaps.truncation.then_some(libc::SYS_openat2);
        let unknown = UNKNOWN.iter().copied().chain(by_descriptor).chain(by_struct);
        let unknown = unknown.map(|call| (call, Vec::new())).collect();
        Ok(Self(vec![compile(unknown, errno(libc::ENOSYS))?, without_x32(denied)]))
    }

    /// Installs them for this process and all it starts. Needs no_new_privs. Async-signal-safe.
    pub(super) fn install(&self) -> io::Result<()> {
        self.0.iter().try_for_each(|program| install(program, 0).map(drop))
    }
}

/// A program by which the kernel asks the node about calls that name a process, signals only where there is that gap.
///
/// # Errors
/// On a processor that it is not written for.
pub(super) fn asking(gaps: Gaps) -> Result<BpfProgram, seccompiler::BackendError> {
    let mut rules = Rules::new();
    // 0 is the caller.
    let signals = SIGNALS.iter().filter(|_| gaps.signals);
    for &call in ON_FIRST.iter().chain(signals) {
        rules.insert(call, vec![rule(0, SeccompCmpOp::Ne, 0)?]);
    }
    for (call, _) in ON_SECOND {
        rules.insert(call, vec![rule(1, SeccompCmpOp::Ne, 0)?]);
    }
    if gaps.signals {
        rules.extend(SIGNALS_TO_THREADS.iter().map(|&call| (call, Vec::new())));
    }
    // The crate knows of no questions: another action stands for them.
    let (stand_in, ask) = (u32::from(SeccompAction::Trap), libc::SECCOMP_RET_USER_NOTIF);
    let mut program = compile(rules, SeccompAction::Trap)?;
    for step in program.iter_mut().filter(|step| step.code == RETURN && step.k == stand_in) {
        step.k = ask;
    }
    Ok(program)
}

/// Installs what [`asking`] has made; returns what questions are read from. Async-signal-safe.
pub(super) fn install_asking(program: &BpfProgram) -> io::Result<OwnedFd> {
    let listener = install(program, libc::SECCOMP_FILTER_FLAG_NEW_LISTENER)?;
    let listener = RawFd::try_from(listener).map_err(|_| io::Error::from_raw_os_error(libc::EBADF))?;
    // SAFETY: the kernel has just opened it for this caller, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(listener) })
}

/// Installs a program for this process and all it starts. Async-signal-safe.
fn install(program: &BpfProgram, flags: libc::c_ulong) -> io::Result<libc::c_long> {
    let program = libc::sock_fprog {
        len: u16::try_from(program.len()).map_err(|_| io::Error::from_raw_os_error(libc::E2BIG))?,
        filter: program.as_ptr().cast_mut().cast(),
    };
    // SAFETY: `program` points at as many instructions as it says, laid out as the kernel's `sock_filter`, and the
    // kernel only reads them.
    let result = unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, &raw const program) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// Whom a call names that the kernel asks about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Target {
    /// Its own thread, process or process group.
    Caller,
    /// A process, or a thread of one.
    Process(i32),
    /// A process group.
    Group(i32),
    /// More than these.
    Anybody,
}

/// Whom the call of this number names.
pub(super) fn target(call: i64, arguments: &[u64; 6]) -> Target {
    // The kernel takes the lower half.
    let number = |index: usize| (arguments[index] & u64::from(u32::MAX)) as u32;
    let process = |index: usize| match number(index).cast_signed() {
        0 => Target::Caller,
        pid @ 1.. => Target::Process(pid),
        // Only `kill` knows groups by this; others refuse the number themselves.
        -1 | i32::MIN => Target::Anybody,
        group => Target::Group(-group),
    };
    if SIGNALS_TO_THREADS.contains(&call) {
        return process(1);
    }
    match ON_SECOND.iter().find(|(known, _)| *known == call) {
        Some((_, [of_process, of_group, _])) => match (u64::from(number(0)), process(1)) {
            (which, target) if which == *of_process => target,
            (which, Target::Process(group)) if which == *of_group => Target::Group(group),
            (which, target) if which == *of_group => target,
            _ => Target::Anybody,
        },
        None => process(0),
    }
}

fn compile(rules: Rules, action: SeccompAction) -> Result<BpfProgram, seccompiler::BackendError> {
    let arch = TargetArch::try_from(std::env::consts::ARCH)?;
    SeccompFilter::new(rules, SeccompAction::Allow, action, arch)?.try_into()
}

fn errno(number: i32) -> SeccompAction {
    SeccompAction::Errno(number.unsigned_abs())
}

fn denied(node: u32, gaps: Gaps) -> Result<Rules, seccompiler::BackendError> {
    let mut rules: Rules = DENIED.iter().map(|&call| (call, Vec::new())).collect();
    for flag in NAMESPACES {
        let flag = u64::from(flag.cast_unsigned());
        rules.entry(libc::SYS_clone).or_default().push(rule(0, SeccompCmpOp::MaskedEq(flag), flag)?);
    }
    for request in TYPING {
        rules.entry(libc::SYS_ioctl).or_default().push(rule(1, SeccompCmpOp::Eq, request.into())?);
    }
    // 0 is the ordinary personality, all ones asks for the present one.
    rules.insert(
        libc::SYS_personality,
        vec![SeccompRule::new(vec![
            condition(0, SeccompCmpOp::Ne, 0)?,
            condition(0, SeccompCmpOp::Ne, u32::MAX.into())?,
        ])?],
    );
    // Everybody that may be signalled.
    let everybody = i64::from(-1i32).cast_unsigned() & u64::from(u32::MAX);
    rules.entry(libc::SYS_kill).or_default().push(rule(0, SeccompCmpOp::Eq, everybody)?);
    // SAFETY: it has no arguments and cannot fail. It is 0 where the leader is outside of this pid namespace, and no
    // number names the group then.
    let own_group = Some(unsafe { libc::getpgrp() }).filter(|group| *group > 0);
    for group in own_group.into_iter().chain([node.cast_signed()]) {
        let group = u64::from(group.wrapping_neg().cast_unsigned());
        rules.entry(libc::SYS_kill).or_default().push(rule(0, SeccompCmpOp::Eq, group)?);
    }
    for &call in ON_FIRST.iter().chain(SIGNALS).chain(SIGNALS_TO_THREADS) {
        rules.entry(call).or_default().push(rule(0, SeccompCmpOp::Eq, node.into())?);
    }
    for (call, [.., user]) in ON_SECOND {
        let rules = rules.entry(call).or_default();
        rules.push(rule(1, SeccompCmpOp::Eq, node.into())?);
        // All that its user runs.
        rules.push(rule(0, SeccompCmpOp::Eq, user)?);
    }
    if gaps.signals {
        for request in OWNING {
            rules.entry(libc::SYS_ioctl).or_default().push(rule(1, SeccompCmpOp::Eq, request.into())?);
        }
        for command in OWNING_BY_FCNTL {
            let command = u64::from(command.cast_unsigned());
            rules.entry(libc::SYS_fcntl).or_default().push(rule(1, SeccompCmpOp::Eq, command)?);
        }
    }
    if gaps.truncation {
        rules.insert(libc::SYS_truncate, Vec::new());
        // Opened to be read, a file may be truncated all the same.
        let (mask, truncates) = (libc::O_ACCMODE | libc::O_TRUNC, libc::O_RDONLY | libc::O_TRUNC);
        for (call, flags) in OPENING {
            let masked = SeccompCmpOp::MaskedEq(u64::from(mask.cast_unsigned()));
            rules.entry(*call).or_default().push(rule(*flags, masked, u64::from(truncates.cast_unsigned()))?);
        }
    }
    // Limits of any process of the same user can be set by its id; 0 is the caller. Asking for them is harmless.
    let sets = SeccompCondition::new(2, SeccompCmpArgLen::Qword, SeccompCmpOp::Ne, 0)?;
    rules.insert(libc::SYS_prlimit64, vec![SeccompRule::new(vec![condition(0, SeccompCmpOp::Ne, 0)?, sets])?]);
    Ok(rules)
}

fn rule(argument: u8, operator: SeccompCmpOp, value: u64) -> Result<SeccompRule, seccompiler::BackendError> {
    SeccompRule::new(vec![condition(argument, operator, value)?])
}

fn condition(argument: u8, operator: SeccompCmpOp, value: u64) -> Result<SeccompCondition, seccompiler::BackendError> {
    SeccompCondition::new(argument, SeccompCmpArgLen::Dword, operator, value)
}

/// Puts a check before the program that answers every x32 call with ENOSYS. Jumps are relative: the rest stays as it is.
#[cfg(target_arch = "x86_64")]
fn without_x32(program: BpfProgram) -> BpfProgram {
    let load_number = sock_filter { code: 0x20, jt: 0, jf: 0, k: 0 };
    let is_x32 = sock_filter { code: 0x35, jt: 0, jf: 1, k: X32 };
    let enosys = u32::from(SeccompAction::Errno(libc::ENOSYS.unsigned_abs()));
    let refuse = sock_filter { code: RETURN, jt: 0, jf: 0, k: enosys };
    [load_number, is_x32, refuse].into_iter().chain(program).collect()
}

#[cfg(not(target_arch = "x86_64"))]
fn without_x32(program: BpfProgram) -> BpfProgram {
    program
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_name_whom_the_kernel_takes_them_to_name() {
        let lower = |number: i64| number.cast_unsigned() & u64::from(u32::MAX);
        for (call, first, second, expected) in [
            (libc::SYS_kill, 7, 9, Target::Process(7)),
            (libc::SYS_kill, lower(-7), 9, Target::Group(7)),
            (libc::SYS_kill, lower(-1), 9, Target::Anybody),
            (libc::SYS_kill, 0, 9, Target::Caller),
            // The upper half means nothing to the kernel.
            (libc::SYS_kill, (5 << 32) | 7, 9, Target::Process(7)),
            (libc::SYS_tkill, 8, 9, Target::Process(8)),
            (libc::SYS_tgkill, 7, 8, Target::Process(8)),
            (libc::SYS_rt_tgsigqueueinfo, 7, 8, Target::Process(8)),
            (libc::SYS_sched_setaffinity, 8, 0, Target::Process(8)),
            (libc::SYS_setpriority, 0, 8, Target::Process(8)),
            (libc::SYS_setpriority, 1, 8, Target::Group(8)),
            (libc::SYS_setpriority, 1, 0, Target::Caller),
            (libc::SYS_setpriority, 2, 8, Target::Anybody),
            (libc::SYS_ioprio_set, 1, 8, Target::Process(8)),
            (libc::SYS_ioprio_set, 2, 8, Target::Group(8)),
            (libc::SYS_ioprio_set, 3, 8, Target::Anybody),
        ] {
            assert_eq!(target(call, &[first, second, 0, 0, 0, 0]), expected, "{call} {first} {second}");
        }
    }

    #[test]
    fn kernel_asks_about_signals_only_where_landlock_lets_them_pass() {
        let asks = |signals| {
            let program = asking(Gaps { truncation: false, signals }).unwrap();
            let [asks, numbers] = [(RETURN, libc::SECCOMP_RET_USER_NOTIF), (0x15, libc::SYS_kill as u32)]
                .map(|(code, constant)| program.iter().any(|step| (step.code, step.k) == (code, constant)));
            (asks, numbers)
        };
        assert_eq!((asks(true), asks(false)), ((true, true), (true, false)));
    }
}
