//! What is deployed becomes known to all nodes, and its bundles can be fetched from them.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "support/nodes.rs"]
mod nodes;

use std::{fs, io, sync::Arc};

use fnmesh_mesh::{
    Ask, Mesh,
    deployments::{Change, Content, Replicas},
};
use nodes::{block_on, joined, sees, start, wait_until};

/// A node that has a bundle of 3 MB, and another.
fn pair() -> (tempfile::TempDir, [Mesh; 2], Content, Vec<u8>) {
    let directory = tempfile::tempdir().unwrap();
    let first = start(directory.path(), "first", None);
    let second = joined(directory.path(), "second", &first, false);
    wait_until(|| sees(&first, 2) && sees(&second, 2), "two nodes");
    let bytes: Vec<u8> = (0..3_000_000_u32).map(|number| ((number * 7) >> 5) as u8).collect();
    let (bundle, bundle_bytes) =
        first.handle().bundles().add(|out| io::copy(&mut &bytes[..], out).map(|_| ())).unwrap();
    let content = Content { hash: [1; 32], bundle, bundle_bytes };
    (directory, [first, second], content, bytes)
}

fn deploy(mesh: &Mesh, content: Option<Content>) -> u64 {
    mesh.handle().change("shop", Change { content, replicas: Replicas::Auto }).unwrap().0.version
}

fn version(mesh: &Mesh) -> Option<u64> {
    let registry = mesh.handle().deployments().snapshot();
    registry.deployed().find(|(deployment, _)| *deployment.app == *"shop").map(|(deployment, _)| deployment.version)
}

#[test]
fn deployments_reach_those_that_are_there_and_those_that_come() {
    let (directory, [first, second], content, _) = pair();
    assert_eq!(deploy(&first, Some(content.clone())), 1);
    wait_until(|| version(&second) == Some(1), "the first version at the second node");
    assert_eq!(deploy(&second, Some(Content { hash: [2; 32], ..content })), 2);
    let third = joined(directory.path(), "third", &first, false);
    wait_until(|| version(&first) == Some(2) && version(&third) == Some(2), "the second version at all nodes");
    deploy(&third, None);
    wait_until(|| [&first, &second, &third].iter().all(|mesh| version(mesh).is_none()), "the removal at all nodes");
    second.leave();
    let again = start(directory.path(), "second", None);
    assert_eq!(again.handle().deployments().snapshot().get("shop").unwrap().revision, 3);
}

#[test]
fn bundle_is_fetched_and_an_attempt_that_was_cut_off_goes_on() {
    let (directory, [first, second], content, bytes) = pair();
    let (from, to) = (first.handle().node(), second.handle());
    let part = to.bundles().path(&content.bundle).with_extension("part");
    fs::write(&part, &bytes[..1_000_000]).unwrap();
    let mut seen = Vec::new();
    let path = block_on(to.fetch_bundle(&content, &[from], |done| seen.push(done))).unwrap();
    assert_eq!(fs::read(&path).unwrap(), bytes);
    assert!(seen[0] > 1_000_000 && seen.is_sorted() && seen.last() == Some(&3_000_000), "{seen:?}");
    assert!(!part.exists());
    drop(directory);
}

#[test]
fn bundle_that_is_not_what_its_hash_says_is_thrown_away() {
    let (_directory, [first, second], content, bytes) = pair();
    let (from, to) = (first.handle().node(), second.handle());
    let original = first.handle().bundles().path(&content.bundle);
    fs::write(&original, [&bytes[..2_999_999], b"!"].concat()).unwrap();
    let error = block_on(to.fetch_bundle(&content, &[from], |_| {})).unwrap_err().to_string();
    assert!(error.contains(&from.to_string()) && error.contains("not the bundle with this hash"), "{error}");
    assert!(!to.bundles().path(&content.bundle).exists());
    fs::write(&original, &bytes[..10]).unwrap();
    let error = block_on(to.fetch_bundle(&content, &[from], |_| {})).unwrap_err().to_string();
    assert!(error.contains("10 bytes there and should have 3000000"), "{error}");
    fs::remove_file(&original).unwrap();
    let error = block_on(to.fetch_bundle(&content, &[from], |_| {})).unwrap_err().to_string();
    assert!(error.contains("is here"), "{error}");
    assert_eq!(fs::read_dir(original.parent().unwrap()).unwrap().count(), 0);
}

#[test]
fn asks_of_a_peer_arrive() {
    let (_directory, [mut first, second], ..) = pair();
    let (from, to) = (second.handle().node(), first.handle().node());
    block_on(second.handle().ask_to_host(to, Arc::from("shop"))).unwrap();
    block_on(second.handle().ask_to_drain(to, true)).unwrap();
    let mut asks = first.asks().unwrap();
    assert_eq!(asks.try_recv().unwrap(), Ask::Host { app: "shop".into(), peer: from });
    assert_eq!(asks.try_recv().unwrap(), Ask::Drain { on: true, peer: from });
    let error = block_on(second.handle().ask_to_drain(from, true)).unwrap_err();
    assert!(error.contains("no link"), "{error}");
}

#[test]
fn asks_that_wait_are_bounded() {
    let (_directory, [mut first, second], ..) = pair();
    let to = first.handle().node();
    let ask = || block_on(second.handle().ask_to_drain(to, true));
    (0..1_024).for_each(|_| ask().unwrap());
    let error = ask().unwrap_err();
    assert!(error.contains("1024 requests of peers wait for this node already"), "{error}");
    first.asks().unwrap().try_recv().unwrap();
    let error = ask().unwrap_err();
    assert!(!error.contains("1024"), "nobody listens any more: {error}");
}
