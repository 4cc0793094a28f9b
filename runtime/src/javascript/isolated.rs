use std::thread;

/// Stack that one byte of source can take: each level of nesting is at least one byte, and the
/// parser, its visitors and the drop of its tree recurse once a level.
const STACK_PER_BYTE: usize = 16 * 1024;
const MIN_STACK_BYTES: usize = 2 * 1024 * 1024;
const MAX_STACK_BYTES: usize = 1024 * 1024 * 1024;

/// Runs `parse` on a thread whose stack fits `source`, so that no source can end the node.
///
/// `None` when it panicked or the thread could not start.
pub(super) fn run<T: Send>(source: &str, parse: impl FnOnce() -> T + Send) -> Option<T> {
    let stack = (source.len() * STACK_PER_BYTE).clamp(MIN_STACK_BYTES, MAX_STACK_BYTES);
    thread::scope(|scope| {
        let thread = thread::Builder::new().name("parse".into()).stack_size(stack).spawn_scoped(scope, parse);
        thread.ok()?.join().ok()
    })
}
