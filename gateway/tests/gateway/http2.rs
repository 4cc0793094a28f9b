use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{Request, Response, client::conn::http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;

use crate::support::{Node, SOON, block_on, start};

type Sender = http2::SendRequest<Full<Bytes>>;

async fn connect(node: &Node) -> Sender {
    let stream = TcpStream::connect(node.server.address()).await.unwrap();
    let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::task::spawn_local(connection);
    sender
}

async fn post(sender: &mut Sender, path: &str, body: &str) -> (Response<()>, Bytes) {
    ask(sender, "POST", path, body).await
}

async fn ask(sender: &mut Sender, method: &str, path: &str, body: &str) -> (Response<()>, Bytes) {
    let request = Request::builder().method(method).uri(format!("http://t{path}")).body(Full::from(body.to_owned()));
    let (head, body) = sender.send_request(request.unwrap()).await.unwrap().into_parts();
    (Response::from_parts(head, ()), body.collect().await.unwrap().to_bytes())
}

#[test]
fn prior_knowledge_is_spoken() {
    let node = start();
    block_on(async {
        let mut sender = connect(&node).await;
        let (head, body) = post(&mut sender, "/t/echo", "[1]").await;
        assert_eq!((head.status().as_u16(), body), (200, Bytes::from("[1]")));
        let (_, body) = post(&mut sender, "/t/stream", r#"{"items":[1,2]}"#).await;
        assert_eq!(body, "1\n2\n");
        let large = format!("\"{}\"", "x".repeat(2_000_000));
        assert_eq!(post(&mut sender, "/t/echo", &large).await.1, large);
        let (head, _) = post(&mut sender, "/t/echo", &"x".repeat(5_000_000)).await;
        assert_eq!(head.status(), 413);
        let (head, body) = ask(&mut sender, "HEAD", "/t/text", "").await;
        assert_eq!((head.headers()["content-length"].to_str().unwrap(), body.len()), ("6", 0));
        let (_, body) = ask(&mut sender, "PUT", "/t/http/x", "").await;
        assert!(String::from_utf8_lossy(&body).contains("\"url\":\"http://t/t/http/x\""), "{body:?}");
    });
}

#[test]
fn calls_run_side_by_side_on_one_connection() {
    let node = start();
    block_on(async {
        let mut sender = connect(&node).await;
        let mut second = sender.clone();
        let slow = tokio::task::spawn_local(async move { post(&mut second, "/t/slow", "").await.1 });
        assert_eq!(post(&mut sender, "/t/echo", "1").await.1, "1");
        node.wait_for("started slow");
        node.release.add_permits(1);
        assert_eq!(slow.await.unwrap(), "\"done\"");
    });
}

#[test]
fn a_reset_stream_cancels_its_call() {
    let node = start();
    block_on(async {
        let mut sender = connect(&node).await;
        let mut second = sender.clone();
        let pending = tokio::task::spawn_local(async move { post(&mut second, "/t/pending", "").await });
        // Answered behind the first, which has started then.
        post(&mut sender, "/t/echo", "1").await;
        pending.abort();
        post(&mut sender, "/t/echo", "1").await;
        tokio::task::yield_now().await;
        node.wait_for("started pending");
        node.wait_for("dropped pending");
    });
}

#[test]
fn drain_finishes_streams_in_flight() {
    let node = start();
    block_on(async {
        let mut sender = connect(&node).await;
        let mut second = sender.clone();
        let slow = tokio::task::spawn_local(async move { post(&mut second, "/t/slow", "").await.1 });
        post(&mut sender, "/t/echo", "1").await;
        node.wait_for("started slow");
        let release = node.release.clone();
        let drain = tokio::task::spawn_local(node.server.drain(SOON));
        tokio::task::yield_now().await;
        release.add_permits(1);
        assert_eq!(slow.await.unwrap(), "\"done\"");
        drain.await.unwrap();
    });
}
