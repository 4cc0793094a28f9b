use std::{
    thread,
    time::{Duration, Instant},
};

use rustix::process::Signal;

use crate::{
    cluster::{Cluster, under_load, while_calling},
    shop,
    support::{PATIENCE, post, request},
};

/// Bytes of a body that takes its link several round trips.
const LARGE: usize = 3_000_000;

/// A node without apps, and two that serve the same one.
fn three(apps: &crate::Apps) -> Cluster {
    let mut cluster = Cluster::new(&[]);
    for _ in 0..2 {
        cluster.join(&[apps.path("shop")]);
    }
    cluster.wait_for_routes(0, "shop", 2);
    cluster
}

#[test]
fn call_on_a_killed_peer_has_an_unknown_outcome() {
    let apps = shop();
    let mut cluster = three(&apps);
    let url = cluster.nodes[0].url.clone();
    let call = thread::spawn(move || post(&url, "shop/wait", "[5]", PATIENCE).unwrap());
    let busy = cluster.busy(&[1, 2]);
    let killed = Instant::now();
    cluster.nodes[busy].signal(Signal::KILL);
    let (status, body) = call.join().unwrap();
    assert!(status == 502 && body.contains("outcome unknown: shop/wait was sent to peer"), "{status} {body}");
    assert!(killed.elapsed() < Duration::from_secs(5), "{:?}", killed.elapsed());
    cluster.nodes[busy].ended();
    cluster.wait_for_routes(0, "shop", 1);
}

#[test]
fn idempotent_call_on_a_killed_peer_runs_elsewhere() {
    let apps = shop();
    let cluster = three(&apps);
    let url = cluster.nodes[0].url.clone();
    let call = thread::spawn(move || {
        let headers = "Idempotency-Key: one\r\nContent-Type: application/json\r\n";
        request(&url, "POST /shop/wait", headers, "[2]", PATIENCE).unwrap()
    });
    cluster.nodes[cluster.busy(&[1, 2])].signal(Signal::KILL);
    let answer = call.join().unwrap();
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("\"waited\""), "{answer}");
}

#[test]
fn dead_and_paused_nodes_lose_their_routes() {
    let apps = shop();
    for signal in [Signal::KILL, Signal::STOP] {
        let mut cluster = three(&apps);
        cluster.nodes[1].signal(signal);
        let lost = Instant::now();
        cluster.wait_for_routes(0, "shop", 1);
        cluster.wait_for_routes(2, "shop", 1);
        assert!(lost.elapsed() < Duration::from_secs(8), "{signal:?}: {:?}", lost.elapsed());
        for _ in 0..20 {
            assert_eq!(post(&cluster.nodes[0].url, "shop/add", "[1]", PATIENCE).unwrap(), (200, "2".to_owned()));
        }
        if signal == Signal::STOP {
            // What comes back is there again.
            cluster.nodes[1].signal(Signal::CONT);
            cluster.wait_for_routes(0, "shop", 2);
        } else {
            cluster.nodes[1].ended();
        }
    }
}

#[test]
fn rolling_restart_loses_no_call() {
    let apps = shop();
    let mut cluster = three(&apps);
    let urls = [cluster.nodes[0].url.clone()];
    under_load(&urls, || {
        for index in [1, 2] {
            cluster.restart(index, &[apps.path("shop")]);
            cluster.wait_for_routes(0, "shop", 2);
        }
    });
}

/// A node that leaves waits for requests that are on their way to it, and until its answers have arrived.
#[test]
fn rolling_restart_loses_no_large_call() {
    let apps = shop();
    let mut cluster = three(&apps);
    let (url, data) = (cluster.nodes[0].url.clone(), "z".repeat(LARGE));
    let call = |_: usize, turn: usize| {
        let (line, media, body, expected) = if turn.is_multiple_of(2) {
            ("POST /shop/size", "application/octet-stream", data.clone(), LARGE.to_string())
        } else {
            ("POST /shop/big", "application/json", format!("[{LARGE}]"), format!("\"{}\"", "x".repeat(LARGE)))
        };
        let answer = request(&url, line, &format!("Content-Type: {media}\r\n"), &body, PATIENCE).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(" 200 ") && body == expected, "{line}: {head} {}", &body[..body.len().min(1_000)]);
    };
    while_calling(4, call, || {
        for index in [1, 2] {
            cluster.restart(index, &[apps.path("shop")]);
            cluster.wait_for_routes(0, "shop", 2);
        }
    });
}
