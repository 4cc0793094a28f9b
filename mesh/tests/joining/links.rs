//! On `fnmesh/1`.

use std::time::SystemTime;

use fnmesh_mesh::identity::{ALPN_CALL, Admitted, DenyList, Identity, Invalid, Refusal, TokenOptions, admit, told};
use quinn::{ConnectionError, VarInt};
use rustls_pki_types::CertificateDer;

use crate::support::{HOUR, Log, Node, call, call_with_stolen, careless_call, careless_call_with, careless_client};

/// Gives a node a certificate that ended 10 days ago.
fn expire(node: &Node, authority: &Node) {
    let then = SystemTime::now() - 40 * 24 * HOUR;
    let request = node.identity.request().unwrap();
    let leaf = authority.identity.authority().unwrap().sign(&request, node.identity.id(), then).unwrap();
    node.identity.renewed(&leaf, then).unwrap();
}

/// Why the connection was closed by the application at the other side.
fn closed(result: Result<Vec<u8>, ConnectionError>) -> (VarInt, String) {
    match result.unwrap_err() {
        ConnectionError::ApplicationClosed(close) => {
            (close.error_code, String::from_utf8_lossy(&close.reason).into_owned())
        }
        other => panic!("closed otherwise: {other:?}"),
    }
}

#[tokio::test]
async fn without_a_certificate_not_a_byte_is_read() {
    let log = Log::new();
    let member = Node::first().serve();
    let refusal = Refusal::NoCertificate;
    assert_eq!(closed(careless_call(None, &member).await), (refusal.code(), refusal.to_string()));
    assert_eq!(log.refusal().await, refusal.to_string());
    assert_eq!(*member.refusals.lock().unwrap(), [refusal]);
    assert_eq!(member.called(), 0);
}

#[tokio::test]
async fn certificate_of_another_mesh_is_refused_by_the_member() {
    let log = Log::new();
    let (member, other) = (Node::first().serve(), Node::first());
    let error = careless_call(Some(&other.root), &member).await.unwrap_err();
    assert_eq!(told(&error), Some(Invalid::OtherMesh.to_string()));
    assert!(log.refusal().await.contains(&Invalid::OtherMesh.to_string()));
    assert_eq!(member.called(), 0);
}

#[tokio::test]
async fn member_of_another_mesh_is_refused_by_the_node() {
    let log = Log::new();
    let (member, other) = (Node::first().serve(), Node::first());
    let error = other.call(&member).await.unwrap_err();
    assert!(matches!(error, ConnectionError::TransportError(_)), "{error:?}");
    assert_eq!(told(&error), Some(Invalid::OtherMesh.to_string()));
    assert!(log.refusal().await.contains(&Invalid::OtherMesh.to_string()));
}

#[tokio::test]
async fn another_node_than_expected_is_refused() {
    let log = Log::new();
    let first = Node::first().serve();
    let second = Node::joined(&first, TokenOptions::default()).await;
    let expected = second.identity.id().to_string();
    let config = second.identity.client_config();
    let error = second.endpoint.connect_with(config, first.address, &expected).unwrap().await.unwrap_err();
    let text = Invalid::WrongNode { expected, found: first.identity.id() }.to_string();
    assert_eq!(told(&error), Some(text.clone()));
    assert!(log.refusal().await.contains(&text));
}

#[tokio::test]
async fn expired_certificate_is_refused() {
    let log = Log::new();
    let first = Node::first().serve();
    let second = Node::joined(&first, TokenOptions::default()).await.serve();
    expire(&second, &first);
    let text = Invalid::Expired { since: second.identity.expires() }.to_string();

    let error = second.call(&first).await.unwrap_err();
    assert!(matches!(error, ConnectionError::ConnectionClosed(_)), "{error:?}");
    assert_eq!(told(&error), Some(text.clone()));
    assert!(log.refusal().await.contains(&text));

    let error = first.call(&second).await.unwrap_err();
    assert!(matches!(error, ConnectionError::TransportError(_)), "{error:?}");
    assert_eq!(told(&error), Some(text.clone()));
    assert!(log.refusal().await.contains(&text));
    assert_eq!((first.called(), second.called()), (0, 0));
}

#[tokio::test]
async fn certificate_without_its_key_is_refused() {
    let log = Log::new();
    let first = Node::first().serve();
    let (second, other) = (Node::joined(&first, TokenOptions::default()).await, Node::first());
    assert_eq!(careless_call(Some(&second.root), &first).await.unwrap(), b"42");
    let error = call_with_stolen(&second.root, &other.root, &first).await;
    assert!(matches!(error, ConnectionError::ConnectionClosed(_)), "{error:?}");
    assert!(log.refusal().await.contains("BadSignature"));
    assert_eq!(first.called(), 42);
}

#[tokio::test]
async fn denied_node_is_refused_in_both_directions() {
    let log = Log::new();
    let first = Node::first().serve();
    let second = Node::joined(&first, TokenOptions::default()).await.serve();
    let third = Node::joined(&first, TokenOptions::default()).await;
    assert_eq!(second.call(&first).await.unwrap(), b"42");
    let refusal = Refusal::Denied(second.identity.id());

    assert!(first.denied.deny(second.identity.id(), SystemTime::now()).unwrap());
    assert_eq!(closed(second.call(&first).await), (refusal.code(), refusal.to_string()));
    assert_eq!(log.refusal().await, refusal.to_string());

    // Others hear of it, and do not dial it any more.
    let new = third.denied.merge(&first.denied.snapshot(), SystemTime::now()).0;
    assert_eq!(new, [second.identity.id()]);
    let (config, name) = (third.identity.client_config(), second.identity.id().to_string());
    let connection = third.endpoint.connect_with(config, second.address, &name).unwrap().await.unwrap();
    assert_eq!(admit(&connection, &third.identity, &third.denied), Err(refusal));
    assert_eq!(third.call(&first).await.unwrap(), b"42");
}

#[tokio::test]
async fn connections_for_calls_only_are_checked_as_links_are() {
    let log = Log::new();
    let member = Node::first().serve();
    let (second, other) = (Node::joined(&member, TokenOptions::default()).await, Node::first());
    let call = async |identity| careless_call_with(careless_client(identity, ALPN_CALL), &member).await;

    let refusal = Refusal::NoCertificate;
    assert_eq!(closed(call(None).await), (refusal.code(), refusal.to_string()));
    assert_eq!(log.refusal().await, refusal.to_string());
    let error = call(Some(&other.root)).await.unwrap_err();
    assert_eq!(told(&error), Some(Invalid::OtherMesh.to_string()));
    assert_eq!(member.called(), 0);
    assert_eq!(call(Some(&second.root)).await.unwrap(), b"42");

    let refusal = Refusal::Denied(second.identity.id());
    assert!(member.denied.deny(second.identity.id(), SystemTime::now()).unwrap());
    assert_eq!(closed(call(Some(&second.root)).await), (refusal.code(), refusal.to_string()));
    assert_eq!(member.called(), 42);
}

#[tokio::test]
async fn link_to_a_node_that_gets_denied_can_be_closed() {
    let first = Node::first().serve();
    let second = Node::joined(&first, TokenOptions::default()).await;
    let (config, name) = (second.identity.client_config(), first.identity.id().to_string());
    let connection = second.endpoint.connect_with(config, first.address, &name).unwrap().await.unwrap();
    assert_eq!(admit(&connection, &second.identity, &second.denied), Ok(Admitted::Peer(first.identity.id())));
    call(&connection).await.unwrap();
    second.denied.deny(first.identity.id(), SystemTime::now()).unwrap();
    let refusal = admit(&connection, &second.identity, &second.denied).unwrap_err();
    refusal.close(&connection);
    assert!(matches!(connection.closed().await, ConnectionError::LocallyClosed));
}

#[tokio::test]
async fn copy_of_a_node_is_refused() {
    let log = Log::new();
    let member = Node::first().serve();
    let refusal = Refusal::OwnIdentity(member.identity.id());
    assert_eq!(closed(member.call(&member).await), (refusal.code(), refusal.to_string()));
    assert_eq!(log.refusal().await, refusal.to_string());
}

#[tokio::test]
async fn renewed_certificates_are_shown_without_a_restart() {
    let first = Node::first().serve();
    let second = Node::joined(&first, TokenOptions::default()).await.serve();
    expire(&second, &first);
    assert!(second.call(&first).await.is_err() && first.call(&second).await.is_err());

    let now = SystemTime::now();
    let authority = first.identity.authority().unwrap();
    let leaf = authority.sign(&second.identity.request().unwrap(), second.identity.id(), now).unwrap();
    second.identity.renewed(&leaf, now).unwrap();
    assert_eq!(second.call(&first).await.unwrap(), b"42");
    assert_eq!(first.call(&second).await.unwrap(), b"42");

    let (config, name) = (first.identity.client_config(), second.identity.id().to_string());
    let connection = first.endpoint.connect_with(config, second.address, &name).unwrap().await.unwrap();
    let chain = connection.peer_identity().unwrap().downcast::<Vec<CertificateDer<'static>>>().unwrap();
    assert_eq!(chain[0], leaf);
}

#[tokio::test]
async fn other_protocol_is_refused() {
    let log = Log::new();
    let member = Node::first().serve();
    let endpoint = quinn::Endpoint::client("127.0.0.1:0".parse().unwrap()).unwrap();
    let config = careless_client(None, b"h3");
    let error = endpoint.connect_with(config, member.address, "anybody").unwrap().await.unwrap_err();
    assert!(matches!(error, ConnectionError::ConnectionClosed(_)), "{error:?}");
    assert!(log.refusal().await.starts_with("the handshake failed"));
}

#[tokio::test]
async fn identity_survives_a_restart() {
    let first = Node::first().serve();
    let second = Node::joined(&first, TokenOptions::default()).await;
    let Node { root, identity, .. } = second;
    let id = identity.id();
    drop(identity);
    let loaded = Identity::load(&root.path().join("identity")).unwrap().unwrap();
    assert_eq!(loaded.id(), id);
    let again = Node::with(root, loaded);
    assert_eq!(again.call(&first).await.unwrap(), b"42");
    assert!(!DenyList::load(&again.root.path().join("identity")).unwrap().contains(id));
}
