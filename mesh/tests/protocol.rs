//! The examples of `docs/protocol.md`, played against a node by a client that shares nothing with fnmesh's transport.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::{
    net::{Ipv4Addr, SocketAddr},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, SystemTime},
};

use fnmesh_invoke::{
    AppStatus, Error, Function, FunctionId, Invocation, Invoke, Language, Payload, Reply, ReplyBody, Target,
};
use fnmesh_mesh::{
    Config, Mesh,
    identity::{TokenOptions, join},
    transport::quic::Congestion,
};
use quinn::{Connection, Endpoint};
use tempfile::TempDir;
use tokio::time::timeout;

const DOCUMENT: &str = include_str!("../../docs/protocol.md");
const PATIENCE: Duration = Duration::from_secs(10);
const LOCAL: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// The bytes that an example stands for.
fn example(name: &str) -> Vec<u8> {
    let (_, rest) = DOCUMENT.split_once(&format!("<!-- example: {name} -->\n```text\n")).expect(name);
    let (text, _) = rest.split_once("\n```").unwrap();
    let (mut lines, mut bytes) = (text.lines(), Vec::new());
    while let Some(line) = lines.next() {
        let mut length = |line: &str| {
            let (hex, _) = line.split_once("   ").unwrap();
            let four: Vec<u8> = hex.split(' ').map(|byte| u8::from_str_radix(byte, 16).unwrap()).collect();
            bytes.extend_from_slice(&four);
            u32::from_le_bytes(four.try_into().unwrap()) as usize
        };
        for length in [length(line), length(lines.next().unwrap())] {
            let part = if length > 0 { lines.next().unwrap() } else { "" };
            assert_eq!(part.len(), length, "{part}");
            bytes.extend_from_slice(part.as_bytes());
        }
    }
    bytes
}

/// The example of a request, for another function.
fn request_of(function: &[u8; 8]) -> Vec<u8> {
    let mut frame = example("request");
    let at = frame.windows(8).position(|window| window == b"shop/add").unwrap();
    frame[at..at + 8].copy_from_slice(function);
    frame
}

/// The same frame with another body.
fn with_body(mut frame: Vec<u8>, body: &[u8]) -> Vec<u8> {
    let envelope = u32::from_le_bytes(frame[..4].try_into().unwrap()) as usize;
    frame.truncate(8 + envelope);
    frame[4..8].copy_from_slice(&(body.len() as u32).to_le_bytes());
    [&frame, body].concat()
}

fn message(envelope: &str) -> Vec<u8> {
    [&(envelope.len() as u64).to_le_bytes(), envelope.as_bytes()].concat()
}

/// A node that serves a shop, and a client that has joined its mesh.
struct Client {
    connection: Connection,
    runtime: tokio::runtime::Runtime,
    _endpoint: Endpoint,
    _mesh: Mesh,
    _directory: TempDir,
}

impl Client {
    fn connect() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let config = Config {
            address: LOCAL,
            advertise: None,
            name: "shop".to_owned(),
            zone: String::new(),
            directory: directory.path().join("node"),
            join: None,
            congestion: Congestion::Cubic,
            membership: Default::default(),
        };
        let mesh = Mesh::start(config, Default::default(), || Shop).unwrap();
        let node = mesh.handle();
        let authority = node.identity().authority().unwrap();
        let token = node.tokens().create(authority, TokenOptions::default(), SystemTime::now()).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let (connection, endpoint) = runtime.block_on(async {
            let endpoint = Endpoint::client(LOCAL).unwrap();
            let joined = join::join(&endpoint, node.address(), &token, &directory.path().join("client")).await.unwrap();
            let config = joined.identity.client_config();
            let connecting = endpoint.connect_with(config, node.address(), &node.node().to_string()).unwrap();
            (connecting.await.unwrap(), endpoint)
        });
        Self { connection, runtime, _endpoint: endpoint, _mesh: mesh, _directory: directory }
    }

    fn play(&self, scene: impl AsyncFnOnce(&Connection)) {
        let scene = async { timeout(PATIENCE, scene(&self.connection)).await.expect("no answer") };
        self.runtime.block_on(scene);
    }
}

#[test]
fn examples_are_what_a_node_says() {
    Client::connect().play(async |connection| {
        let (mut send, mut recv) = connection.open_bi().await.unwrap();
        for (asked, answered) in [("request", "response"), ("mistyped", "error")] {
            send.write_all(&example(asked)).await.unwrap();
            let mut answer = vec![0; example(answered).len()];
            recv.read_exact(&mut answer).await.unwrap();
            assert_eq!(String::from_utf8_lossy(&answer), String::from_utf8_lossy(&example(answered)));
        }
        send.write_all(&example("streaming")).await.unwrap();
        let answer = connection.accept_uni().await.unwrap().read_to_end(10_000).await.unwrap();
        assert_eq!(String::from_utf8_lossy(&answer), String::from_utf8_lossy(&example("streamed")));
    });
}

#[test]
fn large_request_has_a_stream_of_its_own() {
    Client::connect().play(async |connection| {
        let arguments = format!("[1,{}2]", " ".repeat(40_000));
        let (mut send, mut recv) = connection.open_bi().await.unwrap();
        send.write_all(&with_body(example("request"), arguments.as_bytes())).await.unwrap();
        send.finish().unwrap();
        assert_eq!(recv.read_to_end(1_000).await.unwrap(), example("response"));
    });
}

#[test]
fn large_answer_comes_on_a_stream_of_its_own() {
    Client::connect().play(async |connection| {
        let (mut send, _recv) = connection.open_bi().await.unwrap();
        send.write_all(&request_of(b"shop/max")).await.unwrap();
        let answer = connection.accept_uni().await.unwrap().read_to_end(100_000).await.unwrap();
        assert_eq!(answer, with_body(example("response"), &LARGE));
    });
}

#[test]
fn what_is_unknown_is_ignored_or_said_to_be() {
    Client::connect().play(async |connection| {
        for (request, answer) in [
            (r#"{"new":[1],"jsonrpc":"2.0","id":7,"method":"ping"}"#, r#"{"jsonrpc":"2.0","id":7,"result":null}"#),
            (
                r#"{"jsonrpc":"2.0","id":7,"method":"hosts","params":{}}"#,
                r#"{"jsonrpc":"2.0","id":7,"error":{"code":-32601,"message":"no method \"hosts\"; known are "#,
            ),
            (
                r#"{"jsonrpc":"2.0","id":7,"method":"invoke","params":{}}"#,
                r#"{"jsonrpc":"2.0","id":7,"error":{"code":-32602,"message":"invalid parameters of \"invoke\": "#,
            ),
        ] {
            let (mut send, mut recv) = connection.open_bi().await.unwrap();
            send.write_all(&message(request)).await.unwrap();
            send.finish().unwrap();
            let frame = recv.read_to_end(10_000).await.unwrap();
            let said = String::from_utf8_lossy(&frame[8..]);
            assert!(said.starts_with(answer), "{said}");
        }
    });
}

#[test]
fn withdrawn_request_ends() {
    Client::connect().play(async |connection| {
        let (mut send, mut recv) = connection.open_bi().await.unwrap();
        send.write_all(&request_of(b"shop/nap")).await.unwrap();
        send.write_all(&message(r#"{"jsonrpc":"2.0","method":"cancel","params":{"id":1}}"#)).await.unwrap();
        send.finish().unwrap();
        let frame = recv.read_to_end(10_000).await.unwrap();
        let said = String::from_utf8_lossy(&frame[8..]);
        assert!(said.starts_with(r#"{"jsonrpc":"2.0","id":1,"error":{"code":-32603,"#), "{said}");
    });
}

#[test]
fn broken_message_closes_the_connection() {
    Client::connect().play(async |connection| {
        let (mut send, _recv) = connection.open_bi().await.unwrap();
        send.write_all(&message(r#"{"jsonrpc":"2.0","id":"one","method":"ping"}"#)).await.unwrap();
        let quinn::ConnectionError::ApplicationClosed(close) = connection.closed().await else { panic!() };
        assert_eq!(close.error_code, 2_u32.into());
        assert!(String::from_utf8_lossy(&close.reason).starts_with("invalid message"), "{close}");
    });
}

static LARGE: [u8; 50_000] = [b'7'; 50_000];

/// The app of the examples.
#[derive(Clone)]
struct Shop;

impl Invoke for Shop {
    async fn resolve(&self, app: &str, name: &str) -> Result<Arc<Function>, Error> {
        if !["add", "count", "max", "nap"].contains(&name) {
            return Err(Error::UnknownFunction {
                function: format!("{app}/{name}"),
                nearest: vec!["shop/add".to_owned()],
            });
        }
        Ok(Arc::new(Function {
            id: FunctionId { app: app.into(), name: name.into() },
            module: "shop".to_owned(),
            file: "shop.py".to_owned(),
            language: Language::Python,
            signature: Default::default(),
            limits: Default::default(),
            public: true,
            target: Target::default(),
            stats: Arc::default(),
        }))
    }

    async fn call(&self, invocation: Invocation) -> Result<Reply, Error> {
        let arguments: Vec<u64> = serde_json::from_slice(&invocation.payload.body).unwrap();
        match &*invocation.function.id.name {
            "add" => Ok(Payload::json(arguments.iter().sum::<u64>().to_string()).into()),
            "count" => Ok(Reply::new(None, ReplyBody::Stream(Box::pin(Count(1..=arguments[0]))))),
            "max" => Ok(Payload::json(&LARGE[..]).into()),
            _ => std::future::pending().await,
        }
    }

    fn apps(&self) -> Vec<AppStatus> {
        Vec::new()
    }
}

struct Count(std::ops::RangeInclusive<u64>);

impl futures_core::Stream for Count {
    type Item = Result<Payload, Error>;

    fn poll_next(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        Poll::Ready(self.0.next().map(|number| Ok(Payload::json(number.to_string()))))
    }
}
