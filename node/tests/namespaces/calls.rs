//! Calls that go on while a test does harm.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use crate::support::{PATIENCE, request, wait_until};

/// How many are in flight at once.
pub(crate) const CALLERS: usize = 3;
/// Between two calls of a caller.
const PAUSE: Duration = Duration::from_millis(20);

/// Whether a call may be run twice.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Plain,
    Idempotent,
}

/// Calls of one kind, made until they are stopped.
pub(crate) struct Calls {
    shared: Arc<Shared>,
    callers: Vec<JoinHandle<()>>,
}

struct Shared {
    kind: Kind,
    /// The node that is asked.
    url: Mutex<String>,
    is_over: AtomicBool,
    answered: AtomicUsize,
    failed: Mutex<Vec<Failed>>,
}

/// A call that was not answered as it should be.
#[derive(Clone, Debug)]
pub(crate) struct Failed {
    /// The status line and the rest, or why there is none.
    pub(crate) answer: String,
}

impl Calls {
    pub(crate) fn start(url: &str, kind: Kind) -> Self {
        let shared = Arc::new(Shared {
            kind,
            url: Mutex::new(url.to_owned()),
            is_over: AtomicBool::new(false),
            answered: AtomicUsize::new(0),
            failed: Mutex::default(),
        });
        let callers = (0..CALLERS).map(|caller| {
            let shared = Arc::clone(&shared);
            thread::spawn(move || shared.call(caller))
        });
        let calls = Self { callers: callers.collect(), shared };
        calls.go_on();
        calls
    }

    /// Sends later calls to another node.
    pub(crate) fn ask(&self, url: &str) {
        url.clone_into(&mut self.shared.url.lock().unwrap());
    }

    /// Waits until some more calls are answered.
    pub(crate) fn go_on(&self) {
        let before = self.shared.answered.load(SeqCst);
        let answered = || self.shared.answered.load(SeqCst) - before;
        wait_until(|| answered() > 10 * CALLERS, || format!("calls go on: {} answered", answered()));
    }

    /// Those that have failed by now.
    pub(crate) fn failed(&self) -> Vec<Failed> {
        self.shared.failed.lock().unwrap().clone()
    }

    /// Waits until all have ended; those that failed.
    pub(crate) fn stop(mut self) -> Vec<Failed> {
        self.shared.is_over.store(true, SeqCst);
        self.callers.drain(..).for_each(|caller| caller.join().unwrap());
        self.failed()
    }
}

impl Drop for Calls {
    fn drop(&mut self) {
        self.shared.is_over.store(true, SeqCst);
    }
}

impl Shared {
    fn call(&self, caller: usize) {
        for call in 0.. {
            if self.is_over.load(SeqCst) {
                return;
            }
            let url = self.url.lock().unwrap().clone();
            let key = match self.kind {
                Kind::Plain => String::new(),
                Kind::Idempotent => format!("Idempotency-Key: {caller}-{call}\r\n"),
            };
            let headers = format!("Content-Type: application/json\r\n{key}");
            let answer = request(&url, "POST /shop/add", &headers, "[1]", PATIENCE);
            match answer {
                Ok(answer) if answer.starts_with("HTTP/1.1 200") && answer.ends_with("\r\n\r\n2") => {
                    self.answered.fetch_add(1, SeqCst);
                }
                answer => {
                    let answer = answer.unwrap_or_else(|error| format!("no answer: {error}"));
                    self.failed.lock().unwrap().push(Failed { answer });
                }
            }
            thread::sleep(PAUSE);
        }
    }
}
