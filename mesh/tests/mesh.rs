//! Whole nodes of a mesh in this process, without functions.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "support/nodes.rs"]
mod nodes;

use std::thread;

use fnmesh_mesh::Mesh;
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
