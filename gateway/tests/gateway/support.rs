//! A server to test and a client that says exactly what it is told to.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, ErrorKind, Read, Write},
    net::{SocketAddr, TcpStream},
    num::NonZeroUsize,
    sync::{
        Arc,
        mpsc::{Receiver, channel},
    },
    time::Duration,
};

use fnmesh_gateway::{Config, Control, Load, Server};
use fnmesh_invoke::{AppState, Function};
use serde_json::{Value, json};
use tokio::sync::Semaphore;

use crate::fake::{self, Fake};

/// Nothing in these tests takes this long.
pub(crate) const SOON: Duration = Duration::from_secs(10);

struct Facts;

impl Control for Facts {
    fn take_turns(&self, _: Load) -> bool {
        false
    }

    fn health(&self) -> Value {
        json!({ "sandbox": "full" })
    }

    fn metrics(&self, out: &mut String) {
        out.push_str("fnmesh_extra 1\n");
    }

    fn resource(&self, path: &str) -> Option<Value> {
        (path == "facts").then(|| json!({ "extra": true }))
    }
}

pub(crate) struct Node {
    pub(crate) server: Server,
    pub(crate) functions: Arc<Vec<Arc<Function>>>,
    pub(crate) release: Arc<Semaphore>,
    pub(crate) events: Receiver<String>,
}

pub(crate) fn start() -> Node {
    start_with(AppState::Ready, |_| {})
}

pub(crate) fn start_with(state: AppState, change: impl FnOnce(&mut Config)) -> Node {
    let mut config = Config {
        address: SocketAddr::from(([127, 0, 0, 1], 0)),
        threads: NonZeroUsize::new(2).unwrap(),
        max_body_bytes: 4 * 1024 * 1024,
        ..Config::default()
    };
    change(&mut config);
    let (sender, events) = channel();
    let functions = Arc::new(fake::functions());
    let release = Arc::new(Semaphore::new(0));
    let invoker = {
        let (functions, release) = (Arc::clone(&functions), Arc::clone(&release));
        let sender = std::sync::Mutex::new(sender);
        move |_thread| Fake {
            functions: Arc::clone(&functions),
            events: sender.lock().unwrap().clone(),
            release: Arc::clone(&release),
            state: state.clone(),
        }
    };
    let server = Server::start(config, Arc::new(Facts), invoker).unwrap();
    Node { server, functions, release, events }
}

impl Node {
    pub(crate) fn connect(&self) -> Client {
        let stream = TcpStream::connect(self.server.address()).unwrap();
        stream.set_read_timeout(Some(SOON)).unwrap();
        stream.set_nodelay(true).unwrap();
        Client { stream: BufReader::new(stream) }
    }

    /// One request on a connection of its own.
    pub(crate) fn ask(&self, request: &str) -> Answer {
        let mut client = self.connect();
        client.send(request);
        client.answer()
    }

    pub(crate) fn get(&self, target: &str) -> Answer {
        self.ask(&format!("GET {target} HTTP/1.1\r\nHost: t\r\n\r\n"))
    }

    pub(crate) fn post(&self, target: &str, body: &str) -> Answer {
        self.ask(&post(target, "", body))
    }

    pub(crate) fn control() -> Arc<dyn Control> {
        Arc::new(Facts)
    }

    #[track_caller]
    pub(crate) fn wait_for(&self, event: &str) {
        assert_eq!(self.events.recv_timeout(SOON).as_deref(), Ok(event));
    }
}

/// `headers` are whole lines.
pub(crate) fn post(target: &str, headers: &str, body: &str) -> String {
    format!("POST {target} HTTP/1.1\r\nHost: t\r\nContent-Length: {}\r\n{headers}\r\n{body}", body.len())
}

pub(crate) struct Client {
    stream: BufReader<TcpStream>,
}

#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// By lower-case name; repeated ones joined by `|`.
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: Vec<u8>,
    /// Whether the body came as announced.
    pub(crate) complete: bool,
}

impl Client {
    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.get_mut().write_all(bytes.as_ref()).unwrap();
    }

    /// For bytes that the server may refuse to take.
    pub(crate) fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        self.stream.get_mut().write_all(bytes.as_ref()).is_ok()
    }

    pub(crate) fn stream(&self) -> &TcpStream {
        self.stream.get_ref()
    }

    pub(crate) fn line(&mut self) -> String {
        let mut line = String::new();
        self.stream.read_line(&mut line).unwrap();
        line
    }

    pub(crate) fn answer(&mut self) -> Answer {
        self.answer_to("GET")
    }

    pub(crate) fn head(&mut self) -> Answer {
        let status = self.line();
        let status = status.split(' ').nth(1).and_then(|code| code.parse().ok());
        let status = status.expect("the connection was closed without an answer");
        let mut headers: BTreeMap<String, String> = BTreeMap::new();
        loop {
            let line = self.line();
            let Some((name, value)) = line.trim_end().split_once(": ") else { break };
            headers
                .entry(name.to_lowercase())
                .and_modify(|all| {
                    all.push('|');
                    all.push_str(value);
                })
                .or_insert_with(|| value.to_owned());
        }
        Answer { status, headers, body: Vec::new(), complete: true }
    }

    pub(crate) fn answer_to(&mut self, method: &str) -> Answer {
        let mut answer = self.head();
        if method == "HEAD" || matches!(answer.status, 100 | 204 | 304) {
            return answer;
        }
        if answer.headers.get("transfer-encoding").is_some_and(|coding| coding == "chunked") {
            answer.complete = false;
            while let Some(chunk) = self.chunk() {
                if chunk.is_empty() {
                    answer.complete = true;
                    break;
                }
                answer.body.extend(chunk);
            }
        } else if let Some(length) = answer.headers.get("content-length") {
            answer.body = vec![0; length.parse().unwrap()];
            self.stream.read_exact(&mut answer.body).unwrap();
        } else {
            self.stream.read_to_end(&mut answer.body).unwrap();
        }
        answer
    }

    /// The next chunk; `None` when the connection ends first.
    pub(crate) fn chunk(&mut self) -> Option<Vec<u8>> {
        let mut size = String::new();
        self.stream.read_line(&mut size).ok().filter(|&read| read > 0)?;
        let mut chunk = vec![0; usize::from_str_radix(size.trim(), 16).unwrap() + 2];
        self.stream.read_exact(&mut chunk).ok()?;
        chunk.truncate(chunk.len() - 2);
        Some(chunk)
    }

    /// Waits for the server to close.
    #[track_caller]
    pub(crate) fn assert_closed(&mut self) {
        match self.stream.read(&mut [0; 64]) {
            Ok(0) => {}
            Err(error) if error.kind() == ErrorKind::ConnectionReset => {}
            other => panic!("the connection is not closed: {other:?}"),
        }
    }
}

impl Answer {
    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }

    pub(crate) fn message(&self) -> String {
        self.json()["error"]["message"].as_str().unwrap().to_owned()
    }
}

pub(crate) fn block_on<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, future)
}
