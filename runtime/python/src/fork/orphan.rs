//! A fork whose child is an orphan from the beginning, for the price of one.
//!
//! The process in between shares the memory of its parent, which is suspended meanwhile, as with `vfork()`. It runs
//! nothing but `fork()`, on the stack below the parent's, and ends. So the memory of a process, which may be large, is
//! copied once, and the handlers of `pthread_atfork()` run once, as they should. This has to be in assembly: a compiler
//! does not expect a function to return while the frame that called it goes on being used by another process.

use std::{arch::naked_asm, ffi::c_int};

/// What makes the process in between.
const VFORK: i32 = libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD;

/// Forks. Returns 0 in the child. In the parent, the id of the process in between, which has ended, or a negated error
/// number; `*pid` is then the child's id, or -1 with `errno` set where `fork()` failed.
///
/// # Safety
/// Nothing else may run in this process. `pid` points to an integer.
#[cfg(target_arch = "x86_64")]
#[unsafe(naked)]
pub(super) unsafe extern "C" fn fork(pid: *mut c_int) -> c_int {
    naked_asm!(
        "push rbx",
        "mov rbx, rdi",
        "mov edi, {vfork}",
        "xor esi, esi",
        "xor edx, edx",
        "xor r10d, r10d",
        "xor r8d, r8d",
        "mov eax, {clone}",
        "syscall",
        "test eax, eax",
        "jnz 2f",
        // In between.
        "call {fork}@PLT",
        "test eax, eax",
        "jz 2f",
        "mov dword ptr [rbx], eax",
        "xor edi, edi",
        "mov eax, {exit}",
        "syscall",
        "ud2",
        // In the parent, or in the child.
        "2:",
        "pop rbx",
        "ret",
        vfork = const VFORK,
        clone = const libc::SYS_clone,
        exit = const libc::SYS_exit_group,
        fork = sym libc::fork,
    )
}

/// As above.
///
/// # Safety
/// As above.
#[cfg(target_arch = "aarch64")]
#[unsafe(naked)]
pub(super) unsafe extern "C" fn fork(pid: *mut c_int) -> c_int {
    naked_asm!(
        "stp x29, x30, [sp, #-32]!",
        "str x19, [sp, #16]",
        "mov x19, x0",
        "mov x0, #{vfork}",
        "mov x1, xzr",
        "mov x2, xzr",
        "mov x3, xzr",
        "mov x4, xzr",
        "mov x8, #{clone}",
        "svc #0",
        "cbnz w0, 2f",
        // In between.
        "bl {fork}",
        "cbz w0, 2f",
        "str w0, [x19]",
        "mov x0, xzr",
        "mov x8, #{exit}",
        "svc #0",
        "brk #1",
        // In the parent, or in the child.
        "2:",
        "ldr x19, [sp, #16]",
        "ldp x29, x30, [sp], #32",
        "ret",
        vfork = const VFORK,
        clone = const libc::SYS_clone,
        exit = const libc::SYS_exit_group,
        fork = sym libc::fork,
    )
}
