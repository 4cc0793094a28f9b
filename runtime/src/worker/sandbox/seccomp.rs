//! System calls that no function needs: they change the machine, look into other processes, or open parts of the
//! kernel that have had most of its holes. A deny-list, since what libraries call is not known beforehand (ADR 0020).

use std::{collections::BTreeMap, io};

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    TargetArch, sock_filter,
};

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

/// Calls whose first argument is the process they act on.
const ON_FIRST: &[i64] = &[
    libc::SYS_kill,
    libc::SYS_tkill,
    libc::SYS_tgkill,
    libc::SYS_rt_sigqueueinfo,
    libc::SYS_rt_tgsigqueueinfo,
    libc::SYS_pidfd_open,
    libc::SYS_sched_setaffinity,
    libc::SYS_sched_setscheduler,
    libc::SYS_sched_setparam,
    libc::SYS_sched_setattr,
    libc::SYS_migrate_pages,
    libc::SYS_move_pages,
];

/// The same where it is the second.
const ON_SECOND: &[i64] = &[libc::SYS_setpriority, libc::SYS_ioprio_set];

/// Bit of x32 system calls, a second way to each call that the rules do not know.
#[cfg(target_arch = "x86_64")]
const X32: u32 = 0x4000_0000;

type Rules = BTreeMap<i64, Vec<SeccompRule>>;

/// Programs for the kernel, ready to be installed between fork and exec.
pub(super) struct Filters(Vec<BpfProgram>);

impl Filters {
    /// Filters for workers of the process `node`.
    ///
    /// # Errors
    /// On a processor that they are not written for.
    pub(super) fn new(node: u32) -> Result<Self, seccompiler::BackendError> {
        let denied = compile(denied(node)?, libc::EPERM)?;
        let unknown = compile(UNKNOWN.iter().map(|&call| (call, Vec::new())).collect(), libc::ENOSYS)?;
        Ok(Self(vec![unknown, without_x32(denied)]))
    }

    /// Installs them for this process and all it starts. Needs no_new_privs. Async-signal-safe.
    pub(super) fn install(&self) -> io::Result<()> {
        for program in &self.0 {
            let program = libc::sock_fprog {
                len: u16::try_from(program.len()).map_err(|_| io::Error::from_raw_os_error(libc::E2BIG))?,
                filter: program.as_ptr().cast_mut().cast(),
            };
            // SAFETY: `program` points at as many instructions as it says, laid out as the kernel's
            // `sock_filter`, and the kernel only reads them.
            let result = unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program) };
            if result != 0 {
                return Err(io::Error::last_os_error());
            }
        }
        Ok(())
    }
}

fn compile(rules: Rules, errno: i32) -> Result<BpfProgram, seccompiler::BackendError> {
    let arch = TargetArch::try_from(std::env::consts::ARCH)?;
    SeccompFilter::new(rules, SeccompAction::Allow, SeccompAction::Errno(errno.unsigned_abs()), arch)?.try_into()
}

fn denied(node: u32) -> Result<Rules, seccompiler::BackendError> {
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
    for group in [node, rustix::process::getpgrp().as_raw_pid().cast_unsigned()] {
        let group = u64::from(group.cast_signed().wrapping_neg().cast_unsigned());
        rules.entry(libc::SYS_kill).or_default().push(rule(0, SeccompCmpOp::Eq, group)?);
    }
    for &call in ON_FIRST {
        rules.entry(call).or_default().push(rule(0, SeccompCmpOp::Eq, node.into())?);
    }
    for &call in ON_SECOND {
        rules.entry(call).or_default().push(rule(1, SeccompCmpOp::Eq, node.into())?);
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
    let refuse = sock_filter { code: 0x06, jt: 0, jf: 0, k: enosys };
    [load_number, is_x32, refuse].into_iter().chain(program).collect()
}

#[cfg(not(target_arch = "x86_64"))]
fn without_x32(program: BpfProgram) -> BpfProgram {
    program
}
