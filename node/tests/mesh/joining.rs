use std::{
    io::{Read as _, Write as _},
    iter,
    net::UdpSocket,
    os::unix::net::UnixStream,
    path::Path,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::{
    cluster::Cluster,
    support::{self, Apps, PATIENCE, Running, fnmesh, output},
};

/// What a node that cannot join says.
fn refused(data: &Path, options: &[&str]) -> String {
    let mut command = fnmesh();
    command.args(["serve", "--listen", "127.0.0.1:0", "--mesh", "127.0.0.1:0", "--data"]).arg(data).args(options);
    let output = output(&mut command);
    assert!(!output.status.success());
    support::stderr(&output).to_owned()
}

#[test]
fn who_may_not_join_is_told_why() {
    let mut cluster = Cluster::new(&[]);
    let data = cluster.data(9);
    let (address, used) = cluster.token(&[]);
    cluster.nodes.push(cluster.start(1, &[], &["--join", &address, "--token", &used]));
    let says = |token: &str| refused(&data, &["--join", &address, "--token", token]);
    assert!(says(&used).contains("the token is used up"), "{}", says(&used));
    cluster.nodes[0].wait_for_stderr("is used up");

    let (_, other) = cluster.token(&["--expires", "0s"]);
    assert!(says(&other).contains("the token has expired"), "{}", says(&other));

    let created = cluster.token_command("create", &["--json"]);
    let created: Value = serde_json::from_slice(&created.stdout).unwrap();
    let (id, revoked) = (created["id"].as_str().unwrap(), created["token"].as_str().unwrap());
    assert!(cluster.token_command("revoke", &[id]).status.success());
    let listed = cluster.token_command("ls", &["--json"]);
    let listed: Value = serde_json::from_slice(&listed.stdout).unwrap();
    let states = listed.as_array().unwrap().iter().filter(|token| token["id"] == id);
    assert_eq!(states.map(|token| &token["state"]).collect::<Vec<_>>(), ["revoked"]);
    assert!(says(revoked).contains("the token was revoked"), "{}", says(revoked));

    assert!(says("fnm1.nonsense").contains("--token"), "{}", says("fnm1.nonsense"));
    let none = refused(&data, &["--join", &address]);
    assert!(none.contains("fnmesh token create"), "{none}");

    let stranger = Cluster::new(&[]);
    let (_, foreign) = stranger.token(&[]);
    assert!(says(&foreign).contains("is not of the mesh that the token is for"), "{}", says(&foreign));
    assert!(!data.join("mesh").exists(), "a refused node has left an identity");
}

#[test]
fn signal_ends_a_node_that_is_joining_at_once() {
    let cluster = Cluster::new(&[]);
    let (_, token) = cluster.token(&[]);
    // It is asked to let the node join, and says nothing.
    let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
    silent.set_read_timeout(Some(PATIENCE)).unwrap();
    let address = silent.local_addr().unwrap().to_string();
    for (signal, name, code) in [(Signal::INT, "SIGINT", 130), (Signal::TERM, "SIGTERM", 143)] {
        let data = cluster.data(9);
        let mut command = fnmesh();
        command.args(["serve", "--listen", "127.0.0.1:0", "--mesh", "127.0.0.1:0", "--join", &address]);
        let mut node = Running::spawn(command.args(["--token", &token, "--data"]).arg(&data));
        let (_, from) = silent.recv_from(&mut [0; 2_000]).unwrap();
        let signalled = Instant::now();
        kill_process(Pid::from_child(&node.0), signal).unwrap();
        assert_eq!(node.ended().code(), Some(code));
        assert!(signalled.elapsed() < Duration::from_secs(5), "it took {:?}", signalled.elapsed());
        let mut said = String::new();
        node.0.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        let expected = format!("{name}: ended before this node had joined the mesh by {address}");
        assert!(said.contains(&expected), "{said}");
        assert!(!data.join("mesh").exists(), "it has left an identity");
        // What it has sent before it ended is not of the next one.
        silent.set_nonblocking(true).unwrap();
        while silent.recv_from(&mut [0; 2_000]).is_ok_and(|(_, sender)| sender == from) {}
        silent.set_nonblocking(false).unwrap();
    }
}

#[test]
fn only_who_has_the_key_admits() {
    let mut cluster = Cluster::new(&[]);
    cluster.join(&[]);
    let own = |index: usize| output(fnmesh().args(["token", "create", "--data"]).arg(cluster.data(index)));
    let refused = own(1);
    assert_eq!(refused.status.code(), Some(1));
    assert!(support::stderr(&refused).contains("cannot admit"), "{}", support::stderr(&refused));
    let (address, token) = cluster.token(&["--share-authority"]);
    let third = cluster.start(2, &[], &["--join", &address, "--token", &token]);
    assert!(own(2).status.success());
    drop(third);
    let unreachable = own(2);
    assert_eq!(unreachable.status.code(), Some(3), "{}", support::stderr(&unreachable));
}

#[test]
fn data_belongs_to_one_node() {
    let cluster = Cluster::new(&[]);
    let second = refused(&cluster.data(0), &[]);
    assert!(second.contains("another node uses this directory"), "{second}");
    cluster.nodes[0].get("/_/health");
}

#[test]
fn restarted_node_finds_its_mesh() {
    let apps = crate::shop();
    let mut cluster = Cluster::new(&[]);
    let index = cluster.join(&[apps.path("shop")]);
    cluster.wait_for_routes(0, "shop", 1);
    let known = cluster.data(index).join("mesh/members.json");
    support::wait_until(|| known.exists(), || "the members are not written".to_owned());
    let before = cluster.nodes[index].get("/_/nodes")[0]["node"].clone();
    cluster.nodes[index].signal(Signal::KILL);
    cluster.nodes[index].ended();
    cluster.nodes[index] = cluster.start(index, &[apps.path("shop")], &[]);
    assert_eq!(cluster.nodes[index].get("/_/nodes")[0]["node"], before);
    // It listens at another port now.
    cluster.wait_for_routes(0, "shop", 1);
    let call = || support::post(&cluster.nodes[0].url, "shop/add", "[1]", support::PATIENCE).unwrap();
    support::wait_until(|| call() == (200, "2".to_owned()), || format!("{:?}", call()));
}

#[test]
fn removed_node_is_cut_off_by_every_member() {
    let apps = crate::shop();
    let mut cluster = Cluster::new(&[]);
    cluster.join(&[]);
    let index = cluster.join(&[apps.path("shop")]);
    cluster.wait_for_routes(0, "shop", 1);
    cluster.wait_for_routes(1, "shop", 1);
    let remove = |node: &str| output(fnmesh().args(["nodes", "rm", node, "--data"]).arg(cluster.data(0)));
    let own = remove("n0");
    assert!(support::stderr(&own).contains("does not remove itself"), "{}", support::stderr(&own));
    let unknown = remove("n7");
    assert!(support::stderr(&unknown).contains("there is no node \"n7\""), "{}", support::stderr(&unknown));
    let removed = remove(&format!("n{index}"));
    assert!(removed.status.success(), "{}", support::stderr(&removed));
    for member in [0, 1] {
        cluster.wait_for_routes(member, "shop", 0);
        cluster.nodes[member].wait_for_stderr("node is removed from the mesh");
    }
    cluster.nodes[index].wait_for_stderr("was removed from this mesh: remove its identity and join again");
    let (status, body) = support::post(&cluster.nodes[1].url, "shop/add", "[1]", support::PATIENCE).unwrap();
    assert_eq!(status, 404, "{body}");
    // A restart changes nothing for it, nor for who removed it.
    cluster.nodes[0].signal(Signal::TERM);
    cluster.nodes[0].ended();
    cluster.nodes[0] = cluster.start(0, &[], &[]);
    cluster.nodes[index].signal(Signal::KILL);
    cluster.nodes[index].ended();
    cluster.nodes[index] = cluster.start(index, &[apps.path("shop")], &[]);
    cluster.nodes[index].wait_for_stderr("was removed from this mesh");
    let nodes = || cluster.nodes[0].get("/_/nodes");
    let reachable = |nodes: &Value| nodes.as_array().unwrap().iter().filter(|node| node["reachable"] == true).count();
    support::wait_until(|| reachable(&nodes()) == 2, || format!("two nodes: {}", nodes()));
}

#[test]
fn functions_cannot_use_the_control_socket() {
    let apps = Apps::new(&[(
        "spy/spy.py",
        "import socket\n\
         def read(path: str) -> str:\n    return open(path).read()\n\
         def ask(path: str, line: str) -> str:\n\
         \x20   with socket.socket(socket.AF_UNIX) as peer:\n\
         \x20       peer.connect(path)\n        peer.sendall(line.encode())\n        return peer.recv(10000).decode()\n",
    )]);
    let cluster = Cluster::new(&[apps.path("spy")]);
    let (node, data) = (&cluster.nodes[0], cluster.data(0));
    let socket = data.join("control.sock");
    let line =
        r#"{"key":"0","method":"token.create","params":{"expires_in_s":60,"uses":null,"shares_authority":true}}"#;
    let asked = serde_json::json!([socket, format!("{line}\n")]).to_string();
    let (_, answer) = support::post(&node.url, "spy/ask", &asked, support::PATIENCE).unwrap();
    assert!(!answer.contains("fnm1."), "{answer}");
    node.wait_for_stderr("wrong key");
    if node.get("/_/health")["sandbox"]["landlock"]["on"] == true {
        for file in ["control.key", "mesh/ca.key", "mesh/node.key", "mesh/tokens.json"] {
            let path = serde_json::json!([data.join(file)]).to_string();
            let (status, answer) = support::post(&node.url, "spy/read", &path, support::PATIENCE).unwrap();
            assert!(status == 500 && !answer.contains("KEY"), "{file}: {status} {answer}");
        }
    }
}

#[test]
fn connections_to_the_control_socket_are_bounded() {
    let cluster = Cluster::new(&[]);
    let connect = || UnixStream::connect(cluster.data(0).join("control.sock")).unwrap();
    let idle: Vec<_> = iter::repeat_with(connect).take(64).collect();
    let mut asks = connect();
    asks.write_all(b"{}\n").unwrap();
    asks.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    let early = asks.read(&mut [0]);
    assert!(early.is_err(), "it was read though 64 others have not asked yet: {early:?}");
    drop(idle);
    asks.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut answer = String::new();
    asks.read_to_string(&mut answer).unwrap();
    assert!(answer.contains("key"), "{answer}");
}
