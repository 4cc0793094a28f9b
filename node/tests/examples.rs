//! Every directory in `examples/`, served by one node and called over HTTP as its `call.json` says.
//!
//! `examples/README.md` documents the two files of each example.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::{HeaderMap, Request, client::conn::http1};
use hyper_util::rt::TokioIo;
use serde::{Deserialize, Deserializer, de::DeserializeOwned};
use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt as _, BufReader, Lines},
    net::TcpStream,
    process::{Child, ChildStdout, Command},
    time::timeout,
};

/// The first run installs third-party packages.
const START_TIMEOUT: Duration = Duration::from_secs(180);
const CALL_TIMEOUT: Duration = Duration::from_secs(30);
const STOP_TIMEOUT: Duration = Duration::from_secs(30);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    name: String,
    request: Call,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Call {
    method: String,
    path: String,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    #[serde(default, deserialize_with = "present")]
    body: Option<Value>,
    body_text: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Expected {
    status: u16,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    #[serde(default, deserialize_with = "present")]
    json: Option<Value>,
    text: Option<String>,
    includes: Option<Value>,
}

/// Tells `null` from a member that is not there.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(deserializer).map(Some)
}

struct Example {
    directory: PathBuf,
    cases: Vec<(Case, Expected)>,
}

struct Answer {
    status: u16,
    headers: HeaderMap,
    body: Bytes,
}

#[tokio::test]
async fn examples_answer_as_expected() {
    let examples = examples();
    let mut node = Node::start(&examples).await;
    let mut failures = Vec::new();
    for example in &examples {
        let app = example.directory.file_name().unwrap_or_default().to_string_lossy();
        for (case, expected) in &example.cases {
            let outcome = match call(&node.address, &case.request).await {
                Ok(answer) => expected.check(&answer),
                Err(error) => Err(error),
            };
            if let Err(problem) = outcome {
                let Call { method, path, .. } = &case.request;
                failures.push(format!("{app}: {}: {method} {path}\n    {problem}", case.name));
            }
        }
    }
    node.stop().await;
    assert!(failures.is_empty(), "{} cases failed:\n{}", failures.len(), failures.join("\n"));
}

fn examples() -> Vec<Example> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples");
    let entries = fs::read_dir(&root).unwrap_or_else(|error| panic!("{}: {error}", root.display()));
    let mut directories: Vec<_> =
        entries.map(|entry| entry.expect("the directory can be read").path()).filter(|path| path.is_dir()).collect();
    directories.sort();
    assert!(!directories.is_empty(), "{} holds no example", root.display());
    directories.into_iter().map(Example::read).collect()
}

impl Example {
    fn read(directory: PathBuf) -> Self {
        let calls: Vec<Case> = read_json(&directory.join("call.json"));
        let expected: Vec<Expected> = read_json(&directory.join("expected.json"));
        let shown = directory.display();
        assert!(!calls.is_empty(), "{shown}/call.json has no case");
        assert_eq!(calls.len(), expected.len(), "{shown}: call.json and expected.json differ in length");
        for (case, expected) in calls.iter().zip(&expected) {
            let bodies = [expected.json.is_some(), expected.text.is_some(), expected.includes.is_some()];
            let bodies = bodies.into_iter().filter(|there| *there).count();
            assert_eq!(bodies, 1, "{shown}: {}: expects one of json, text and includes", case.name);
            let both = case.request.body.is_some() && case.request.body_text.is_some();
            assert!(!both, "{shown}: {}: body and body_text exclude each other", case.name);
        }
        Self { directory, cases: calls.into_iter().zip(expected).collect() }
    }
}

fn read_json<T: DeserializeOwned>(path: &Path) -> T {
    let text = fs::read(path).unwrap_or_else(|error| panic!("every example needs {}: {error}", path.display()));
    serde_json::from_slice(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

impl Expected {
    fn check(&self, answer: &Answer) -> Result<(), String> {
        let body = String::from_utf8_lossy(&answer.body);
        if answer.status != self.status {
            return Err(format!("status {} in place of {}: {body}", answer.status, self.status));
        }
        for (name, value) in &self.headers {
            let found = answer.headers.get(name).map(|found| String::from_utf8_lossy(found.as_bytes()));
            if found.as_deref() != Some(value) {
                return Err(format!("header {name}: {found:?} in place of {value:?}"));
            }
        }
        let parsed = || serde_json::from_str::<Value>(&body).map_err(|error| format!("no JSON ({error}): {body}"));
        let matches = match (&self.json, &self.text, &self.includes) {
            (Some(value), ..) => parsed()? == *value,
            (_, Some(text), _) => body == *text,
            (.., Some(Value::String(part))) => body.contains(part),
            (.., Some(part)) => includes(&parsed()?, part),
            (None, None, None) => false,
        };
        if matches { Ok(()) } else { Err(format!("answered {body}")) }
    }
}

fn includes(whole: &Value, part: &Value) -> bool {
    match (whole, part) {
        (Value::Object(whole), Value::Object(part)) => {
            part.iter().all(|(name, part)| whole.get(name).is_some_and(|whole| includes(whole, part)))
        }
        (Value::String(whole), Value::String(part)) => whole.contains(part),
        (whole, part) => whole == part,
    }
}

async fn call(address: &str, call: &Call) -> Result<Answer, String> {
    timeout(CALL_TIMEOUT, exchange(address, call))
        .await
        .map_err(|_| format!("no answer within {CALL_TIMEOUT:?}"))?
        .map_err(|error| error.to_string())
}

async fn exchange(address: &str, call: &Call) -> anyhow::Result<Answer> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(TcpStream::connect(address).await?)).await?;
    let connection = tokio::spawn(connection);
    let mut request = Request::builder().method(&*call.method).uri(&call.path).header("host", address);
    for (name, value) in &call.headers {
        request = request.header(name, value);
    }
    if call.body.is_some() && !call.headers.contains_key("content-type") {
        request = request.header("content-type", "application/json");
    }
    let body = call.body.as_ref().map(Value::to_string).or(call.body_text.clone()).unwrap_or_default();
    let (head, body) = sender.send_request(request.body(Full::new(Bytes::from(body)))?).await?.into_parts();
    let body = body.collect().await?.to_bytes();
    drop(sender);
    connection.await??;
    Ok(Answer { status: head.status.as_u16(), headers: head.headers, body })
}

struct Node {
    process: Child,
    events: Lines<BufReader<ChildStdout>>,
    address: String,
}

impl Node {
    /// Starts the binary with every example and waits until each is loaded or has failed.
    async fn start(examples: &[Example]) -> Self {
        let mut process = Command::new(env!("CARGO_BIN_EXE_fnmesh"))
            .args(["serve", "--json", "--listen", "127.0.0.1:0", "--cache"])
            .arg(Path::new(env!("CARGO_TARGET_TMPDIR")).join("examples"))
            .args(examples.iter().map(|example| &example.directory))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("fnmesh is built with its tests");
        let events = BufReader::new(process.stdout.take().expect("stdout is piped")).lines();
        let mut node = Self { process, events, address: String::new() };
        let listening = node.event("listening").await;
        let address = listening["url"].as_str().and_then(|url| url.strip_prefix("http://"));
        node.address = address.unwrap_or_else(|| panic!("no url: {listening}")).to_owned();
        node.event("settled").await;
        node
    }

    /// The next event of this name.
    async fn event(&mut self, name: &str) -> Value {
        let mut seen = String::new();
        let found = timeout(START_TIMEOUT, async {
            while let Some(line) = self.events.next_line().await.expect("stdout is UTF-8") {
                let event: Value = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"));
                if event["event"] == name {
                    return Some(event);
                }
                seen = seen.clone() + &line + "\n";
            }
            None
        });
        match found.await {
            Ok(Some(event)) => event,
            Ok(None) => panic!("the node ended before the event {name:?}; its events:\n{seen}"),
            Err(_) => panic!("no event {name:?} within {START_TIMEOUT:?}; the node's events:\n{seen}"),
        }
    }

    /// Asks the node to stop and waits until it has, cleanly.
    async fn stop(&mut self) {
        let pid = self.process.id().expect("the node still runs").to_string();
        let asked = Command::new("kill").arg(pid).status().await.expect("kill is there");
        assert!(asked.success());
        let ended = timeout(STOP_TIMEOUT, async {
            while let Ok(Some(_)) = self.events.next_line().await {}
            self.process.wait().await
        });
        let status = ended.await.unwrap_or_else(|_| panic!("the node did not stop within {STOP_TIMEOUT:?}"));
        let status = status.expect("the node can be waited for");
        assert!(status.success(), "the node stopped with {status}");
    }
}
