//! What is printed in which colour, and whether somebody sees it.

use std::{
    io::{self, IsTerminal as _, Write},
    sync::OnceLock,
};

use anstyle::{AnsiColor, Style};
use indicatif::MultiProgress;

/// What went wrong.
pub(crate) const ERROR: Style = AnsiColor::Red.on_default().bold();
/// What may go wrong.
pub(crate) const WARNING: Style = AnsiColor::Yellow.on_default();
/// What went well.
pub(crate) const GOOD: Style = AnsiColor::Green.on_default();
/// Names a user can call or type.
pub(crate) const NAME: Style = AnsiColor::Cyan.on_default();
/// Titles.
pub(crate) const HEADING: Style = Style::new().bold();
/// What may be skipped while reading.
pub(crate) const DIM: Style = Style::new().dimmed();

/// Whether a person reads stdout.
pub(crate) fn is_stdout() -> bool {
    io::stdout().is_terminal()
}

/// Whether a person reads stderr.
pub(crate) fn is_stderr() -> bool {
    io::stderr().is_terminal()
}

/// The progress bars of this process. They are drawn on stderr, and only on a terminal.
pub(crate) fn progress() -> &'static MultiProgress {
    static PROGRESS: OnceLock<MultiProgress> = OnceLock::new();
    PROGRESS.get_or_init(MultiProgress::new)
}

/// Writes whole lines to stdout, above any progress bar; colours are dropped where nobody sees them.
///
/// A reader that went away is not an error: the node serves on without it.
pub(crate) fn print(text: &str) {
    progress().suspend(|| drop(write_all(&mut anstream::stdout().lock(), text.as_bytes())));
}

/// The same to stderr.
pub(crate) fn print_error(text: &[u8]) {
    progress().suspend(|| drop(write_all(&mut anstream::stderr().lock(), text)));
}

fn write_all(out: &mut impl Write, text: &[u8]) -> io::Result<()> {
    out.write_all(text)?;
    out.flush()
}

/// A writer for log lines: collects one event, then prints it whole.
#[derive(Debug, Default)]
pub(crate) struct Line(Vec<u8>);

impl Write for Line {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        if !self.0.is_empty() {
            print_error(&self.0);
        }
    }
}
