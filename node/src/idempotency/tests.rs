use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    future::{Future, pending, poll_fn},
    pin::Pin,
    task::Poll,
    time::Instant,
};

use fnmesh_invoke::{
    Failure, FunctionId, InvocationId, Language, Limits, Payload, RequestHead, ResponseHead, Signature, Target,
};
use tokio::{sync::Notify, task::LocalSet};

use super::*;

/// Answers what it is told to, one after the other, and then nothing ever.
#[derive(Default)]
struct Fake {
    calls: Cell<usize>,
    answers: RefCell<VecDeque<Result<Reply, Error>>>,
    /// Set where answers are to wait for it.
    gate: Option<Notify>,
}

impl Invoke for Fake {
    async fn resolve(&self, _: &str, _: &str) -> Result<Arc<Function>, Error> {
        Err(Error::Draining)
    }

    async fn call(&self, _: Invocation) -> Result<Reply, Error> {
        self.calls.set(self.calls.get() + 1);
        if let Some(gate) = &self.gate {
            gate.notified().await;
        }
        let answer = self.answers.borrow_mut().pop_front();
        match answer {
            Some(answer) => answer,
            None => pending().await,
        }
    }

    fn apps(&self) -> Vec<AppStatus> {
        Vec::new()
    }
}

fn layer(answers: impl IntoIterator<Item = Result<Reply, Error>>) -> Rc<Idempotent<Fake>> {
    with(Fake { answers: RefCell::new(answers.into_iter().collect()), ..Fake::default() }, Store::open(None))
}

fn with(fake: Fake, store: Arc<Store>) -> Rc<Idempotent<Fake>> {
    Rc::new(Idempotent::new(fake, store))
}

fn value(json: &'static str) -> Result<Reply, Error> {
    Ok(Payload::json(json).into())
}

fn call(key: &str, arguments: &'static str) -> Invocation {
    let limits = Limits::default();
    let deadline = Deadline::after(Instant::now(), limits.timeout);
    Invocation {
        id: InvocationId::random(),
        function: Arc::new(Function {
            id: FunctionId { app: "shop".into(), name: "pay".into() },
            module: "shop".into(),
            file: "shop.py".into(),
            language: Language::Python,
            signature: Signature::default(),
            limits,
            public: true,
            target: Target::ELSEWHERE,
            stats: Arc::default(),
        }),
        payload: Payload::json(arguments),
        request: None,
        deadline,
        hops: 0,
        traceparent: None,
        idempotency_key: Some(key.into()),
    }
}

/// The body and whether it was a replay.
fn shown(reply: Reply) -> (String, bool) {
    let ReplyBody::Full(payload) = reply.body else { panic!("a stream") };
    (String::from_utf8(payload.body.to_vec()).unwrap(), reply.is_replayed)
}

fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    LocalSet::new().block_on(&runtime, test);
}

/// Lets a call go as far as it goes without anybody's help.
async fn advance<F: Future + Unpin>(future: &mut F) -> Poll<F::Output> {
    let mut polled = Poll::Pending;
    for _ in 0..20 {
        polled = poll_fn(|context| Poll::Ready(Pin::new(&mut *future).poll(context))).await;
        if polled.is_ready() {
            break;
        }
        tokio::task::yield_now().await;
    }
    polled
}

#[test]
fn repeated_call_gets_the_first_answer() {
    run(async {
        let layer = layer([value("1"), value("2")]);
        assert_eq!(shown(layer.call(call("a", "[]")).await.unwrap()), ("1".to_owned(), false));
        assert_eq!(shown(layer.call(call("a", "[]")).await.unwrap()), ("1".to_owned(), true));
        assert_eq!(shown(layer.call(call("b", "[]")).await.unwrap()), ("2".to_owned(), false));
        assert_eq!(layer.inner.calls.get(), 2);
    });
}

#[test]
fn head_and_format_are_replayed() {
    run(async {
        let head = Some(Box::new(ResponseHead { status: 201, headers: vec![("location".into(), "/1".into())] }));
        let layer = layer([Ok(Reply::new(head.clone(), ReplyBody::Full(Payload::text("made"))))]);
        layer.call(call("a", "[]")).await.unwrap();
        let reply = layer.call(call("a", "[]")).await.unwrap();
        assert_eq!(reply.head, head);
        assert!(matches!(reply.body, ReplyBody::Full(payload) if payload == Payload::text("made")));
    });
}

#[test]
fn other_arguments_are_refused() {
    run(async {
        let layer = layer([value("1"), value("2")]);
        let http = |path: &str, query: &str| {
            let mut call = call("http", "");
            let head =
                RequestHead { method: "POST".into(), path: path.into(), query: query.into(), ..Default::default() };
            call.request = Some(Box::new(head));
            call
        };
        layer.call(call("a", "[1]")).await.unwrap();
        layer.call(http("/1", "")).await.unwrap();
        let mut bytes = call("a", "[1]");
        bytes.payload.format = fnmesh_invoke::Format::Bytes;
        for other in [call("a", "[2]"), bytes, http("/2", ""), http("/1", "x")] {
            let error = layer.call(other).await.unwrap_err();
            assert_eq!((error.http_status(), error.kind()), (422, "KeyReused"));
            assert!(error.message().contains("shop/pay"), "{error}");
        }
        assert_eq!(layer.inner.calls.get(), 2);
    });
}

#[test]
fn what_the_function_raised_is_its_answer() {
    run(async {
        let failure = Failure { kind: "ValueError".into(), message: "no".into(), stack: "at 1".into() };
        let layer = layer([Err(Error::FunctionFailed(Box::new(failure.clone()))), value("1")]);
        for _ in 0..2 {
            let error = layer.call(call("a", "[]")).await.unwrap_err();
            assert!(matches!(error, Error::FunctionFailed(it) if *it == failure));
        }
        assert_eq!(layer.inner.calls.get(), 1);
    });
}

#[test]
fn errors_that_say_nothing_of_the_next_try_are_not_stored() {
    run(async {
        let function = FunctionId { app: "shop".into(), name: "pay".into() };
        let lost = Error::InstanceLost { function, reason: "killed".into() };
        let layer = layer([Err(Error::Draining), Err(lost), Err(Error::invalid("no")), value("1")]);
        for status in [503, 502, 400] {
            assert_eq!(layer.call(call("a", "[]")).await.unwrap_err().http_status(), status);
        }
        assert_eq!(shown(layer.call(call("a", "[]")).await.unwrap()), ("1".to_owned(), false));
    });
}

#[test]
fn large_answers_and_streams_pass_and_are_not_stored() {
    run(async {
        struct Nothing;
        impl futures_core::Stream for Nothing {
            type Item = Result<Payload, Error>;
            fn poll_next(self: Pin<&mut Self>, _: &mut std::task::Context<'_>) -> Poll<Option<Self::Item>> {
                Poll::Ready(None)
            }
        }
        let large = || Ok(Payload::bytes(vec![0; store::MAX_ANSWER_BYTES + 1]).into());
        let stream = || Ok(Reply::new(None, ReplyBody::Stream(Box::pin(Nothing))));
        let layer = layer([large(), large(), stream(), stream()]);
        for key in ["large", "large", "stream", "stream"] {
            let reply = layer.call(call(key, "[]")).await.unwrap();
            assert!(!reply.is_replayed && matches!(reply.body, ReplyBody::Stream(_)) == (key == "stream"));
        }
        assert_eq!(layer.inner.calls.get(), 4);
    });
}

#[test]
fn concurrent_calls_of_all_threads_run_once() {
    run(async {
        let store = Store::open(None);
        let answers = RefCell::new([value("1")].into());
        let first = with(Fake { answers, gate: Some(Notify::new()), ..Fake::default() }, Arc::clone(&store));
        let other = with(Fake::default(), store);
        let mut calls = [&first, &first, &other].map(|layer| Box::pin(layer.call(call("a", "[]"))));
        for call in &mut calls {
            assert!(advance(call).await.is_pending());
        }
        assert_eq!((first.inner.calls.get(), other.inner.calls.get()), (1, 0));
        first.inner.gate.as_ref().unwrap().notify_one();
        let mut replayed = Vec::new();
        for call in calls {
            let (body, is_replayed) = shown(call.await.unwrap());
            assert_eq!(body, "1");
            replayed.push(is_replayed);
        }
        assert_eq!(replayed, [false, true, true]);
    });
}

#[test]
fn call_whose_caller_goes_away_runs_to_its_end() {
    run(async {
        let answers = RefCell::new([value("1")].into());
        let layer = with(Fake { answers, gate: Some(Notify::new()), ..Fake::default() }, Store::open(None));
        let mut first = Box::pin(layer.call(call("a", "[]")));
        assert!(advance(&mut first).await.is_pending());
        drop(first);
        layer.inner.gate.as_ref().unwrap().notify_one();
        assert_eq!(shown(layer.call(call("a", "[]")).await.unwrap()), ("1".to_owned(), true));
        assert_eq!(layer.inner.calls.get(), 1);
    });
}

#[test]
fn waits_until_its_own_deadline_only() {
    run(async {
        let layer = layer([]);
        let mut first = Box::pin(layer.call(call("a", "[]")));
        assert!(advance(&mut first).await.is_pending());
        let mut hurried = call("a", "[]");
        hurried.deadline = Deadline::after(Instant::now(), Duration::from_millis(1));
        let error = layer.call(hurried).await.unwrap_err();
        assert!(matches!(error, Error::DeadlineExceeded { .. }), "{error}");
        assert!(advance(&mut first).await.is_pending());
    });
}

#[test]
fn run_that_was_lost_is_taken_over_by_who_waits() {
    run(async {
        let store = Store::open(None);
        let lost = with(Fake::default(), Arc::clone(&store));
        let other = with(Fake { answers: RefCell::new([value("2")].into()), ..Fake::default() }, store.clone());
        let id = Identity::of(&call("a", "[]"), "a");
        let Begun::Run(run) = store.begin(id, unix_ms()) else { panic!("known") };
        let mut waits = Box::pin(other.call(call("a", "[]")));
        assert!(advance(&mut waits).await.is_pending());
        drop((run, lost));
        assert_eq!(shown(waits.await.unwrap()), ("2".to_owned(), false));
    });
}

#[test]
fn answer_is_on_disk_before_anybody_has_it() {
    let data = tempfile::tempdir().unwrap();
    // The clock is not paused: it would run ahead of the disk.
    let block_on = |test: Pin<Box<dyn Future<Output = ()>>>| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        LocalSet::new().block_on(&runtime, test);
    };
    let first =
        with(Fake { answers: RefCell::new([value("1")].into()), ..Fake::default() }, Store::open(Some(data.path())));
    let (later, path) = (Rc::clone(&first), data.path().to_owned());
    block_on(Box::pin(async move {
        later.call(call("a", "[]")).await.unwrap();
        // As after a crash at this moment: another store reads what is there.
        let second = with(Fake::default(), Store::open(Some(&path)));
        assert_eq!(shown(second.call(call("a", "[]")).await.unwrap()), ("1".to_owned(), true));
        // And from the disk, not from memory, in the first one.
        assert_eq!(shown(later.call(call("a", "[]")).await.unwrap()), ("1".to_owned(), true));
    }));
    assert_eq!(first.inner.calls.get(), 1);
}

#[test]
fn empty_keys_are_refused_and_other_calls_pass() {
    run(async {
        let layer = layer([value("1"), value("2"), value("3")]);
        assert_eq!(layer.call(call("", "[]")).await.unwrap_err().http_status(), 400);
        for expected in ["1", "2"] {
            let mut plain = call("a", "[]");
            plain.idempotency_key = None;
            assert_eq!(shown(layer.call(plain).await.unwrap()), (expected.to_owned(), false));
        }
        let mut forwarded = call("a", "[]");
        forwarded.hops = 1;
        assert_eq!(shown(layer.call(forwarded).await.unwrap()), ("3".to_owned(), false));
        assert!(layer.runs.is_empty());
    });
}
