//! The same by tonic, with its defaults: one channel, which is one HTTP/2 connection, for all callers.

use std::{fs, net::SocketAddr, path::Path};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use fnmesh_mesh::{NodeId, identity};
use tonic::{
    Response, Status, async_trait,
    transport::{
        Certificate, Channel, ClientTlsConfig, Endpoint, Identity, Server, ServerTlsConfig, server::TcpIncoming,
    },
};

use crate::{
    listening,
    load::{BODY, Call},
};

mod service {
    include!(concat!(env!("OUT_DIR"), "/bench.Echo.rs"));
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Request {
    #[prost(string, tag = "1")]
    function: String,
    #[prost(string, tag = "2")]
    invocation: String,
    #[prost(uint64, tag = "3")]
    budget_us: u64,
    #[prost(uint32, tag = "4")]
    hops: u32,
    #[prost(string, tag = "5")]
    format: String,
    #[prost(bytes = "bytes", tag = "6")]
    body: Bytes,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Answer {
    #[prost(string, tag = "1")]
    format: String,
    #[prost(bytes = "bytes", tag = "2")]
    body: Bytes,
}

struct Echo;

#[async_trait]
impl service::echo_server::Echo for Echo {
    async fn echo(&self, request: tonic::Request<Request>) -> Result<Response<Answer>, Status> {
        let Request { format, body, .. } = request.into_inner();
        Ok(Response::new(Answer { format, body }))
    }
}

/// The files of an identity, for TLS.
struct Files {
    own: Identity,
    ca: Certificate,
}

impl Files {
    fn read(directory: &Path) -> Result<Self> {
        let read = |name| {
            let path = directory.join(name);
            fs::read(&path).with_context(|| format!("cannot read {}", path.display()))
        };
        Ok(Self {
            own: Identity::from_pem(read("node.pem")?, read("node.key")?),
            ca: Certificate::from_pem(read("ca.pem")?),
        })
    }
}

pub(crate) async fn serve(directory: &Path, listen: SocketAddr) -> Result<()> {
    let Files { own, ca } = Files::read(directory)?;
    let node = identity::Identity::load(directory)?.context("there is no identity")?.id();
    let incoming = TcpIncoming::bind(listen)?.with_nodelay(Some(true));
    listening(incoming.local_addr()?, node)?;
    Server::builder()
        .tls_config(ServerTlsConfig::new().identity(own).client_ca_root(ca))?
        .add_service(service::echo_server::EchoServer::new(Echo))
        .serve_with_incoming(incoming)
        .await?;
    Ok(())
}

#[derive(Clone)]
pub(crate) struct Client(service::echo_client::EchoClient<Channel>);

impl Client {
    pub(crate) async fn connect(directory: &Path, address: SocketAddr, node: NodeId) -> Result<Self> {
        let Files { own, ca } = Files::read(directory)?;
        let tls = ClientTlsConfig::new().identity(own).ca_certificate(ca).domain_name(node.to_string());
        let channel = Endpoint::from_shared(format!("https://{address}"))?.tls_config(tls)?.connect().await?;
        Ok(Self(service::echo_client::EchoClient::new(channel)))
    }
}

impl Call for Client {
    async fn call(&mut self) -> Result<()> {
        let request = Request {
            function: "shop/add".to_owned(),
            invocation: "0123456789abcdef0123456789abcdef".to_owned(),
            budget_us: 29_999_990,
            hops: 1,
            format: "json".to_owned(),
            body: Bytes::from_static(BODY),
        };
        let Answer { format, body } = self.0.echo(request).await?.into_inner();
        ensure!(format == "json" && body == BODY[..], "the answer is not the request");
        Ok(())
    }
}
