//! `announce`, `fetch_bundle`, `host` and `drain`: what is deployed, and where it runs.

use std::{
    fs::File,
    io::{self, Read as _, Seek as _, SeekFrom},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use fnmesh_invoke::Error;
use futures_core::Stream;
use serde::{Deserialize, Serialize};
use tokio::{
    sync::mpsc::{self, error::TrySendError},
    task,
};

use super::{ANNOUNCE, DRAIN, FETCH_BUNDLE, HOST, PeerError, fail, fault, invalid, json, params, read, value};
use crate::{
    Ask, NodeId,
    bundles::Bundles,
    deployments::{Deployment, Deployments},
    driver::Input,
    hex,
    transport::{
        Answer, CallError, Caller, Failure, INTERNAL_ERROR, INVALID_PARAMS, Item, Items, LocalFuture, METHOD_NOT_FOUND,
        Request, Response,
    },
};

/// How much of a bundle is read and sent at a time.
const PIECE_BYTES: usize = 256 * 1024;
/// Pieces that are read ahead of the network.
const PIECES_AHEAD: usize = 4;
/// How many requests of peers to host an app or to drain may wait for the node.
pub(crate) const WAITING_ASKS: usize = 1_024;
/// When to ask again where more wait.
const ASKS_PAUSE: Duration = Duration::from_secs(1);
/// Records in one message, at some 400 bytes each well below what an envelope holds.
const RECORDS_PER_MESSAGE: usize = 1_000;

#[derive(Serialize, Deserialize)]
struct AnnounceParams {
    deployments: Vec<Arc<Deployment>>,
}

#[derive(Serialize, Deserialize)]
struct FetchParams {
    #[serde(with = "hex")]
    bundle: [u8; 32],
    #[serde(default)]
    offset: u64,
}

/// What is said before the first piece.
#[derive(Serialize, Deserialize)]
struct Fetched {
    /// Of the whole bundle.
    bytes: u64,
}

/// What is said of a piece: nothing so far.
#[derive(Serialize)]
struct Piece {}

#[derive(Serialize, Deserialize)]
struct HostParams {
    app: Arc<str>,
}

#[derive(Serialize, Deserialize)]
struct DrainParams {
    /// Whether to drain, or to end it.
    on: bool,
}

/// Tells a peer what is deployed, be it nothing; whether the peer knows of deployments.
pub(crate) async fn announce(caller: &Caller, deployments: &[Arc<Deployment>]) -> Result<bool, PeerError> {
    let mut messages = deployments.chunks(RECORDS_PER_MESSAGE);
    let mut records = messages.next().unwrap_or_default();
    loop {
        let params = AnnounceParams { deployments: records.to_vec() };
        match caller.call(ANNOUNCE, &params, Bytes::new()).await {
            Ok(response) => read::<()>(&response)?,
            Err(CallError::Failed(failure)) if failure.code == METHOD_NOT_FOUND => return Ok(false),
            Err(error) => return Err(error.into()),
        }
        match messages.next() {
            Some(next) => records = next,
            None => return Ok(true),
        }
    }
}

/// The bytes of a bundle from `offset` on, in pieces, and how long it is as a whole.
pub(crate) async fn fetch_bundle(caller: &Caller, bundle: [u8; 32], offset: u64) -> Result<(u64, Items), PeerError> {
    match caller.call(FETCH_BUNDLE, &FetchParams { bundle, offset }, Bytes::new()).await? {
        Response::Stream(items) => {
            let opening: Fetched =
                serde_json::from_str(items.opening().get()).map_err(|error| invalid(&error.to_string()))?;
            Ok((opening.bytes, items))
        }
        Response::Value { .. } => Err(invalid("it is not streamed")),
    }
}

/// Asks a peer to host an app, too.
pub(crate) async fn host(caller: &Caller, app: Arc<str>) -> Result<(), PeerError> {
    read(&caller.call(HOST, &HostParams { app }, Bytes::new()).await?)
}

/// Asks a peer to drain, or to end it.
pub(crate) async fn drain(caller: &Caller, on: bool) -> Result<(), PeerError> {
    read(&caller.call(DRAIN, &DrainParams { on }, Bytes::new()).await?)
}

pub(super) fn answer_announce(
    deployments: &Deployments,
    inputs: &mpsc::UnboundedSender<Input>,
    request: &Request<'_>,
) -> LocalFuture<Answer> {
    let others = match params::<AnnounceParams>(request) {
        Ok(AnnounceParams { deployments }) => deployments,
        Err(failure) => return fail(failure),
    };
    let (deployments, inputs) = (deployments.clone(), inputs.clone());
    Box::pin(async move {
        let merged = task::spawn_blocking(move || deployments.merge(others, SystemTime::now())).await;
        match merged.map_err(|error| error.to_string()).and_then(|merged| merged.map_err(|error| error.to_string())) {
            Ok(new) => {
                if !new.is_empty() {
                    let _ = inputs.send(Input::Deployed(new));
                }
                value(&())
            }
            Err(reason) => {
                tracing::error!(target: "fnmesh::mesh", %reason, "cannot take over what is deployed");
                Answer::Failed(Failure::new(INTERNAL_ERROR, reason))
            }
        }
    })
}

pub(super) fn answer_fetch(bundles: &Bundles, request: &Request<'_>) -> LocalFuture<Answer> {
    let FetchParams { bundle, offset } = match params(request) {
        Ok(asked) => asked,
        Err(failure) => return fail(failure),
    };
    let path = bundles.path(&bundle);
    Box::pin(async move {
        let open = move || -> io::Result<(File, u64)> {
            let mut file = File::open(path)?;
            let bytes = file.metadata()?.len();
            file.seek(SeekFrom::Start(offset))?;
            Ok((file, bytes))
        };
        match task::spawn_blocking(open).await.unwrap_or_else(|error| Err(io::Error::other(error))) {
            Ok((file, bytes)) => {
                Answer::Stream { opening: json(&Fetched { bytes }), items: Box::pin(Pieces::read(file)) }
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let bundle = hex::encode(&bundle);
                Answer::Failed(Failure::new(INVALID_PARAMS, format_args!("no bundle {bundle} is here")))
            }
            Err(error) => Answer::Failed(Failure::new(INTERNAL_ERROR, error)),
        }
    })
}

pub(super) fn answer_host(asks: &mpsc::Sender<Ask>, peer: NodeId, request: &Request<'_>) -> LocalFuture<Answer> {
    match params(request) {
        Ok(HostParams { app }) => pass_on(asks, Ask::Host { app, peer }),
        Err(failure) => fail(failure),
    }
}

pub(super) fn answer_drain(asks: &mpsc::Sender<Ask>, peer: NodeId, request: &Request<'_>) -> LocalFuture<Answer> {
    match params(request) {
        Ok(DrainParams { on }) => pass_on(asks, Ask::Drain { on, peer }),
        Err(failure) => fail(failure),
    }
}

fn pass_on(asks: &mpsc::Sender<Ask>, ask: Ask) -> LocalFuture<Answer> {
    match asks.try_send(ask) {
        Ok(()) => Box::pin(async { value(&()) }),
        Err(TrySendError::Full(_)) => {
            let reason = format!("{WAITING_ASKS} requests of peers wait for this node already");
            fail(fault::failure(&Error::Throttled { reason, retry_after: ASKS_PAUSE, rate: false }))
        }
        // The node ends.
        Err(TrySendError::Closed(_)) => fail(fault::failure(&Error::Draining)),
    }
}

/// What a blocking thread reads of a file.
struct Pieces(mpsc::Receiver<io::Result<Bytes>>);

impl Pieces {
    fn read(mut file: File) -> Self {
        let (sender, pieces) = mpsc::channel(PIECES_AHEAD);
        task::spawn_blocking(move || {
            loop {
                let mut piece = Vec::with_capacity(PIECE_BYTES);
                let read = (&mut file).take(PIECE_BYTES as u64).read_to_end(&mut piece);
                let is_last = !matches!(read, Ok(1..));
                // Nothing is sent at the end; and nobody may listen any more.
                if matches!(read, Ok(0)) || sender.blocking_send(read.map(|_| piece.into())).is_err() || is_last {
                    return;
                }
            }
        });
        Self(pieces)
    }
}

impl Stream for Pieces {
    type Item = Result<Item, Failure>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll_recv(cx).map(|piece| {
            piece.map(|piece| match piece {
                Ok(piece) => Ok((json(&Piece {}), piece)),
                Err(error) => Err(Failure::new(INTERNAL_ERROR, error)),
            })
        })
    }
}
