use std::{
    cell::Cell,
    future::{Future, pending, poll_fn},
    net::{Ipv4Addr, SocketAddr},
    pin::Pin,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use crate::way::Way;
use bytes::Bytes;
use fnmesh_mesh::transport::{
    Answer, Caller, Failure, Handler, Item, LocalFuture, METHOD_NOT_FOUND, Request, Response, quic, serve,
};
use quinn::{
    Connection, Endpoint,
    crypto::rustls::{QuicClientConfig, QuicServerConfig},
};
use serde_json::value::{RawValue, to_raw_value};
use tokio::{
    sync::Notify,
    task::{JoinSet, LocalSet},
};

/// Runs a test on one thread, for at most a minute.
pub(crate) fn local(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let test = async { tokio::time::timeout(Duration::from_secs(60), test).await.expect("the test hangs") };
    LocalSet::new().block_on(&runtime, test);
}

/// Waits until `value` is there and has not changed for a tenth of a second.
pub(crate) async fn settled(value: impl Fn() -> Option<u64>) -> u64 {
    let (mut before, mut still) = (None, 0);
    loop {
        tokio::time::sleep(Duration::from_millis(5)).await;
        let now = value();
        still = if now.is_some() && now == before { still + 1 } else { 0 };
        before = now;
        if let (20.., Some(value)) = (still, now) {
            return value;
        }
    }
}

pub(crate) fn text(response: Response) -> (String, String) {
    let Response::Value { result, body } = response else { panic!("{response:?}") };
    (result.get().to_owned(), String::from_utf8(body.to_vec()).unwrap())
}

/// A connected pair, without TLS client authentication.
pub(crate) async fn connect() -> (Connection, Connection, [Endpoint; 2]) {
    connect_over(None).await
}

/// The same, over a way that delays and loses datagrams.
pub(crate) async fn connect_over(way: Option<Way>) -> (Connection, Connection, [Endpoint; 2]) {
    let certified = rcgen::generate_simple_self_signed(["peer".to_owned()]).unwrap();
    let provider = || Arc::new(rustls::crypto::ring::default_provider());
    let mut roots = rustls::RootCertStore::empty();
    roots.add(certified.cert.der().clone()).unwrap();
    let key = rustls_pki_types::PrivatePkcs8KeyDer::from(certified.signing_key.serialize_der());
    let server = rustls::ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certified.cert.der().clone()], key.into())
        .unwrap();
    let client = rustls::ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let mut server = quinn::ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(server).unwrap()));
    server.transport_config(quic::transport(quic::Congestion::Auto));
    let mut client = quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(client).unwrap()));
    client.transport_config(quic::transport(quic::Congestion::Auto));
    let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let listener = quic::bind(any, Default::default(), Some(server)).unwrap();
    let dialer = quic::bind(any, Default::default(), None).unwrap();
    let mut address = listener.local_addr().unwrap();
    if let Some(way) = way {
        address = way.to(address).await;
    }
    let dial = dialer.connect_with(client, address, "peer").unwrap();
    let accept = async { listener.accept().await.unwrap().await };
    let (near, far) = tokio::try_join!(dial, accept).unwrap();
    (near, far, [listener, dialer])
}

/// A caller and a peer that serves it.
pub(crate) struct Link {
    pub(crate) caller: Caller,
    pub(crate) peer: Connection,
    pub(crate) handler: Rc<Echo>,
    _endpoints: [Endpoint; 2],
    tasks: JoinSet<()>,
}

impl Link {
    pub(crate) async fn new() -> Self {
        Self::between(connect().await)
    }

    pub(crate) async fn over(way: Way) -> Self {
        Self::between(connect_over(Some(way)).await)
    }

    fn between((near, peer, endpoints): (Connection, Connection, [Endpoint; 2])) -> Self {
        let (caller, run) = Caller::new(near, Default::default());
        let handler = Rc::new(Echo::default());
        let mut tasks = JoinSet::new();
        tasks.spawn(async { drop(run.await) });
        let serving = serve(peer.clone(), Rc::clone(&handler), Default::default());
        tasks.spawn_local(async { drop(serving.await) });
        Self { caller, peer, handler, _endpoints: endpoints, tasks }
    }

    /// Ends both sides as a node does that stops.
    pub(crate) fn stop(&mut self) {
        self.tasks.abort_all();
    }
}

#[derive(Default)]
pub(crate) struct Echo {
    /// A request that never ends was started.
    pub(crate) started: Rc<Notify>,
    /// A request was dropped before its end.
    pub(crate) withdrawn: Rc<Notify>,
    /// How many times `order` was asked for.
    pub(crate) begun: Rc<Cell<u32>>,
    /// Items made by `count`.
    pub(crate) made: Rc<Cell<u64>>,
}

impl Handler for Echo {
    fn handle(&self, request: Request<'_>) -> LocalFuture<Answer> {
        let params = request.params.map_or(RawValue::NULL, |params| params).to_owned();
        let body = request.body;
        match request.method {
            "echo" => {
                let delay = params.get().trim_end_matches(']').rsplit(',').next().and_then(|n| n.parse().ok());
                Box::pin(async move {
                    tokio::time::sleep(Duration::from_millis(delay.unwrap_or(0))).await;
                    Answer::Value { result: params, body }
                })
            }
            "never" => {
                let (started, withdrawn) = (Rc::clone(&self.started), Withdrawn(Rc::clone(&self.withdrawn)));
                Box::pin(async move {
                    let _withdrawn = withdrawn;
                    started.notify_one();
                    pending().await
                })
            }
            "order" => {
                let begun = Rc::clone(&self.begun);
                begun.set(begun.get() + 1);
                Box::pin(async move { Answer::Value { result: to_raw_value(&begun.get()).unwrap(), body } })
            }
            "panic" => Box::pin(async { panic!("on purpose") }),
            "count" => {
                let count: i64 = serde_json::from_str(params.get()).unwrap();
                let items = Count {
                    next: 0,
                    end: count.unsigned_abs(),
                    fails: count < 0,
                    made: Rc::clone(&self.made),
                    _withdrawn: Withdrawn(Rc::clone(&self.withdrawn)),
                };
                let opening = to_raw_value("from 0").unwrap();
                Box::pin(async { Answer::Stream { opening, items: Box::pin(items) } })
            }
            method => {
                let data = RawValue::from_string("{\"known\":[\"echo\"]}".to_owned()).unwrap();
                let message = format!("no method {method:?}");
                let failure = Failure { code: METHOD_NOT_FOUND, message, data: Some(data) };
                Box::pin(poll_fn(move |_| Poll::Ready(Answer::Failed(failure.clone()))))
            }
        }
    }

    fn notified(&self, _: Request<'_>) {}
}

struct Withdrawn(Rc<Notify>);

impl Drop for Withdrawn {
    fn drop(&mut self) {
        self.0.notify_one();
    }
}

struct Count {
    next: u64,
    end: u64,
    fails: bool,
    made: Rc<Cell<u64>>,
    _withdrawn: Withdrawn,
}

impl futures_core::Stream for Count {
    type Item = Result<Item, Failure>;

    fn poll_next(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.next == self.end {
            let fails = std::mem::take(&mut self.fails);
            return Poll::Ready(fails.then(|| Err(Failure::new(1003, "enough"))));
        }
        let item = to_raw_value(&self.next).unwrap();
        self.next += 1;
        self.made.set(self.made.get() + 1);
        Poll::Ready(Some(Ok((item, Bytes::from_static(&[7; 1000])))))
    }
}
