use std::{
    net::TcpStream,
    num::NonZeroUsize,
    sync::{Arc, mpsc::channel},
    time::Duration,
};

use fnmesh_gateway::{Config, Server};
use fnmesh_invoke::AppState;
use tokio::sync::Semaphore;

use crate::{
    fake::Fake,
    support::{Node, SOON, block_on, post, start, start_with},
};

/// One thread, so that all connections learn of the drain at once.
fn start_one() -> Node {
    start_with(AppState::Ready, |config| config.threads = NonZeroUsize::MIN)
}

#[test]
fn calls_in_flight_are_finished() {
    let node = start_one();
    let address = node.server.address();
    let (mut busy, mut idle, mut fresh) = (node.connect(), node.connect(), node.connect());
    idle.send(post("/t/echo", "", "1"));
    idle.answer();
    busy.send(post("/t/slow", "", ""));
    node.wait_for("started slow");
    let server = node.server;
    let draining = std::thread::spawn(move || block_on(server.drain(SOON)));
    idle.assert_closed();
    fresh.assert_closed();
    assert!(!draining.is_finished());
    node.release.add_permits(1);
    let answer = busy.answer();
    assert_eq!((answer.text(), answer.header("connection")), ("\"done\"", "close"));
    busy.assert_closed();
    draining.join().unwrap();
    assert!(TcpStream::connect(address).is_err());
}

#[test]
fn requests_that_came_before_are_answered() {
    let node = start();
    let mut clients: Vec<_> = (0..20).map(|_| node.connect()).collect();
    for client in &mut clients {
        client.send(post("/t/echo", "", "1"));
    }
    block_on(node.server.drain(SOON));
    for mut client in clients {
        assert_eq!(client.answer().text(), "1");
    }
}

#[test]
fn calls_that_do_not_end_are_dropped_at_the_limit() {
    let node = start();
    let mut client = node.connect();
    client.send(post("/t/pending", "", ""));
    node.wait_for("started pending");
    block_on(node.server.drain(Duration::from_millis(50)));
    assert_eq!(node.events.recv_timeout(SOON).as_deref(), Ok("dropped pending"));
    client.assert_closed();
}

#[test]
fn dropping_the_server_drops_its_connections() {
    let node = start();
    let mut client = node.connect();
    client.send(post("/t/pending", "", ""));
    node.wait_for("started pending");
    drop(node.server);
    client.assert_closed();
}

#[test]
fn an_address_in_use_is_an_error() {
    let node = start();
    let config = Config { address: node.server.address(), ..Config::default() };
    let idle = |_thread| Fake {
        functions: Arc::default(),
        events: channel().0,
        release: Arc::new(Semaphore::new(0)),
        state: AppState::Ready,
    };
    let error = Server::start(config, Node::control(), idle).err().unwrap();
    assert_eq!(error.kind(), std::io::ErrorKind::AddrInUse);
}
