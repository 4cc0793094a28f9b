//! The side of the node.

use std::{
    fs,
    io::{self, Write as _},
    os::unix::{
        self,
        fs::{OpenOptionsExt as _, PermissionsExt as _},
    },
    path::Path,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use fnmesh_mesh::{
    Handle, Member, NodeId,
    identity::{Token, TokenId, TokenOptions, TokenState, TokenStatus},
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::{UnixListener, UnixStream, unix::WriteHalf},
    sync::mpsc,
    task::{self, JoinSet},
    time::{sleep, timeout},
};

use super::{Answer, PATIENCE, Request, Signed, key_path, path};
use crate::hosting::{Command, Order, Reply};

/// Where requests go that the control thread carries out.
type Commands = mpsc::UnboundedSender<Command>;

/// The longest request.
const MAX_BYTES: u64 = 64 * 1024;
/// How many are answered at a time: workers, which run as the node's user, could use up its descriptors here.
const MAX_REQUESTS: usize = 64;

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
            if requests.len() >= MAX_REQUESTS {
                requests.join_next().await;
            }
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
