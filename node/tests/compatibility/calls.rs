//! All kinds of calls, with what they must be answered.

use crate::support::{Apps, PATIENCE, request};

const PYTHON: &str = "\
def add(a: int, b: int = 1) -> int: return a + b
def fail(why): raise ValueError(why)
def count(n: int):
    for i in range(n): yield {'item': i}
def big(n: int) -> str: return 'x' * n
";
const JAVASCRIPT: &str = "\
exports.join = (a, b) => a + b;
exports.refuse = (why) => { throw new TypeError(why); };
exports.repeat = function* (n) { for (let i = 0; i < n; i++) yield { item: i }; };
exports.size = (data) => data.length;
exports.echo = (request) =>
  new Response(request.method + ' ' + new URL(request.url).search, { status: 201, headers: { 'x-from': 'echo' } });
";
const MANIFEST: &str = "[functions.echo]\nhttp = true\n";
const JSON: &str = "application/json";
/// Bytes.
const LARGE: usize = 2_000_000;

/// Writes the app that is called, under this name.
pub(crate) fn write(apps: &Apps, app: &str) {
    apps.write(&format!("{app}/numbers.py"), PYTHON);
    apps.write(&format!("{app}/words.js"), JAVASCRIPT);
    apps.write(&format!("{app}/fnmesh.toml"), MANIFEST);
}

/// One call, and what it must be answered.
pub(crate) struct Call {
    function: &'static str,
    media: &'static str,
    body: String,
    status: u16,
    answer: Answer,
}

enum Answer {
    /// This body.
    Is(String),
    /// A body with all of these in it; `APP` stands for the app's name.
    Has(&'static [&'static str]),
    /// So many items, and then the end.
    Items(usize),
}

impl Call {
    /// Whether it takes some round trips. The version before leaves the mesh without waiting for such calls.
    pub(crate) fn is_large(&self) -> bool {
        self.body.len() >= LARGE || matches!(&self.answer, Answer::Is(body) if body.len() >= LARGE)
    }

    /// Calls `app` at this node.
    pub(crate) fn check(&self, url: &str, app: &str) {
        let line = format!("POST /{app}/{}", self.function);
        let answered = request(url, &line, &format!("Content-Type: {}\r\n", self.media), &self.body, PATIENCE);
        let answered = answered.unwrap_or_else(|error| panic!("{line} at {url}: {error}"));
        let (head, body) = answered.split_once("\r\n\r\n").unwrap_or((&answered, ""));
        let is_right = match &self.answer {
            Answer::Is(expected) => body == expected,
            Answer::Has(parts) => parts.iter().all(|part| body.contains(&part.replace("APP", app))),
            // In chunks, the last of which is empty.
            Answer::Items(count) => {
                let items = body.lines().filter(|line| line.starts_with('{'));
                body.ends_with("\r\n0\r\n\r\n") && items.eq((0..*count).map(|number| format!("{{\"item\":{number}}}")))
            }
        };
        let status = format!(" {} ", self.status);
        assert!(is_right && head.contains(&status), "{line} at {url}: {head} {}", &body[..body.len().min(1_000)]);
    }
}

/// All of them, in both languages: plain ones, large bodies, streams, what a function raises, and what is not there.
pub(crate) fn calls() -> Vec<Call> {
    let call = |function, body: &str, status, answer| Call { function, media: JSON, body: body.into(), status, answer };
    let is = |text: &str| Answer::Is(text.into());
    vec![
        call("add", "[1, 2]", 200, is("3")),
        call("join", "[\"a\", \"b\"]", 200, is("\"ab\"")),
        call("add", r#"{"a": 1}"#, 200, is("2")),
        call("numbers.add", "[1]", 200, is("2")),
        call("fail", "[\"no bread\"]", 500, Answer::Has(&["ValueError", "no bread", "numbers.py"])),
        call("refuse", "[\"no milk\"]", 500, Answer::Has(&["TypeError", "no milk", "words.js"])),
        call("count", "[20]", 200, Answer::Items(20)),
        call("repeat", "[20]", 200, Answer::Items(20)),
        call("ad", "[1]", 404, Answer::Has(&["UnknownFunction", "APP/ad"])),
        call("add", "[1, 2, 3]", 400, Answer::Has(&["InvalidInput"])),
        call("big", &format!("[{LARGE}]"), 200, Answer::Is(format!("\"{}\"", "x".repeat(LARGE)))),
        Call {
            function: "size",
            media: "application/octet-stream",
            body: "z".repeat(LARGE),
            status: 200,
            answer: is(&LARGE.to_string()),
        },
        call("echo?q=1", "[]", 201, is("POST ?q=1")),
    ]
}
