//! Whole nodes of a mesh in this process, without functions.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "support/nodes.rs"]
mod nodes;

use std::{
    net::{Ipv4Addr, UdpSocket},
    sync::Arc,
    thread,
    time::{Duration, SystemTime},
};

use fnmesh_invoke::{AppState, AppStatus, Error, Function, Invocation, Invoke, Reply};
use fnmesh_mesh::{
    Dispatch, Mesh,
    identity::Identity,
    membership::{App, Load, Profile},
};
use nodes::{block_on, joined, sees, start, wait_until};

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

/// Serves `shop`, with no function of the wanted name.
struct Shop;

impl Invoke for Shop {
    async fn resolve(&self, app: &str, name: &str) -> Result<Arc<Function>, Error> {
        let nearest = if app == "shop" { vec!["shop/add".to_owned()] } else { Vec::new() };
        Err(Error::UnknownFunction { function: format!("{app}/{name}"), nearest })
    }

    async fn call(&self, _: Invocation) -> Result<Reply, Error> {
        Err(Error::internal("nothing runs here"))
    }

    fn apps(&self) -> Vec<AppStatus> {
        vec![AppStatus {
            name: "shop".to_owned(),
            directory: "/apps/shop".to_owned(),
            version: "0".repeat(12),
            hash: [0; 32],
            state: AppState::Ready,
            pools: Vec::new(),
            functions: Vec::new(),
        }]
    }
}

#[test]
fn names_like_a_mistyped_one_are_of_its_app_where_that_is_known() {
    let directory = tempfile::tempdir().unwrap();
    let first = start(directory.path(), "first", None);
    let second = joined(directory.path(), "second", &first, false);
    let app = |name: &str| App {
        name: name.into(),
        version: 1,
        hash: [1; 32],
        functions: vec!["add".into(), "total".into()],
        load: Load::default(),
    };
    let profile = Profile { apps: vec![app("shops"), app("text")], ..Profile::default() };
    second.handle().announce(profile);
    let routes = first.handle().routes();
    wait_until(|| ["shops", "text"].iter().all(|app| routes.load().app(app).is_some()), "routes");
    let nearest = |app: &str, name: &str| {
        let dispatch = Dispatch::new(Shop, Some(first.handle().clone()));
        match block_on(dispatch.resolve(app, name)) {
            Err(Error::UnknownFunction { nearest, .. }) => nearest,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(nearest("shop", "ad"), ["shop/add"], "this node serves it");
    let found = nearest("text", "ad");
    assert!(found[0] == "text/add" && found.iter().all(|name| name.starts_with("text/")), "{found:?}");
    assert_eq!(nearest("shps", "ad")[0], "shops/add", "nobody serves it");
}

#[test]
fn clients_that_do_not_show_who_they_are_keep_nobody_out() {
    let directory = tempfile::tempdir().unwrap();
    let first = start(directory.path(), "first", None);
    let stranger = Identity::found(&directory.path().join("stranger"), SystemTime::now()).unwrap();
    // What clients send reaches the node, and its answers nobody.
    let [way, from] = [(); 2].map(|()| UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap());
    from.connect(first.handle().address()).unwrap();
    from.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let (address, forward) = (way.local_addr().unwrap(), from.try_clone().unwrap());
    thread::spawn(move || {
        let mut datagram = [0; 2_000];
        while let Ok((length, _)) = way.recv_from(&mut datagram) {
            let _ = forward.send(&datagram[..length]);
        }
    });
    let name = first.handle().node().to_string();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let dialling = runtime.block_on(async {
        let clients = quinn::Endpoint::client((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
        let dial = |_| clients.connect_with(stranger.client_config(), address, &name).unwrap();
        let dialling: Vec<_> = (0..200).map(dial).collect();
        // The first byte of a packet that asks to show the address (RFC 9000, 17.2.5).
        let asked = move || {
            let mut datagram = [0; 2_000];
            while from.recv(&mut datagram).unwrap() == 0 || datagram[0] & 0xf0 != 0xf0 {}
        };
        tokio::task::spawn_blocking(asked).await.unwrap();
        dialling
    });
    let second = joined(directory.path(), "second", &first, false);
    wait_until(|| sees(&first, 2) && sees(&second, 2), "two nodes");
    drop(dialling);
}
