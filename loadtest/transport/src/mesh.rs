//! The mesh's transport, with requests like those of `invoke`.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::Path,
    rc::Rc,
};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use clap::ValueEnum;
use fnmesh_mesh::{
    NodeId,
    identity::{Admitted, DenyList, Identity, accept},
    transport::{
        Answer, Caller, Failure, Handler, INVALID_PARAMS, LocalFuture, METHOD_NOT_FOUND, Request, Response,
        frame::Limits, quic, serve as serve_link,
    },
};
use quinn::Endpoint;
use serde::{Deserialize, Serialize};
use serde_json::value::{RawValue, to_raw_value};
use tokio::task::spawn_local;

use crate::{
    listening,
    load::{BODY, Call},
};

/// [`quic::Congestion`] on the command line.
#[derive(Clone, Copy, Default, ValueEnum)]
pub(crate) enum Congestion {
    #[default]
    Auto,
    Cubic,
    Bbr,
}

impl From<Congestion> for quic::Congestion {
    fn from(congestion: Congestion) -> Self {
        match congestion {
            Congestion::Auto => Self::Auto,
            Congestion::Cubic => Self::Cubic,
            Congestion::Bbr => Self::Bbr,
        }
    }
}

/// The parameters of `invoke` that are always there.
#[derive(Serialize, Deserialize)]
struct Params<'a> {
    function: &'a str,
    invocation: &'a str,
    budget_us: u64,
    hops: u8,
    format: &'a str,
}

/// What is said of an answer.
#[derive(Serialize, Deserialize)]
struct Described<'a> {
    format: &'a str,
}

pub(crate) async fn serve(directory: &Path, listen: SocketAddr, congestion: Congestion) -> Result<()> {
    let identity = load(directory)?;
    let denied = DenyList::load(directory)?;
    let mut config = identity.server_config();
    config.transport_config(quic::transport(congestion.into()));
    let endpoint = quic::bind(listen, quic::endpoint_config(&identity), Some(config))?;
    listening(endpoint.local_addr()?, identity.id())?;
    while let Some(incoming) = endpoint.accept().await {
        let (identity, denied) = (identity.clone(), denied.clone());
        spawn_local(async move {
            if let Ok((connection, Admitted::Peer(_))) = accept(incoming, &identity, &denied).await {
                serve_link(connection, Rc::new(Echo), Limits::default()).await;
            }
        });
    }
    Ok(())
}

fn load(directory: &Path) -> Result<Identity> {
    Identity::load(directory)?.with_context(|| format!("{} is empty; run `identities` first", directory.display()))
}

struct Echo;

impl Handler for Echo {
    fn handle(&self, request: Request<'_>) -> LocalFuture<Answer> {
        let answer = match answer(&request) {
            Ok(result) => Answer::Value { result, body: request.body },
            Err(failure) => Answer::Failed(failure),
        };
        Box::pin(async { answer })
    }

    fn notified(&self, _: Request<'_>) {}
}

fn answer(request: &Request<'_>) -> Result<Box<RawValue>, Failure> {
    if request.method != "echo" {
        return Err(Failure::new(METHOD_NOT_FOUND, "echo is all there is"));
    }
    let invalid = |error| Failure::new(INVALID_PARAMS, error);
    let params: Params<'_> = serde_json::from_str(request.params.map_or("null", RawValue::get)).map_err(invalid)?;
    to_raw_value(&Described { format: params.format }).map_err(invalid)
}

#[derive(Clone)]
pub(crate) struct Client {
    caller: Caller,
    _endpoint: Endpoint,
}

impl Client {
    pub(crate) async fn connect(
        directory: &Path,
        address: SocketAddr,
        node: NodeId,
        congestion: Congestion,
    ) -> Result<Self> {
        let identity = load(directory)?;
        let mut config = identity.client_config();
        config.transport_config(quic::transport(congestion.into()));
        let endpoint = quic::bind((Ipv4Addr::UNSPECIFIED, 0).into(), quic::endpoint_config(&identity), None)?;
        let connection = endpoint.connect_with(config, address, &node.to_string())?.await?;
        let (caller, run) = Caller::new(connection, Limits::default());
        tokio::spawn(run);
        Ok(Self { caller, _endpoint: endpoint })
    }
}

impl Call for Client {
    async fn call(&mut self) -> Result<()> {
        let params = Params {
            function: "shop/add",
            invocation: "0123456789abcdef0123456789abcdef",
            budget_us: 29_999_990,
            hops: 1,
            format: "json",
        };
        let Response::Value { result, body } = self.caller.call("echo", &params, Bytes::from_static(BODY)).await?
        else {
            anyhow::bail!("the answer is streamed");
        };
        let Described { format } = serde_json::from_str(result.get())?;
        ensure!(format == "json" && body == BODY[..], "the answer is not the request");
        Ok(())
    }
}
