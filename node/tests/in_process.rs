//! Nodes started by a program that links them.

use std::{
    net::{SocketAddr, TcpStream},
    sync::{Arc, mpsc},
    thread,
    time::{Duration, Instant},
};

use fnmesh_node::{Config, Event, Node, StartError};

fn config(address: &str) -> Config {
    let address = address.parse().expect("an address");
    Config { gateway: fnmesh_gateway::Config { address, ..Default::default() }, ..Config::default() }
}

fn start() -> (Node, mpsc::Receiver<Event>) {
    let (sender, events) = mpsc::channel();
    let observer = Arc::new(move |event: &Event| drop(sender.send(event.clone())));
    (Node::start(config("127.0.0.1:0"), observer).expect("a free port"), events)
}

fn is_open(address: SocketAddr) -> bool {
    TcpStream::connect_timeout(&address, Duration::from_secs(5)).is_ok()
}

#[test]
fn two_nodes_live_side_by_side() {
    let ((first, _), (second, _)) = (start(), start());
    assert_ne!(first.address(), second.address());
    assert!(is_open(first.address()) && is_open(second.address()));
    assert_eq!(first.shutdown().unwrap(), 0);
    assert!(is_open(second.address()));
}

#[test]
fn shutdown_frees_the_address_and_says_so() {
    let (node, events) = start();
    let address = node.address();
    assert_eq!(node.shutdown().unwrap(), 0);
    assert!(!is_open(address));
    assert!(events.iter().any(|event| matches!(event, Event::Stopped { cut_off: 0 })));
}

#[test]
fn dropped_node_frees_the_address() {
    let (node, _events) = start();
    let address = node.address();
    drop(node);
    let deadline = Instant::now() + Duration::from_secs(10);
    while is_open(address) {
        assert!(Instant::now() < deadline, "{address} is still open");
        thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn taken_address_is_an_error() {
    let (node, _events) = start();
    let error = Node::start(config(&node.address().to_string()), Arc::new(|_| {})).unwrap_err();
    assert!(matches!(error, StartError::Bind { .. }), "{error}");
}
