//! Nodes started by a program that links them.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::{
    fmt,
    net::{SocketAddr, TcpStream},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use fnmesh_mesh::{Join, membership, transport::quic::Congestion};
use fnmesh_node::{Config, Event, Node, StartError};
use tracing::{
    Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::{
    Layer,
    layer::{Context, SubscriberExt as _},
    util::SubscriberInitExt as _,
};

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

/// A thread panics that logs that it has found another node, once.
struct Fault(AtomicBool);

impl<S: Subscriber> Layer<S> for Fault {
    fn on_event(&self, event: &tracing::Event<'_>, _: Context<'_, S>) {
        struct Message(bool);
        impl Visit for Message {
            fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
                self.0 |= field.name() == "message" && format!("{value:?}") == "node is up";
            }
        }
        let mut message = Message(false);
        event.record(&mut message);
        assert!(!message.0 || self.0.swap(true, SeqCst), "injected fault");
    }
}

/// A node of a mesh; where to join by it, and with which token.
fn meshed(data: &Path, join: Option<Join>) -> (Node, Option<Join>) {
    let mesh = fnmesh_mesh::Config {
        address: "127.0.0.1:0".parse().unwrap(),
        advertise: None,
        name: String::new(),
        zone: String::new(),
        directory: data.to_owned(),
        join,
        congestion: Congestion::Cubic,
        membership: membership::Config::default(),
    };
    let (sender, events) = mpsc::channel();
    let observer = Arc::new(move |event: &Event| drop(sender.send(event.clone())));
    let node = Node::start(Config { mesh: Some(mesh), ..config("127.0.0.1:0") }, observer).unwrap();
    let join = events.iter().find_map(|event| match event {
        Event::Meshed { address, join, .. } => Some(
            join.map(|arguments| Join { address, token: Some(arguments.rsplit_once(' ').unwrap().1.parse().unwrap()) }),
        ),
        _ => None,
    });
    (node, join.unwrap())
}

#[test]
fn node_whose_part_in_the_mesh_fails_stops_and_says_so() {
    tracing_subscriber::registry().with(Fault(AtomicBool::new(false))).init();
    let data = tempfile::tempdir().unwrap();
    let (first, join) = meshed(&data.path().join("n1"), None);
    let (second, _) = meshed(&data.path().join("n2"), join);
    let nodes = [first, second];
    let deadline = Instant::now() + Duration::from_secs(20);
    while nodes.iter().all(|node| is_open(node.address())) {
        assert!(Instant::now() < deadline, "both go on");
        thread::sleep(Duration::from_millis(10));
    }
    let (failed, others): (Vec<_>, Vec<_>) = nodes.into_iter().partition(|node| !is_open(node.address()));
    assert_eq!((failed.len(), others.len()), (1, 1), "the other one goes on");
    for node in failed {
        let error = node.shutdown().unwrap_err();
        assert!(matches!(error, StartError::MeshLost), "{error}");
    }
    for node in others {
        assert_eq!(node.shutdown().unwrap(), 0);
    }
}
