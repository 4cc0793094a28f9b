//! The node's control socket, `DATA/control.sock`: what only the node's own user may ask for.
//!
//! One request a connection, a line of JSON each way: `{"key": ..., "method": ..., "params": {...}}`, answered by
//! `{"result": ...}` or `{"error": "..."}`. What takes a while says how it goes on in lines before that one,
//! `{"step": "..."}`. The key is the content of `DATA/control.key`: workers run as the node's
//! user and may connect to any socket of its, but Landlock keeps them from reading its files.

use std::{
    fs,
    io::{self, Write as _},
    num::NonZeroU32,
    os::unix::{
        self,
        fs::{OpenOptionsExt as _, PermissionsExt as _},
    },
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use fnmesh_mesh::{
    Handle, Member, NodeId,
    deployments::Replicas,
    identity::{Token, TokenId, TokenOptions, TokenState, TokenStatus},
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::{UnixListener, UnixStream, unix::WriteHalf},
    sync::mpsc,
    task::{self, JoinSet},
    time::{sleep, timeout},
};

use crate::hosting::{Command, Order, Reply};

/// Where requests go that the control thread carries out.
pub(crate) type Commands = mpsc::UnboundedSender<Command>;

/// How long a request may take to be sent, and to be carried out where nothing else bounds it.
const PATIENCE: Duration = Duration::from_secs(10);
/// The longest request.
const MAX_BYTES: u64 = 64 * 1024;

/// What can be asked for.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "method", content = "params")]
pub(crate) enum Request {
    /// A new join token; answered by its id, its text and the address to join by.
    #[serde(rename = "token.create")]
    CreateToken {
        /// How long it is valid.
        expires_in_s: u64,
        /// How many nodes may join with it; any number if left out.
        uses: Option<NonZeroU32>,
        /// Whether they can admit others.
        shares_authority: bool,
    },
    /// The join tokens of this node.
    #[serde(rename = "token.list")]
    ListTokens,
    /// The node with this id or name is no longer of the mesh; answered by its id.
    #[serde(rename = "nodes.remove")]
    RemoveNode {
        /// Which one.
        node: String,
    },
    /// The mesh is to serve the app in this directory; answered by its version and who serves it.
    #[serde(rename = "deploy")]
    Deploy {
        /// Absolute.
        directory: PathBuf,
        /// In place of the app's own.
        name: Option<String>,
        /// As before if left out.
        replicas: Option<Replicas>,
    },
    /// A deployed app is not to be served any more; answered by its last version.
    #[serde(rename = "remove")]
    Remove {
        /// Its name.
        app: String,
    },
    /// A node is to give its calls to others, or to take them again; answered by the apps it serves nevertheless.
    #[serde(rename = "drain")]
    Drain {
        /// Its id or name; the node itself if left out.
        node: Option<String>,
        /// Whether to drain.
        on: bool,
    },
    /// No more joins with this one; answered by whether it is known.
    #[serde(rename = "token.revoke")]
    RevokeToken {
        /// Which one.
        id: String,
    },
}

/// A request with the proof that it comes from who can read the node's files.
#[derive(Debug, Serialize, Deserialize)]
struct Signed<R> {
    key: String,
    #[serde(flatten)]
    request: R,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Answer {
    Step(String),
    Result(Value),
    Error(String),
}

/// Where the socket of the node with this data is.
pub(crate) fn path(data: &Path) -> PathBuf {
    data.join("control.sock")
}

fn key_path(data: &Path) -> PathBuf {
    data.join("control.key")
}

/// Answers requests until the returned set is dropped. The caller is the only node that uses `data`.
///
/// # Errors
/// When the socket cannot be made.
pub(crate) fn serve(data: &Path, mesh: Handle, commands: Commands) -> io::Result<JoinSet<()>> {
    let path = path(data);
    // Left by a node that was killed.
    remove(&path)?;
    let key: Arc<str> = hex(&mesh.identity().derived_key("control socket")).into();
    write_secret(&key_path(data), &key)?;
    let listener = unix::net::UnixListener::bind(&path)?;
    // The directory has mode 0700: nobody else got in meanwhile.
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
    listener.set_nonblocking(true)?;
    let listener = UnixListener::from_std(listener)?;
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let mut requests = JoinSet::new();
        loop {
            while requests.try_join_next().is_some() {}
            match listener.accept().await {
                Ok((stream, _)) => {
                    drop(requests.spawn(answer(stream, mesh.clone(), commands.clone(), Arc::clone(&key))));
                }
                Err(error) => {
                    tracing::warn!(target: "fnmesh::node", %error, "the control socket takes no connection");
                    sleep(Duration::from_secs(1)).await;
                }
            }
        }
    });
    Ok(tasks)
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn write_secret(path: &Path, secret: &str) -> io::Result<()> {
    remove(path)?;
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(secret.as_bytes())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Takes as long for a wrong key whose first bytes are right.
fn is_same(a: &str, b: &str) -> bool {
    a.len() == b.len() && a.bytes().zip(b.bytes()).fold(0, |differs, (a, b)| differs | (a ^ b)) == 0
}

async fn answer(mut stream: UnixStream, mesh: Handle, commands: Commands, key: Arc<str>) {
    let (reader, mut writer) = stream.split();
    let mut line = String::new();
    let read = timeout(PATIENCE, BufReader::new(reader.take(MAX_BYTES)).read_line(&mut line)).await;
    // Who asks has gone, or does not ask.
    let Ok(Ok(_)) = read else { return };
    let answer = match serde_json::from_str::<Signed<Request>>(&line) {
        Ok(signed) if !is_same(&signed.key, &key) => {
            tracing::warn!(target: "fnmesh::node", "a request at the control socket has the wrong key");
            Err("the key is not that of this node's control.key".to_owned())
        }
        Ok(Signed { request, .. }) => act(request, mesh, &commands, &mut writer).await,
        Err(error) => Err(format!("this node does not understand the request: {error}")),
    };
    let _ = say(&mut writer, &answer.map_or_else(Answer::Error, Answer::Result)).await;
}

async fn say(writer: &mut WriteHalf<'_>, answer: &Answer) -> io::Result<()> {
    let line = format!("{}\n", json!(answer));
    timeout(PATIENCE, writer.write_all(line.as_bytes())).await.unwrap_or_else(|late| Err(late.into()))
}

/// Has the control thread do it, and passes on how it goes. It goes on if nobody listens any more.
async fn carry_out(order: Order, commands: &Commands, writer: &mut WriteHalf<'_>) -> Result<Value, String> {
    let (replies, mut heard) = mpsc::unbounded_channel();
    let _ = commands.send(Command { order, replies });
    while let Some(reply) = heard.recv().await {
        match reply {
            Reply::Step(step) => {
                let _ = say(writer, &Answer::Step(step)).await;
            }
            Reply::End(ended) => return ended,
        }
    }
    Err("the node stops".to_owned())
}

async fn act(request: Request, mesh: Handle, commands: &Commands, writer: &mut WriteHalf<'_>) -> Result<Value, String> {
    let now = SystemTime::now();
    match request {
        Request::CreateToken { expires_in_s, uses, shares_authority } => {
            let options = TokenOptions { expires_in: Duration::from_secs(expires_in_s), uses, shares_authority };
            blocking(move || {
                let token = create_token(&mesh, options)?;
                Ok(json!({ "id": token.id(), "token": token.to_string(), "address": mesh.address() }))
            })
            .await
        }
        Request::ListTokens => blocking(move || Ok(mesh.tokens().list(now).iter().map(describe).collect())).await,
        Request::RevokeToken { id } => blocking(move || revoke(&mesh, &id, now)).await,
        Request::RemoveNode { node } => {
            let node = find(&mesh, &node)?;
            if node == mesh.node() {
                return Err("a node does not remove itself; ask another one, or stop it to let it leave".to_owned());
            }
            blocking(move || {
                mesh.remove(node).map_err(|error| format!("{node} is removed until a restart only: {error}"))?;
                Ok(json!(node))
            })
            .await
        }
        Request::Deploy { directory, name, replicas } => {
            carry_out(Order::Deploy { directory, name, replicas }, commands, writer).await
        }
        Request::Remove { app } => carry_out(Order::Remove { app }, commands, writer).await,
        Request::Drain { node, on } => {
            let node = node.map_or(Ok(mesh.node()), |node| find(&mesh, &node))?;
            carry_out(Order::Drain { node, on }, commands, writer).await
        }
    }
}

/// Does what waits for the disk.
async fn blocking(work: impl FnOnce() -> Result<Value, String> + Send + 'static) -> Result<Value, String> {
    match timeout(PATIENCE, task::spawn_blocking(work)).await {
        Ok(done) => done.unwrap_or_else(|error| Err(error.to_string())),
        Err(_) => Err(format!("the node does not get it done within {PATIENCE:?}")),
    }
}

fn revoke(mesh: &Handle, id: &str, now: SystemTime) -> Result<Value, String> {
    let id: TokenId = id.parse().map_err(|error| format!("{error}"))?;
    let revoked = mesh.tokens().revoke(id, now).map_err(|error| error.to_string())?;
    if revoked { Ok(Value::Null) } else { Err(format!("there is no token {id}; `fnmesh token ls` lists them")) }
}

/// The node with this id, known or not, or with this name.
fn find(mesh: &Handle, node: &str) -> Result<NodeId, String> {
    let members = mesh.members();
    let is_named = |member: &&Member| member.record.as_ref().is_some_and(|record| *record.profile.name == *node);
    let mut named = members.iter().filter(is_named);
    let found = match (node.parse(), named.next(), named.next()) {
        (Ok(id), _, _) => id,
        (_, Some(member), None) => member.node,
        (_, Some(_), Some(_)) => {
            return Err(format!("several nodes are named {node:?}; use the id `fnmesh nodes` shows"));
        }
        (Err(_), None, _) => return Err(format!("there is no node {node:?}; `fnmesh nodes` lists them")),
    };
    Ok(found)
}

/// A new token of this node. Blocks on the disk.
pub(crate) fn create_token(mesh: &Handle, options: TokenOptions) -> Result<Token, String> {
    let authority = mesh.identity().authority().ok_or_else(|| {
        "this node cannot admit others: it does not have the authority's key. Make the token on the node that made \
         the mesh, or on one that joined with a token of `fnmesh token create --share-authority`"
            .to_owned()
    })?;
    let created = mesh.tokens().create(authority, options, SystemTime::now());
    created.map_err(|error| error.to_string())
}

fn describe(token: &TokenStatus) -> Value {
    let state = match token.state {
        TokenState::Valid => "valid",
        TokenState::Expired => "expired",
        TokenState::UsedUp => "used up",
        TokenState::Revoked => "revoked",
    };
    json!({
        "id": token.id.to_string(),
        "state": state,
        "expires_unix_s": token.expires.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()),
        "uses_left": token.uses_left,
        "shares_authority": token.shares_authority,
    })
}

/// Asks the node with this data; the result, or what the node or the attempt says. `tell` hears the steps.
pub(crate) async fn ask(data: &Path, request: Request, mut tell: impl FnMut(&str)) -> Result<Value, AskError> {
    let path = path(data);
    let unreachable =
        |error: io::Error| AskError::Unreachable(format!("no node answers at {}: {error}", path.display()));
    let connect = async {
        let mut stream = UnixStream::connect(&path).await?;
        let key = fs::read_to_string(key_path(data))?;
        stream.write_all(format!("{}\n", json!(Signed { key, request })).as_bytes()).await?;
        Ok(stream)
    };
    let stream = timeout(PATIENCE, connect).await.unwrap_or_else(|late| Err(late.into())).map_err(unreachable)?;
    let mut lines = BufReader::new(stream).lines();
    // The node bounds what it does.
    while let Some(line) = lines.next_line().await.map_err(unreachable)? {
        match serde_json::from_str(&line) {
            Ok(Answer::Step(step)) => tell(&step),
            Ok(Answer::Result(result)) => return Ok(result),
            Ok(Answer::Error(error)) => return Err(AskError::Refused(error)),
            Err(error) => return Err(AskError::Refused(format!("the answer cannot be read: {error}"))),
        }
    }
    Err(AskError::Refused("the node ended before it answered".to_owned()))
}

/// Why a request has no result.
#[derive(Debug)]
pub(crate) enum AskError {
    /// Nobody listens.
    Unreachable(String),
    /// The node said no.
    Refused(String),
}
