//! On `fnmesh-join/1`.

use std::{fs, net::UdpSocket, time::SystemTime};

use fnmesh_mesh::identity::{
    Error, Identity, Token, TokenOptions, TokenState, Tokens,
    join::{self, JoinError, PeerAddress},
    told,
};
use proptest::{
    strategy::{Strategy, ValueTree},
    test_runner::TestRunner,
};
use serde_json::{Value, json};

use crate::support::{HOUR, Joiner, Log, Node, ask, ask_raw, request};

const NOT_VALID: &str = "the token is not valid here; use the address of the node that made it, or make a new one";

/// A certificate request.
fn csr() -> Vec<u8> {
    let root = tempfile::tempdir().unwrap();
    Identity::found(&root.path().join("identity"), SystemTime::now()).unwrap().request().unwrap()
}

/// A token with the same id and another secret.
fn guessed(token: &Token) -> Token {
    let mut text = token.to_string();
    let last = text.len() - 2..text.len() - 1;
    let other = if &text[last.clone()] == "A" { "B" } else { "A" };
    text.replace_range(last, other);
    let guessed: Token = text.parse().unwrap();
    assert_eq!(guessed.id(), token.id());
    guessed
}

#[tokio::test]
async fn joiner_becomes_a_peer() {
    let log = Log::new();
    let member = Node::first().serve();
    let joiner = Joiner::new();
    let token = member.token(TokenOptions::default());
    let joined = joiner.join(member.address, &token).await.unwrap();

    assert_eq!(joined.member, member.identity.id());
    assert_eq!(joined.peers, [PeerAddress { node: member.identity.id(), address: member.address }]);
    assert_eq!(joined.identity.mesh(), member.identity.mesh());
    assert!(joined.identity.authority().is_none());
    let loaded = Identity::load(&joiner.directory()).unwrap().unwrap();
    assert_eq!((loaded.id(), loaded.expires()), (joined.identity.id(), joined.identity.expires()));

    let node = Node::with(joiner.root, joined.identity).serve();
    assert_eq!(node.call(&member).await.unwrap(), b"42");
    assert_eq!(member.call(&node).await.unwrap(), b"42");
    assert_eq!((node.called(), member.called()), (42, 42));

    let lines = log.lines();
    let fields = |line: &Value| ["message", "node", "token"].map(|key| line["fields"][key].clone());
    let expected = [json!("node joined"), json!(node.identity.id()), json!(token.id())];
    assert_eq!(lines.iter().map(fields).collect::<Vec<_>>(), [expected]);
}

#[tokio::test]
async fn who_shares_the_authority_admits_others() {
    let first = Node::first().serve();
    let shared = TokenOptions { shares_authority: true, ..TokenOptions::default() };
    let second = Node::joined(&first, shared).await.serve();
    let third = Node::joined(&second, TokenOptions::default()).await;
    assert_eq!(third.call(&first).await.unwrap(), b"42");
}

#[tokio::test]
async fn unknown_token_and_wrong_secret_are_refused_alike() {
    let log = Log::new();
    let member = Node::first().serve();
    let token = member.token(TokenOptions::default());
    // Of another node with the same authority.
    let root = tempfile::tempdir().unwrap();
    let elsewhere = Tokens::load(root.path()).unwrap();
    let authority = member.identity.authority().unwrap();
    let unknown = elsewhere.create(authority, TokenOptions::default(), SystemTime::now()).unwrap();

    assert_eq!(Joiner::new().refused(member.address, &unknown).await, NOT_VALID);
    assert_eq!(log.refusal().await, format!("token {} is not known", unknown.id()));
    assert_eq!(Joiner::new().refused(member.address, &guessed(&token)).await, NOT_VALID);
    assert_eq!(log.refusal().await, format!("the proof for token {} is wrong", token.id()));

    // Neither took the use.
    Joiner::new().join(member.address, &token).await.unwrap();
}

#[tokio::test]
async fn expired_token_is_refused() {
    let log = Log::new();
    let member = Node::first().serve_at(|| SystemTime::now() + HOUR);
    let token = member.token(TokenOptions::default());
    assert_eq!(Joiner::new().refused(member.address, &token).await, "the token has expired; make a new one");
    assert_eq!(log.refusal().await, format!("token {} has expired", token.id()));
}

#[tokio::test]
async fn used_token_is_refused() {
    let log = Log::new();
    let member = Node::first().serve();
    let token = member.token(TokenOptions::default());
    Joiner::new().join(member.address, &token).await.unwrap();
    assert_eq!(Joiner::new().refused(member.address, &token).await, "the token is used up; make a new one");
    assert_eq!(log.refusal().await, format!("token {} is used up", token.id()));
}

#[tokio::test]
async fn revoked_token_is_refused() {
    let log = Log::new();
    let member = Node::first().serve();
    let token = member.token(TokenOptions::default());
    member.tokens.revoke(token.id(), SystemTime::now()).unwrap();
    assert_eq!(Joiner::new().refused(member.address, &token).await, "the token was revoked; make a new one");
    assert_eq!(log.refusal().await, format!("token {} was revoked", token.id()));
}

#[tokio::test]
async fn one_of_many_gets_the_last_use() {
    let member = Node::first().serve();
    let token = member.token(TokenOptions::default());
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..6 {
        let (token, address) = (token.clone(), member.address);
        tasks.spawn(async move { Joiner::new().join(address, &token).await.is_ok() });
    }
    let joined = tasks.join_all().await.into_iter().filter(|joined| *joined).count();
    assert_eq!(joined, 1);
}

#[tokio::test]
async fn member_of_another_mesh_is_refused_by_the_joiner() {
    let log = Log::new();
    let (member, other) = (Node::first().serve(), Node::first());
    let token = other.token(TokenOptions::default());
    let joiner = Joiner::new();
    let result = joiner.join(member.address, &token).await;
    assert!(matches!(result, Err(JoinError::OtherMesh { address }) if address == member.address), "{result:?}");
    assert!(Identity::load(&joiner.directory()).unwrap().is_none());
    let reason = log.refusal().await;
    assert!(reason.contains("the node is of another mesh"), "{reason}");
    assert_eq!(other.tokens.list(SystemTime::now())[0].state, TokenState::Valid);
}

#[tokio::test]
async fn member_without_the_authority_key_cannot_admit() {
    let log = Log::new();
    let first = Node::first().serve();
    let second = Node::joined(&first, TokenOptions::default()).await.serve();
    let token = first.token(TokenOptions::default());
    let told = Joiner::new().refused(second.address, &token).await;
    assert_eq!(told, "this node cannot admit; use the address of one that can");
    assert_eq!(log.refusal().await, "this node cannot admit: it does not have the authority's key");
    Joiner::new().join(first.address, &token).await.unwrap();
}

#[tokio::test]
async fn request_that_its_key_did_not_sign_is_refused_and_takes_no_use() {
    let log = Log::new();
    let member = Node::first().serve();
    let token = member.token(TokenOptions::default());
    let mut csr = csr();
    *csr.last_mut().unwrap() ^= 1;
    let connection = Joiner::new().connect(member.address).await;
    let answer = ask(&connection, request(&token, &connection, &csr).to_string().as_bytes()).await;
    let text = "the certificate request is not signed by its own key";
    assert_eq!(answer["error"], json!({ "code": 2006, "message": text }));
    assert_eq!(log.refusal().await, text);
    Joiner::new().join(member.address, &token).await.unwrap();
}

#[tokio::test]
async fn documented_request_is_granted() {
    let member = Node::first().serve();
    let token = member.token(TokenOptions::default());
    let connection = Joiner::new().connect(member.address).await;
    let answer = ask(&connection, request(&token, &connection, &csr()).to_string().as_bytes()).await;
    assert_eq!(answer["id"], 7);
    let keys: Vec<_> = answer["result"].as_object().unwrap().keys().collect();
    assert_eq!(keys, ["certificate", "ca", "peers"]);
}

#[tokio::test]
async fn proof_is_of_no_use_on_another_connection() {
    let log = Log::new();
    let member = Node::first().serve();
    let token = member.token(TokenOptions::default());
    let joiner = Joiner::new();
    let (one, other) = (joiner.connect(member.address).await, joiner.connect(member.address).await);
    let overheard = request(&token, &one, &csr()).to_string();
    assert_eq!(ask(&other, overheard.as_bytes()).await["error"]["code"], 2001);
    assert_eq!(log.refusal().await, format!("the proof for token {} is wrong", token.id()));
}

#[tokio::test]
async fn guessing_is_answered_with_later() {
    let log = Log::new();
    let member = Node::first().serve();
    let token = member.token(TokenOptions::default());
    for _ in 0..10 {
        assert_eq!(Joiner::new().refused(member.address, &guessed(&token)).await, NOT_VALID);
        log.refusal().await;
    }
    let told = Joiner::new().refused(member.address, &token).await;
    assert_eq!(told, "too many wrong tokens; try again later, in a minute");
    assert_eq!(log.refusal().await, "10 proofs were wrong within a minute");
    // From this address, another token is of no use either.
    let other = member.token(TokenOptions::default());
    assert_eq!(Joiner::new().refused(member.address, &other).await, told);
    assert_eq!(member.tokens.list(SystemTime::now())[0].state, TokenState::Valid);
}

#[tokio::test]
async fn what_is_no_join_request_is_refused() {
    let log = Log::new();
    let member = Node::first().serve();
    let joiner = Joiner::new();
    let cases: [&[u8]; 6] = [
        &[255, 255, 255, 255],
        &[1, 64, 0, 0],
        &[0, 0, 0, 0],
        &[4, 0, 0, 0, b'{'],
        b"GET / HTTP/1.1\r\n\r\n",
        b"\x26\0\0\0{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"x\"}",
    ];
    for bytes in cases {
        let connection = joiner.connect(member.address).await;
        let answer = ask_raw(&connection, bytes).await;
        assert_eq!(answer["error"]["code"], -32600, "{bytes:?}: {answer}");
        log.refusal().await;
    }
    joiner.join(member.address, &member.token(TokenOptions::default())).await.unwrap();
}

#[tokio::test]
async fn garbage_is_answered_with_an_error() {
    let log = Log::new();
    let member = Node::first().serve();
    let joiner = Joiner::new();
    let mut runner = TestRunner::deterministic();
    let garbage = proptest::collection::vec(proptest::prelude::any::<u8>(), 0..300);
    for _ in 0..50 {
        let bytes = garbage.new_tree(&mut runner).unwrap().current();
        let connection = joiner.connect(member.address).await;
        let answer = ask(&connection, &bytes).await;
        assert_eq!((&answer["id"], &answer["error"]["code"]), (&json!(null), &json!(-32600)), "{bytes:?}");
        log.refusal().await;
    }
}

#[tokio::test]
async fn joiner_that_does_not_finish_is_given_up() {
    let log = Log::new();
    let member = Node::first().serve();
    let connection = Joiner::new().connect(member.address).await;
    let (mut send, _recv) = connection.open_bi().await.unwrap();
    send.write_all(&[200, 0, 0, 0, b'{']).await.unwrap();
    // The clock jumps to the next timer when there is nothing else to do.
    tokio::time::pause();
    let closed = connection.closed().await;
    assert!(told(&closed).unwrap().contains("longer than 5 s"), "{closed}");
    assert!(log.refusal().await.contains("longer than 5 s"));
}

#[tokio::test]
async fn silent_address_is_given_up() {
    let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
    let token = Node::first().token(TokenOptions::default());
    tokio::time::pause();
    let result = Joiner::new().join(silent.local_addr().unwrap(), &token).await;
    assert!(matches!(result, Err(JoinError::Unreachable { .. })), "{result:?}");
}

#[tokio::test]
async fn node_with_an_identity_takes_no_use() {
    let member = Node::first().serve();
    let token = member.token(TokenOptions::default());
    let joiner = Joiner::new();
    let before = Identity::found(&joiner.directory(), SystemTime::now()).unwrap().id();
    let result = joiner.join(member.address, &token).await;
    assert!(matches!(result, Err(JoinError::Identity(Error::Exists { .. }))), "{result:?}");
    assert_eq!(Identity::load(&joiner.directory()).unwrap().unwrap().id(), before);
    assert_eq!(member.tokens.list(SystemTime::now())[0].state, TokenState::Valid);
}

#[tokio::test]
async fn directory_that_cannot_be_written_takes_no_use() {
    let member = Node::first().serve();
    let token = member.token(TokenOptions::default());
    let joiner = Joiner::new();
    let file = joiner.root.path().join("file");
    fs::write(&file, "").unwrap();
    let result = Box::pin(join::join(&joiner.endpoint, member.address, &token, &file.join("identity"))).await;
    assert!(matches!(result, Err(JoinError::Identity(_))), "{result:?}");
    assert_eq!(member.tokens.list(SystemTime::now())[0].state, TokenState::Valid);
}
