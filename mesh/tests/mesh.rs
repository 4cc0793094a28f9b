//! Whole nodes of a mesh in this process, without functions.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::Path,
    rc::Rc,
    sync::Arc,
    thread,
    time::{Duration, Instant, SystemTime},
};

use fnmesh_invoke::{AppStatus, Error, Function, Invocation, Invoke, Reply};
use fnmesh_mesh::{
    Config, Join, Mesh, identity::TokenOptions, membership, membership::Profile, transport::quic::Congestion,
};

const SUSPICION: Duration = Duration::from_secs(120);

struct Nothing;

impl Invoke for Nothing {
    async fn resolve(&self, app: &str, name: &str) -> Result<Arc<Function>, Error> {
        Err(Error::UnknownFunction { function: format!("{app}/{name}"), nearest: Vec::new() })
    }

    async fn call(&self, _: Invocation) -> Result<Reply, Error> {
        Err(Error::internal("nothing is served here"))
    }

    fn apps(&self) -> Vec<AppStatus> {
        Vec::new()
    }
}

fn start(directory: &Path, name: &str, join: Option<Join>) -> Mesh {
    let config = Config {
        address: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
        advertise: None,
        name: name.to_owned(),
        zone: String::new(),
        directory: directory.join(name),
        join,
        congestion: Congestion::Cubic,
        // Who is silent is suspected for longer than any test waits: only who says goodbye is gone.
        membership: membership::Config { suspicion: SUSPICION, ..membership::Config::default() },
    };
    Mesh::start(config, Profile::default(), || Rc::new(Nothing)).unwrap()
}

fn joined(directory: &Path, name: &str, member: &Mesh, shares_authority: bool) -> Mesh {
    let handle = member.handle();
    let options = TokenOptions { shares_authority, ..TokenOptions::default() };
    let authority = handle.identity().authority().unwrap();
    let token = handle.tokens().create(authority, options, SystemTime::now()).unwrap();
    start(directory, name, Some(Join { address: handle.address(), token: Some(token) }))
}

fn wait_until(is_so: impl Fn() -> bool, what: &str) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !is_so() {
        assert!(Instant::now() < deadline, "waited in vain: {what}");
        thread::sleep(Duration::from_millis(10));
    }
}

fn sees(mesh: &Mesh, count: usize) -> bool {
    mesh.handle().members().iter().filter(|member| member.is_reachable && member.record.is_some()).count() == count
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

#[test]
fn five_nodes_that_join_at_once_see_each_other() {
    let directory = tempfile::tempdir().unwrap();
    let first = start(directory.path(), "first", None);
    let others: Vec<_> = thread::scope(|scope| {
        let joining: Vec<_> = (1..5)
            .map(|n| {
                scope.spawn({
                    let (d, f) = (directory.path(), &first);
                    move || joined(d, &format!("n{n}"), f, false)
                })
            })
            .collect();
        joining.into_iter().map(|node| node.join().unwrap()).collect()
    });
    let all = || std::iter::once(&first).chain(&others);
    wait_until(|| all().all(|node| sees(node, 5)), "five nodes");
    let names = |node: &Mesh| {
        let members = node.handle().members();
        let mut names: Vec<_> = members.iter().map(|it| it.record.as_ref().unwrap().profile.name.to_string()).collect();
        names.sort();
        names
    };
    assert!(all().all(|node| names(node) == ["first", "n1", "n2", "n3", "n4"]));
}

#[test]
fn who_leaves_is_gone_at_once() {
    let directory = tempfile::tempdir().unwrap();
    let first = start(directory.path(), "first", None);
    let second = joined(directory.path(), "second", &first, false);
    let third = joined(directory.path(), "third", &first, false);
    wait_until(|| sees(&first, 3) && sees(&third, 3), "three nodes");
    second.leave();
    wait_until(|| first.handle().members().len() == 2 && third.handle().members().len() == 2, "two nodes");
}

#[test]
fn certificate_is_renewed_by_a_peer_with_the_key() {
    let directory = tempfile::tempdir().unwrap();
    let first = start(directory.path(), "first", None);
    let second = joined(directory.path(), "second", &first, false);
    wait_until(|| sees(&second, 2), "two nodes");
    for node in [&first, &second] {
        let before = node.handle().identity().expires();
        // Certificates tell time in seconds.
        wait_until(
            || {
                block_on(node.handle().renew()).unwrap();
                node.handle().identity().expires() > before
            },
            "a certificate that ends later",
        );
    }
    // It is good for new links.
    let third = joined(directory.path(), "third", &first, true);
    wait_until(|| sees(&second, 3) && sees(&third, 3), "three nodes");
}

#[test]
fn no_certificate_without_the_key() {
    let directory = tempfile::tempdir().unwrap();
    let first = start(directory.path(), "first", None);
    let second = joined(directory.path(), "second", &first, false);
    wait_until(|| sees(&second, 2), "two nodes");
    first.leave();
    let error = block_on(second.handle().renew()).unwrap_err();
    assert!(error.contains("no node that has the authority's key signs it"), "{error}");
}
