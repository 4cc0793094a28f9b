use std::{future::Future, pin::pin, time::Duration};

use fnmesh_invoke::{Deadline, Failure, Function, FunctionId, InvocationId, Language, Limits, Signature, Target};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
    task::{LocalSet, spawn_local},
    time::timeout,
};

use super::*;
use crate::{manifest::Manifest, pool::Pool};

const GRACE: Duration = Duration::from_millis(100);
const PATIENCE: Duration = Duration::from_secs(5);

/// The worker's end of a channel, played by the test.
struct Worker {
    stream: UnixStream,
    input: Vec<u8>,
}

impl Worker {
    async fn next(&mut self) -> (Header, Vec<u8>, Vec<u8>) {
        loop {
            if let frame::Decoded::Frame(found) = frame::decode(&self.input, 1 << 20).unwrap() {
                let taken = (found.header, found.meta.to_vec(), found.body.to_vec());
                let length = found.len();
                self.input.drain(..length);
                return taken;
            }
            let read = timeout(PATIENCE, self.stream.read_buf(&mut self.input)).await;
            assert_ne!(read.expect("a frame in time").unwrap(), 0, "the node closed the channel");
        }
    }

    async fn send(&mut self, header: Header, meta: &[u8], body: &[u8]) {
        let mut out = Vec::new();
        frame::encode(header, meta, body, &mut out);
        self.stream.write_all(&out).await.unwrap();
    }

    async fn answer(&mut self, id: u32, body: &str) {
        self.send(Header::new(Kind::Result, id).format(BodyFormat::Json), &[], body.as_bytes()).await;
    }
}

pub(crate) fn function() -> Arc<Function> {
    Arc::new(Function {
        id: FunctionId { app: "shop".into(), name: "add".into() },
        module: "shop".into(),
        file: "shop.py".into(),
        language: Language::Python,
        signature: Signature::default(),
        limits: Limits::default(),
        public: true,
        target: Target { pool: 0, index: 7 },
        stats: Arc::default(),
    })
}

fn invocation(budget: Duration) -> Invocation {
    Invocation {
        id: InvocationId::random(),
        function: function(),
        payload: Payload::json("[1,2]"),
        request: None,
        deadline: Deadline::after(Instant::now(), budget),
        hops: 0,
        traceparent: None,
        idempotency_key: None,
    }
}

/// Runs `test` with a channel and the worker's end of it.
fn with_channel<F: Future<Output = ()>>(test: impl FnOnce(Rc<Channel>, Worker) -> F) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    LocalSet::new().block_on(&runtime, async {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let bounds = Manifest::default().bounds(Language::Python);
        let pool = Arc::new(Pool::new(0, "shop".into(), Language::Python, bounds, 1 << 20));
        let channel = Channel::new(Arc::new(Instance::new(pool, 1)));
        let driver = spawn_local(drive(Rc::clone(&channel), ours, 1 << 20, GRACE));
        timeout(4 * PATIENCE, test(channel, Worker { stream: theirs, input: Vec::new() })).await.expect("in time");
        driver.abort();
    });
}

fn call(channel: &Rc<Channel>, budget: Duration) -> tokio::task::JoinHandle<Result<Reply, Error>> {
    assert!(channel.begin(7));
    let channel = Rc::clone(channel);
    spawn_local(async move { channel.call(invocation(budget), None).await })
}

fn json(reply: Result<Reply, Error>) -> String {
    match reply.unwrap().body {
        ReplyBody::Full(payload) => String::from_utf8(payload.body.to_vec()).unwrap(),
        ReplyBody::Stream(_) => panic!("a stream"),
    }
}

#[test]
fn calls_in_flight_get_their_own_answers() {
    with_channel(async |channel, mut worker| {
        let (first, second) = (call(&channel, PATIENCE), call(&channel, PATIENCE));
        let (one, two) = (worker.next().await, worker.next().await);
        assert_eq!((one.0.kind, one.0.aux, one.2.as_slice()), (Kind::Invoke, 7, b"[1,2]".as_slice()));
        assert_eq!(one.1.len(), INVOKE_META_BYTES);
        worker.answer(two.0.id, "2").await;
        worker.answer(one.0.id, "1").await;
        assert_eq!((json(first.await.unwrap()), json(second.await.unwrap())), ("1".into(), "2".into()));
        assert_eq!(channel.instance().in_flight(), 0);
        assert!(channel.state.borrow().slots.is_empty());
    });
}

#[test]
fn large_answers_and_what_follows_them_arrive_whole() {
    with_channel(async |channel, mut worker| {
        let (first, second) = (call(&channel, PATIENCE), call(&channel, PATIENCE));
        let (one, two) = (worker.next().await.0.id, worker.next().await.0.id);
        let large = format!("\"{}\"", "x".repeat(300_000));
        let mut out = Vec::new();
        let header = |id| Header::new(Kind::Result, id).format(BodyFormat::Json);
        frame::encode(header(one), &[], large.as_bytes(), &mut out);
        frame::encode(header(two), &[], b"2", &mut out);
        worker.stream.write_all(&out).await.unwrap();
        assert_eq!(json(first.await.unwrap()), large);
        assert_eq!(json(second.await.unwrap()), "2");
    });
}

#[test]
fn dropped_call_is_cancelled_and_its_late_answer_ignored() {
    with_channel(async |channel, mut worker| {
        let gone = call(&channel, PATIENCE);
        let id = worker.next().await.0.id;
        gone.abort();
        let (cancel, ..) = worker.next().await;
        assert_eq!((cancel.kind, cancel.id, cancel.aux), (Kind::Cancel, id, CALLER_GONE));
        // The id stays taken until the worker has answered.
        let next = call(&channel, PATIENCE);
        let other = worker.next().await.0.id;
        assert_ne!(other, id);
        worker.answer(id, "1").await;
        worker.answer(other, "2").await;
        assert_eq!(json(next.await.unwrap()), "2");
        assert_eq!(channel.instance().in_flight(), 0);
    });
}

#[test]
fn deadline_ends_the_call_and_tells_the_worker() {
    with_channel(async |channel, mut worker| {
        let late = call(&channel, Duration::from_millis(30));
        let id = worker.next().await.0.id;
        assert!(matches!(late.await.unwrap(), Err(Error::DeadlineExceeded { .. })));
        let (cancel, ..) = worker.next().await;
        assert_eq!((cancel.kind, cancel.id, cancel.aux), (Kind::Cancel, id, DEADLINE_PASSED));
    });
}

#[test]
fn worker_that_keeps_a_call_past_its_deadline_is_condemned() {
    with_channel(async |channel, mut worker| {
        let late = call(&channel, Duration::from_millis(30));
        worker.next().await;
        assert!(late.await.unwrap().is_err());
        let reason = timeout(PATIENCE, channel.instance().condemned()).await.expect("condemned in time");
        assert!(reason.contains("shop/add did not stop"), "{reason}");
    });
}

#[test]
fn closed_channel_fails_its_calls_with_the_reason() {
    with_channel(async |channel, mut worker| {
        let lost = call(&channel, PATIENCE);
        worker.next().await;
        channel.instance().note_exited("its worker was killed by signal 11 (SIGSEGV)");
        drop(worker);
        let error = lost.await.unwrap().unwrap_err();
        assert!(matches!(&error, Error::InstanceLost { reason, .. } if reason.contains("SIGSEGV")), "{error}");
        assert!(channel.is_closed());
        assert_eq!(channel.instance().in_flight(), 0);
    });
}

#[test]
fn exit_ends_a_channel_that_somebody_else_holds_open() {
    with_channel(async |channel, mut worker| {
        let lost = call(&channel, PATIENCE);
        worker.next().await;
        channel.instance().note_exited("its worker exited with status 3");
        assert!(matches!(lost.await.unwrap(), Err(Error::InstanceLost { .. })));
        drop(worker);
    });
}

#[test]
fn unreadable_frame_condemns_the_worker() {
    with_channel(async |channel, mut worker| {
        let lost = call(&channel, PATIENCE);
        worker.next().await;
        worker.stream.write_all(&u32::MAX.to_le_bytes()).await.unwrap();
        let reason = timeout(PATIENCE, channel.instance().condemned()).await.expect("condemned in time");
        assert!(reason.contains("over the limit"), "{reason}");
        channel.instance().note_exited("it was replaced");
        assert!(matches!(lost.await.unwrap(), Err(Error::InstanceLost { .. })));
    });
}

#[test]
fn errors_of_the_function_keep_type_message_and_stack() {
    with_channel(async |channel, mut worker| {
        let failed = call(&channel, PATIENCE);
        let id = worker.next().await.0.id;
        let body = br#"{"type":"ValueError","message":"no","stack":"line 1"}"#;
        let header = Header::new(Kind::Error, id).format(BodyFormat::Json).aux(1003);
        worker.send(header, &[], body).await;
        let Err(Error::FunctionFailed(failure)) = failed.await.unwrap() else { panic!("another answer") };
        let expected = Failure { kind: "ValueError".into(), message: "no".into(), stack: "line 1".into() };
        assert_eq!(*failure, expected);
    });
}

#[test]
fn worker_gets_answers_to_pings_and_refusals_of_calls() {
    with_channel(async |_channel, mut worker| {
        worker.send(Header::new(Kind::Ping, 9), &[], &[]).await;
        worker.send(Header::new(Kind::Invoke, 7), &[0; INVOKE_META_BYTES], &[]).await;
        let (pong, ..) = worker.next().await;
        assert_eq!((pong.kind, pong.id), (Kind::Pong, 9));
        let (refusal, _, body) = worker.next().await;
        assert_eq!((refusal.kind, refusal.id, refusal.aux), (Kind::Error, 7, code::UNKNOWN_FUNCTION));
        let failure: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(failure["type"], "UnknownFunction");
    });
}

async fn next_item(stream: &mut fnmesh_invoke::ChunkStream) -> Option<Result<Payload, Error>> {
    poll_fn(|cx| stream.as_mut().poll_next(cx)).await
}

#[test]
fn stream_grants_credit_as_its_items_are_taken() {
    with_channel(async |channel, mut worker| {
        let reply = call(&channel, PATIENCE);
        let id = worker.next().await.0.id;
        let chunk = Header::new(Kind::Chunk, id).format(BodyFormat::Text);
        for item in 0..frame::INITIAL_CREDIT {
            worker.send(chunk, &[], item.to_string().as_bytes()).await;
        }
        let ReplyBody::Stream(mut stream) = reply.await.unwrap().unwrap().body else { panic!("not a stream") };
        for item in 0..CREDIT_PORTION {
            assert_eq!(next_item(&mut stream).await.unwrap().unwrap(), Payload::text(item.to_string()));
        }
        let (credit, ..) = worker.next().await;
        assert_eq!((credit.kind, credit.id, credit.aux), (Kind::Credit, id, CREDIT_PORTION));
        worker.send(Header::new(Kind::Result, id), &[], &[]).await;
        for _ in CREDIT_PORTION..frame::INITIAL_CREDIT {
            next_item(&mut stream).await.unwrap().unwrap();
        }
        assert!(next_item(&mut stream).await.is_none());
        assert!(channel.state.borrow().slots.is_empty());
    });
}

#[test]
fn stream_of_a_lost_worker_ends_in_an_error() {
    with_channel(async |channel, mut worker| {
        let reply = call(&channel, PATIENCE);
        let id = worker.next().await.0.id;
        worker.send(Header::new(Kind::Chunk, id).format(BodyFormat::Json), &[], b"1").await;
        let ReplyBody::Stream(mut stream) = reply.await.unwrap().unwrap().body else { panic!("not a stream") };
        channel.instance().note_exited("its worker exited with status 3");
        drop(worker);
        assert!(next_item(&mut stream).await.unwrap().is_ok());
        assert!(matches!(next_item(&mut stream).await, Some(Err(Error::InstanceLost { .. }))));
        assert!(next_item(&mut stream).await.is_none());
    });
}

#[test]
fn empty_generator_is_an_empty_stream() {
    with_channel(async |channel, mut worker| {
        let reply = call(&channel, PATIENCE);
        let id = worker.next().await.0.id;
        worker.send(Header::new(Kind::Result, id), &[], &[]).await;
        let ReplyBody::Stream(mut stream) = reply.await.unwrap().unwrap().body else { panic!("not a stream") };
        assert!(next_item(&mut stream).await.is_none());
    });
}

#[test]
fn dropped_stream_is_cancelled() {
    with_channel(async |channel, mut worker| {
        let reply = call(&channel, PATIENCE);
        let id = worker.next().await.0.id;
        worker.send(Header::new(Kind::Chunk, id).format(BodyFormat::Json), &[], b"1").await;
        drop(reply.await.unwrap().unwrap());
        let (cancel, ..) = worker.next().await;
        assert_eq!((cancel.kind, cancel.id), (Kind::Cancel, id));
        let mut idle = pin!(channel.instance().idle());
        // An abandoned call keeps nobody waiting.
        timeout(PATIENCE, idle.as_mut()).await.expect("idle");
    });
}
