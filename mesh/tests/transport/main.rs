//! Two ends of a real QUIC connection on 127.0.0.1.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;
mod way;

use std::{rc::Rc, time::Duration};

use bytes::Bytes;
use fnmesh_mesh::transport::{
    CallError, Caller, INTERNAL_ERROR, METHOD_NOT_FOUND, PROTOCOL_ERROR, Response, frame::Limits,
};
use quinn::congestion::{Bbr, Cubic};
use support::{Link, local, text};
use tokio::{task::JoinSet, time::timeout};
use way::Way;

const PATIENCE: Duration = Duration::from_secs(10);

/// A message without a body, as it stands in a stream.
fn message(text: &str) -> Vec<u8> {
    [&(text.len() as u64).to_le_bytes(), text.as_bytes()].concat()
}

#[test]
fn answers_come_in_any_order() {
    local(async {
        let link = Link::new().await;
        let mut calls = JoinSet::new();
        for number in 0_u64..500 {
            let caller = link.caller.clone();
            calls.spawn_local(async move {
                let answer = caller.call("echo", &(number, number % 7), Bytes::from(number.to_string())).await.unwrap();
                assert_eq!(text(answer), (format!("[{number},{}]", number % 7), number.to_string()));
            });
        }
        calls.join_all().await;
        assert_eq!(link.caller.in_flight(), 0);
    });
}

#[test]
fn first_requests_are_answered_while_the_last_are_read() {
    local(async {
        let link = Link::new().await;
        let requests = (0..200).map(|id| message(&format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"order"}}"#)));
        let (mut send, mut recv) = link.caller.connection().open_bi().await.unwrap();
        send.write_all(&requests.collect::<Vec<_>>().concat()).await.unwrap();
        send.finish().unwrap();
        let answers = recv.read_to_end(100_000).await.unwrap();
        assert_eq!(link.handler.begun.get(), 200);
        let answers = String::from_utf8_lossy(&answers);
        let begun_before: Vec<u32> = answers
            .split(r#""result":"#)
            .skip(1)
            .map(|answer| answer.split('}').next().unwrap().parse().unwrap())
            .collect();
        assert_eq!(begun_before.len(), 200);
        assert!(begun_before[0] <= 32, "{} of 200 had begun before the first was answered", begun_before[0]);
    });
}

#[test]
fn large_bodies_arrive_whole_beside_small_calls() {
    local(async {
        let link = Link::new().await;
        let body = Bytes::from((0..8_000_000_u32).map(|n| n as u8).collect::<Vec<_>>());
        let large = link.caller.call("echo", &0, body.clone());
        let small = async {
            for _ in 0..50 {
                link.caller.call("echo", &1, Bytes::new()).await.unwrap();
            }
        };
        let (large, ()) = tokio::join!(large, small);
        let Ok(Response::Value { body: answered, .. }) = large else { panic!("{large:?}") };
        assert!(answered == body, "8 MB came back changed");
    });
}

#[test]
fn errors_keep_code_message_and_data() {
    local(async {
        let link = Link::new().await;
        let Err(CallError::Failed(failure)) = link.caller.call("nothing", &(), Bytes::new()).await else { panic!() };
        assert_eq!((failure.code, failure.message.as_str()), (METHOD_NOT_FOUND, "no method \"nothing\""));
        assert_eq!(failure.data.unwrap().get(), "{\"known\":[\"echo\"]}");
    });
}

#[test]
fn panic_of_a_handler_fails_its_call_alone() {
    local(async {
        let link = Link::new().await;
        let (bad, good) =
            tokio::join!(link.caller.call("panic", &(), Bytes::new()), link.caller.call("echo", &(1, 9), Bytes::new()));
        let Err(CallError::Failed(failure)) = bad else { panic!("{bad:?}") };
        assert_eq!(failure.code, INTERNAL_ERROR);
        assert_eq!(text(good.unwrap()).0, "[1,9]");
    });
}

#[test]
fn dropped_call_is_withdrawn_at_the_peer() {
    local(async {
        let link = Link::new().await;
        let withdrawn = Rc::clone(&link.handler.withdrawn);
        let never = timeout(Duration::from_millis(50), link.caller.call("never", &(), Bytes::new())).await;
        assert!(never.is_err(), "it answered");
        timeout(PATIENCE, withdrawn.notified()).await.expect("the peer was not told");
        assert_eq!(link.caller.in_flight(), 0);
    });
}

#[test]
fn dropped_large_call_is_withdrawn_at_the_peer() {
    local(async {
        let link = Link::new().await;
        let withdrawn = Rc::clone(&link.handler.withdrawn);
        let body = Bytes::from(vec![0; 100_000]);
        let never = timeout(Duration::from_millis(200), link.caller.call("never", &(), body)).await;
        assert!(never.is_err(), "it answered");
        timeout(PATIENCE, withdrawn.notified()).await.expect("the peer was not told");
    });
}

#[test]
fn requests_end_with_the_side_that_serves() {
    local(async {
        let mut link = Link::new().await;
        let (started, withdrawn) = (Rc::clone(&link.handler.started), Rc::clone(&link.handler.withdrawn));
        let caller = link.caller.clone();
        let never = tokio::task::spawn_local(async move { caller.call("never", &(), Bytes::new()).await.map(drop) });
        started.notified().await;
        link.stop();
        timeout(PATIENCE, withdrawn.notified()).await.expect("it still runs");
        never.abort();
    });
}

#[test]
fn stream_gives_items_in_order_and_ends() {
    local(async {
        let link = Link::new().await;
        let Ok(Response::Stream(mut items)) = link.caller.call("count", &1000, Bytes::new()).await else { panic!() };
        assert_eq!(items.opening().get(), "\"from 0\"");
        for number in 0..1000 {
            let (item, body) = items.next().await.unwrap().unwrap();
            assert_eq!((item.get(), &body[..]), (number.to_string().as_str(), &[7; 1000][..]));
        }
        assert!(items.next().await.is_none());
        assert!(items.next().await.is_none());
    });
}

#[test]
fn stream_ends_with_the_error_of_the_handler() {
    local(async {
        let link = Link::new().await;
        let Ok(Response::Stream(mut items)) = link.caller.call("count", &-3, Bytes::new()).await else { panic!() };
        for _ in 0..3 {
            items.next().await.unwrap().unwrap();
        }
        let Some(Err(CallError::Failed(failure))) = items.next().await else { panic!() };
        assert_eq!((failure.code, failure.message.as_str()), (1003, "enough"));
        assert!(items.next().await.is_none());
    });
}

#[test]
fn slow_reader_slows_the_handler() {
    local(async {
        let link = Link::new().await;
        let made = Rc::clone(&link.handler.made);
        let Ok(Response::Stream(mut items)) = link.caller.call("count", &1_000_000, Bytes::new()).await else {
            panic!()
        };
        items.next().await.unwrap().unwrap();
        let before = support::settled(|| Some(made.get())).await;
        assert!(before < 20_000, "{before} items of 1 kB were made for a reader that took one");
        drop(items);
        timeout(PATIENCE, link.handler.withdrawn.notified()).await.expect("the handler went on");
        let after = made.get();
        link.caller.call("echo", &1, Bytes::new()).await.unwrap();
        assert_eq!(made.get(), after);
    });
}

#[test]
fn lost_link_ends_calls_and_refuses_new_ones() {
    local(async {
        let link = Link::new().await;
        let call = link.caller.call("never", &(), Bytes::new());
        let close = async {
            link.handler.started.notified().await;
            link.peer.close(9_u32.into(), b"enough");
        };
        let (answer, ()) = timeout(PATIENCE, async { tokio::join!(call, close) }).await.unwrap();
        let Err(CallError::Lost(reason)) = answer else { panic!("{answer:?}") };
        assert!(reason.contains("enough"), "{reason}");
        let refused = link.caller.call("echo", &1, Bytes::new()).await;
        assert!(matches!(refused, Err(CallError::NotSent(_))), "{refused:?}");
    });
}

#[test]
fn calls_in_flight_end_before_a_caller_has_finished() {
    local(async {
        let link = Link::new().await;
        link.caller.finish().await;
        let link = Link::new().await;
        let mut calls = JoinSet::new();
        for size in [10, 1_000_000] {
            let caller = link.caller.clone();
            calls.spawn_local(async move { caller.call("echo", &500, Bytes::from(vec![0; size])).await });
        }
        while link.caller.in_flight() < 2 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        timeout(PATIENCE, link.caller.finish()).await.unwrap();
        assert_eq!(link.caller.in_flight(), 0);
        assert!(calls.join_all().await.iter().all(Result::is_ok));
        for size in [10, 1_000_000] {
            let refused = link.caller.call("echo", &1, Bytes::from(vec![0; size])).await;
            assert!(matches!(refused, Err(CallError::NotSent(_))), "{refused:?}");
        }
    });
}

#[test]
fn caller_has_finished_when_its_link_is_lost() {
    local(async {
        let link = Link::new().await;
        let call = async { link.caller.call("never", &(), Bytes::new()).await };
        let finish = async {
            link.handler.started.notified().await;
            let lost = async { link.peer.close(9_u32.into(), b"enough") };
            tokio::join!(link.caller.finish(), lost);
        };
        let (answer, ()) = timeout(PATIENCE, async { tokio::join!(call, finish) }).await.unwrap();
        assert!(matches!(answer, Err(CallError::Lost(_))), "{answer:?}");
    });
}

#[test]
fn calls_end_with_the_task_that_carries_them() {
    local(async {
        let (connection, _peer, _endpoints) = support::connect().await;
        let (caller, run) = Caller::new(connection, Limits::default());
        let run = tokio::spawn(run);
        let call = tokio::spawn({
            let caller = caller.clone();
            async move { caller.call("echo", &(), Bytes::new()).await.map(|_| ()) }
        });
        support::settled(|| Some(caller.in_flight() as u64).filter(|calls| *calls == 1)).await;
        run.abort();
        let ended = timeout(PATIENCE, call).await.expect("the call waits for nobody").unwrap();
        assert!(matches!(ended, Err(CallError::Lost(_) | CallError::NotSent(_))), "{ended:?}");
        let refused = caller.call("echo", &(), Bytes::new()).await;
        assert!(matches!(refused, Err(CallError::NotSent(_))), "{refused:?}");
    });
}

#[test]
fn calls_that_never_left_are_told_from_others() {
    local(async {
        // The peer reads nothing: what fits the windows of at most 8 streams leaves, the rest waits here.
        let (connection, peer, _endpoints) = support::connect().await;
        let (caller, run) = Caller::new(connection, Limits::default());
        let run = tokio::spawn(run);
        let mut calls = JoinSet::new();
        for _ in 0..600 {
            let caller = caller.clone();
            calls.spawn_local(async move { caller.call("echo", &(), Bytes::from(vec![0; 30_000])).await });
        }
        let sent = || caller.connection().stats().udp_tx.bytes;
        support::settled(|| (sent() > 1_000_000).then(sent)).await;
        peer.close(9_u32.into(), b"bye");
        let answers = timeout(PATIENCE, calls.join_all()).await.unwrap();
        let lost = answers.iter().filter(|answer| matches!(answer, Err(CallError::Lost(_)))).count();
        let not_sent = answers.iter().filter(|answer| matches!(answer, Err(CallError::NotSent(_)))).count();
        assert_eq!(lost + not_sent, 600);
        assert!(lost >= 40 && not_sent >= 240, "{lost} lost, {not_sent} not sent");
        run.await.unwrap();
    });
}

#[test]
fn peer_that_breaks_the_protocol_is_told_how() {
    local(async {
        for (bytes, reason) in [
            (u32::MAX.to_le_bytes().repeat(2), "an envelope of 4294967295 bytes is over the limit"),
            (message("{}"), "\"jsonrpc\" must be \"2.0\""),
            (message("oops"), "invalid message"),
            (message(r#"{"jsonrpc":"2.0","id":1,"result":1}"#), "an answer came where requests"),
            (message(r#"{"jsonrpc":"2.0","id":1,"method":"never"}"#).repeat(2), "request id 1 is used twice at a time"),
        ] {
            let link = Link::new().await;
            let connection = link.caller.connection();
            let (mut send, _recv) = connection.open_bi().await.unwrap();
            send.write_all(&bytes).await.unwrap();
            let closed = timeout(PATIENCE, connection.closed()).await.unwrap();
            let quinn::ConnectionError::ApplicationClosed(close) = closed else { panic!("{closed}") };
            assert_eq!(close.error_code, PROTOCOL_ERROR);
            let said = String::from_utf8_lossy(&close.reason);
            assert!(said.contains(reason), "{said}");
        }
    });
}

/// Calls until a link has lost a packet and then has been told of one that came.
async fn lose(link: &Link) {
    let lost = || link.caller.connection().stats().path.lost_packets;
    while lost() == 0 {
        link.caller.call("echo", &0, Bytes::new()).await.unwrap();
    }
    link.caller.call("echo", &0, Bytes::new()).await.unwrap();
    link.caller.call("echo", &0, Bytes::new()).await.unwrap();
}

#[test]
fn long_link_that_loses_packets_goes_over_to_bbr() {
    local(async {
        let link = Link::over(Way { delay: Duration::from_millis(5), lost_of: 5 }).await;
        lose(&link).await;
        assert!(link.caller.connection().congestion_state().into_any().is::<Bbr>());
        // On the new controller, and more than one window.
        let body = Bytes::from(vec![7; 1_000_000]);
        let answer = link.caller.call("echo", &0, body.clone()).await;
        assert!(matches!(answer, Ok(Response::Value { body: answered, .. }) if answered == body));
    });
}

#[test]
fn short_link_that_loses_packets_stays_with_cubic() {
    local(async {
        let link = Link::over(Way { delay: Duration::ZERO, lost_of: 5 }).await;
        lose(&link).await;
        assert!(link.caller.connection().congestion_state().into_any().is::<Cubic>());
    });
}
