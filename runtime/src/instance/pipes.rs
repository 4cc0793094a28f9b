//! What a worker writes on standard output and error, past its own capture.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncReadExt},
    net::unix::pipe,
    task::JoinSet,
    time::sleep,
};

use crate::{logs, pool::Pool, worker::frame::MAX_LOG_BYTES};

/// Between two reads while lines are dropped. A pipe holds 64 KiB, so this bounds the rate too.
const FLOOD_PAUSE: Duration = Duration::from_millis(2);

/// Copies both streams of a worker in tasks of `pipes`.
pub(super) fn copy_output(
    pipes: &mut JoinSet<()>,
    stdout: pipe::Receiver,
    stderr: pipe::Receiver,
    pool: &Arc<Pool>,
    last_words: &LastWords,
) {
    pipes.spawn(copy_lines(stdout, Arc::clone(pool), logs::STDOUT, None));
    pipes.spawn(copy_lines(stderr, Arc::clone(pool), logs::STDERR, Some(last_words.clone())));
}

/// Turns what a worker writes into log lines, split at newlines and at [`MAX_LOG_BYTES`].
async fn copy_lines(mut pipe: impl AsyncRead + Unpin, pool: Arc<Pool>, level: u16, last_words: Option<LastWords>) {
    let copy = |line: &[u8]| {
        let taken = logs::app_log(&pool, None, level, line);
        if let Some(words) = &last_words {
            words.push(line);
        }
        taken
    };
    // Room for whole pipes of text, however short its lines are.
    let mut pending = Vec::with_capacity(2 * MAX_LOG_BYTES);
    while pipe.read_buf(&mut pending).await.is_ok_and(|count| count > 0) {
        let (mut start, mut taken) = (0, true);
        while let Some(end) = line_end(&pending[start..]) {
            taken &= copy(&pending[start..start + end]);
            start += end + usize::from(pending.get(start + end) == Some(&b'\n'));
        }
        pending.drain(..start);
        if !taken {
            // Who floods the log waits: reading is work too.
            sleep(FLOOD_PAUSE).await;
        }
    }
    if !pending.is_empty() {
        copy(&pending);
    }
}

/// The newest lines of a worker's standard error: why it died, when it cannot say so itself.
#[derive(Clone, Default)]
pub(super) struct LastWords(Arc<Mutex<VecDeque<String>>>);

impl LastWords {
    const LINES: usize = 20;

    fn push(&self, line: &[u8]) {
        let mut lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if lines.len() == Self::LINES {
            lines.pop_front();
        }
        lines.push_back(String::from_utf8_lossy(line).into_owned());
    }

    pub(super) fn text(&self) -> String {
        let lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        lines.iter().map(String::as_str).collect::<Vec<_>>().join("\n")
    }
}

fn line_end(bytes: &[u8]) -> Option<usize> {
    let end = memchr::memchr(b'\n', bytes);
    end.filter(|&end| end <= MAX_LOG_BYTES).or((bytes.len() >= MAX_LOG_BYTES).then_some(MAX_LOG_BYTES))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_end_at_newlines_and_at_the_limit() {
        assert_eq!(line_end(b"ab\ncd"), Some(2));
        assert_eq!(line_end(b"ab"), None);
        let long = vec![b'x'; MAX_LOG_BYTES + 10];
        assert_eq!(line_end(&long), Some(MAX_LOG_BYTES));
    }

    #[test]
    fn last_words_are_the_newest_lines() {
        let words = LastWords::default();
        for line in 0..LastWords::LINES + 2 {
            words.push(line.to_string().as_bytes());
        }
        let text = words.text();
        assert_eq!(text.lines().next(), Some("2"));
        assert_eq!(text.lines().count(), LastWords::LINES);
    }
}
