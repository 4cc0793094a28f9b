use std::{
    sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    thread,
    time::{Duration, Instant},
};

use rustix::process::Signal;

use crate::{
    cluster::Cluster,
    shop,
    support::{PATIENCE, post, request, wait_until},
};

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
    let url = cluster.nodes[0].url.clone();
    let (over, answered) = (AtomicBool::new(false), AtomicUsize::new(0));
    thread::scope(|scope| {
        let callers: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    while !over.load(SeqCst) {
                        let answer = post(&url, "shop/add", "[1]", PATIENCE).unwrap();
                        assert_eq!(answer, (200, "2".to_owned()));
                        answered.fetch_add(1, SeqCst);
                    }
                })
            })
            .collect();
        for index in [1, 2] {
            cluster.nodes[index].signal(Signal::TERM);
            assert!(cluster.nodes[index].ended().success());
            cluster.nodes[index] = cluster.start(index, &[apps.path("shop")], &[]);
            cluster.wait_for_routes(0, "shop", 2);
        }
        let before = answered.load(SeqCst);
        wait_until(|| answered.load(SeqCst) > before + 100, || "calls go on".to_owned());
        over.store(true, SeqCst);
        callers.into_iter().for_each(|caller| caller.join().unwrap());
    });
}
