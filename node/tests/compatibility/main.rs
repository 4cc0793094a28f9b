//! The version before this one and this one in one mesh. The former is built from the history of this repository: by
//! `make previous`, from the commit in the file `PREVIOUS`.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "../mesh/cluster.rs"]
mod cluster;
#[path = "../support/mod.rs"]
mod support;

mod calls;
mod deployments;
mod fleet;

use std::{sync::RwLock, thread, time::Duration};

use calls::calls;
use cluster::while_calling;
use fleet::{Fleet, foreign};
use support::Program;

const CALLERS: usize = 3;
/// So that nodes of a debug build on a small machine are busy, but not so busy that they are taken for dead.
const PAUSE: Duration = Duration::from_millis(10);

/// Nodes of the version before become nodes of this one, one after the other, while all of them are called.
#[test]
fn upgrade_of_all_nodes_loses_no_call() {
    let previous = fleet::previous();
    let mut fleet = Fleet::of([&previous; 3]);
    fleet.check();
    let calls: Vec<_> = calls().into_iter().filter(|call| !call.is_large()).collect();
    let urls = fleet.cluster.urls();
    // Who calls a node holds its lock for reading; who restarts it, for writing.
    let open = [(); 3].map(RwLock::new);
    let call = |caller: usize, turn: usize| {
        let mut entries = (caller + turn..).map(|number| number % open.len());
        let (entry, _open) = entries.find_map(|entry| Some((entry, open[entry].try_read().ok()?))).unwrap();
        calls[turn % calls.len()].check(&urls[entry], foreign(entry));
        thread::sleep(PAUSE);
    };
    while_calling(CALLERS, call, || {
        for (index, entry) in open.iter().enumerate() {
            let closed = entry.write().unwrap();
            eprintln!("node {index} is upgraded");
            fleet.replace(index, &Program::present());
            eprintln!("node {index} is back");
            drop(closed);
            fleet.check();
        }
    });
}

#[test]
fn previous_node_joins_present_ones_and_comes_back() {
    let (previous, present) = (fleet::previous(), Program::present());
    let mut fleet = Fleet::of([&present, &present, &previous]);
    fleet.check();
    fleet.replace(2, &previous);
    fleet.check();
}

#[test]
fn present_node_joins_previous_ones_and_comes_back() {
    let (previous, present) = (fleet::previous(), Program::present());
    let mut fleet = Fleet::of([&previous, &previous, &present]);
    fleet.check();
    fleet.replace(2, &present);
    fleet.check();
}

/// An upgrade that is taken back: the version before reads what this one has written.
#[test]
fn present_nodes_become_previous_ones_again() {
    let (previous, present) = (fleet::previous(), Program::present());
    let mut fleet = Fleet::of([&present; 3]);
    for index in [2, 0] {
        fleet.replace(index, &previous);
        fleet.check();
    }
}
