//! Members that listen on 127.0.0.1, clients that do as they like, and what members log.

use std::{
    fs, io,
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, SystemTime},
};

use base64::{Engine, engine::general_purpose};
use fnmesh_mesh::identity::{
    self, ALPN_JOIN, ALPN_MESH, Admitted, DenyList, Identity, Refusal, Token, TokenOptions, Tokens,
    join::{self, JoinError, Joined, PeerAddress},
};
use quinn::{Connection, ConnectionError, Endpoint, crypto::rustls::QuicClientConfig};
use rustls::{
    ClientConfig, ConfigBuilder, DigitallySignedStruct, SignatureScheme,
    client::{
        WantsClientCert,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    sign::{CertifiedKey, SingleCertAndKey},
};
use rustls_pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName, UnixTime, pem::PemObject};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::task::JoinSet;
use tracing::subscriber::DefaultGuard;
use tracing_subscriber::fmt::MakeWriter;

pub(crate) const HOUR: Duration = Duration::from_secs(3600);

/// A node with an endpoint.
pub(crate) struct Node {
    pub(crate) root: TempDir,
    pub(crate) identity: Identity,
    pub(crate) tokens: Tokens,
    pub(crate) denied: DenyList,
    pub(crate) endpoint: Endpoint,
    pub(crate) address: SocketAddr,
    /// Bytes that were read as calls.
    pub(crate) called: Arc<AtomicUsize>,
    pub(crate) refusals: Arc<Mutex<Vec<Refusal>>>,
    tasks: JoinSet<()>,
}

impl Node {
    /// The first node of a new mesh.
    pub(crate) fn first() -> Self {
        let root = tempfile::tempdir().unwrap();
        let identity = Identity::found(&root.path().join("identity"), SystemTime::now()).unwrap();
        Self::with(root, identity)
    }

    /// A node that joined by another one.
    pub(crate) async fn joined(by: &Self, options: TokenOptions) -> Self {
        let joiner = Joiner::new();
        let joined = joiner.join(by.address, &by.token(options)).await.unwrap();
        Self::with(joiner.root, joined.identity)
    }

    pub(crate) fn with(root: TempDir, identity: Identity) -> Self {
        let directory = root.path().join("identity");
        let endpoint = Endpoint::server(identity.server_config(), (Ipv4Addr::LOCALHOST, 0).into()).unwrap();
        Self {
            tokens: Tokens::load(&directory).unwrap(),
            denied: DenyList::load(&directory).unwrap(),
            address: endpoint.local_addr().unwrap(),
            endpoint,
            identity,
            root,
            called: Arc::default(),
            refusals: Arc::default(),
            tasks: JoinSet::new(),
        }
    }

    /// Accepts connections as a transport does. It is now as often as wanted.
    pub(crate) fn serve(self) -> Self {
        self.serve_at(SystemTime::now)
    }

    pub(crate) fn serve_at(mut self, now: impl Fn() -> SystemTime + Copy + Send + 'static) -> Self {
        let (endpoint, identity) = (self.endpoint.clone(), self.identity.clone());
        let (tokens, denied) = (self.tokens.clone(), self.denied.clone());
        let (called, refusals) = (self.called.clone(), self.refusals.clone());
        let peers = [PeerAddress { node: identity.id(), address: self.address }];
        self.tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Some(incoming) = endpoint.accept().await {
                let (identity, tokens, denied) = (identity.clone(), tokens.clone(), denied.clone());
                let (called, refusals) = (called.clone(), refusals.clone());
                connections.spawn(async move {
                    match identity::accept(incoming, &identity, &denied).await {
                        Ok((connection, Admitted::Peer(_) | Admitted::Calls(_))) => {
                            count_calls(&connection, &called).await;
                        }
                        Ok((connection, Admitted::Joiner)) => {
                            let _ = join::serve(&connection, &identity, &tokens, &peers, now()).await;
                        }
                        Err(refusal) => refusals.lock().unwrap().push(refusal),
                    }
                });
            }
        });
        self
    }

    pub(crate) fn token(&self, options: TokenOptions) -> Token {
        self.tokens.create(self.identity.authority().unwrap(), options, SystemTime::now()).unwrap()
    }

    /// Connects as a peer, sends some bytes on a stream, and returns how it ended: with what the peer answered, or
    /// with the reason why the connection was closed.
    pub(crate) async fn call(&self, to: &Self) -> Result<Vec<u8>, ConnectionError> {
        let config = self.identity.client_config();
        let name = to.identity.id().to_string();
        call(&self.endpoint.connect_with(config, to.address, &name).unwrap().await?).await
    }

    pub(crate) fn called(&self) -> usize {
        self.called.load(Ordering::Relaxed)
    }
}

/// Reads what a peer sends and says how much it was.
async fn count_calls(connection: &Connection, called: &AtomicUsize) {
    while let Ok((mut send, mut recv)) = connection.accept_bi().await {
        let bytes = recv.read_to_end(1 << 16).await.unwrap_or_default();
        called.fetch_add(bytes.len(), Ordering::Relaxed);
        let _ = send.write_all(bytes.len().to_string().as_bytes()).await;
        let _ = send.finish();
    }
}

/// Sends what looks like a call, and reads the answer.
pub(crate) async fn call(connection: &Connection) -> Result<Vec<u8>, ConnectionError> {
    let (mut send, mut recv) = connection.open_bi().await?;
    let _ = send.write_all(br#"{"jsonrpc":"2.0","id":1,"method":"invoke"}"#).await;
    let _ = send.finish();
    match recv.read_to_end(1 << 16).await {
        Ok(answer) => Ok(answer),
        Err(_) => Err(connection.closed().await),
    }
}

/// A machine that is no node yet.
pub(crate) struct Joiner {
    pub(crate) root: TempDir,
    pub(crate) endpoint: Endpoint,
}

impl Joiner {
    pub(crate) fn new() -> Self {
        Self {
            root: tempfile::tempdir().unwrap(),
            endpoint: Endpoint::client((Ipv4Addr::LOCALHOST, 0).into()).unwrap(),
        }
    }

    pub(crate) fn directory(&self) -> PathBuf {
        self.root.path().join("identity")
    }

    pub(crate) async fn join(&self, address: SocketAddr, token: &Token) -> Result<Joined, JoinError> {
        Box::pin(join::join(&self.endpoint, address, token, &self.directory())).await
    }

    /// Tries to join; what it is told when it is refused.
    pub(crate) async fn refused(&self, address: SocketAddr, token: &Token) -> String {
        match self.join(address, token).await {
            Err(JoinError::Refused { reason, .. }) => {
                assert!(Identity::load(&self.directory()).unwrap().is_none());
                reason
            }
            other => panic!("not refused: {other:?}"),
        }
    }

    /// Connects with the joining protocol, whoever is there.
    pub(crate) async fn connect(&self, address: SocketAddr) -> Connection {
        let config = careless_client(None, ALPN_JOIN);
        self.endpoint.connect_with(config, address, "anybody").unwrap().await.unwrap()
    }
}

/// A client that does not look at whom it talks to. It shows the certificate in a directory, if any.
pub(crate) fn careless_client(identity: Option<&TempDir>, alpn: &[u8]) -> quinn::ClientConfig {
    careless_config(alpn, |builder| match identity {
        None => builder.with_no_client_auth(),
        Some(root) => builder.with_client_cert_resolver(Arc::new(shown(root, root))),
    })
}

fn careless_config(
    alpn: &[u8],
    complete: impl FnOnce(ConfigBuilder<ClientConfig, WantsClientCert>) -> ClientConfig,
) -> quinn::ClientConfig {
    let builder = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anybody));
    let mut config = complete(builder);
    config.alpn_protocols = vec![alpn.to_vec()];
    quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(config).unwrap()))
}

/// The certificate in one directory, with the key in another.
fn shown(certificate: &TempDir, key: &TempDir) -> SingleCertAndKey {
    let read = |root: &TempDir, name| fs::read(root.path().join("identity").join(name)).unwrap();
    let certificate = CertificateDer::from_pem_slice(&read(certificate, "node.pem")).unwrap();
    let key = PrivatePkcs8KeyDer::from_pem_slice(&read(key, "node.key")).unwrap();
    let key = rustls::crypto::ring::sign::any_eddsa_type(&key).unwrap();
    CertifiedKey::new(vec![certificate], key).into()
}

/// Connects for calls without looking at whom.
pub(crate) async fn careless_call(identity: Option<&TempDir>, to: &Node) -> Result<Vec<u8>, ConnectionError> {
    careless_call_with(careless_client(identity, ALPN_MESH), to).await
}

/// Connects for calls with another node's certificate, but not its key.
pub(crate) async fn call_with_stolen(certificate: &TempDir, key: &TempDir, to: &Node) -> ConnectionError {
    let config =
        careless_config(ALPN_MESH, |builder| builder.with_client_cert_resolver(Arc::new(shown(certificate, key))));
    careless_call_with(config, to).await.unwrap_err()
}

pub(crate) async fn careless_call_with(config: quinn::ClientConfig, to: &Node) -> Result<Vec<u8>, ConnectionError> {
    let endpoint = Endpoint::client((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
    let connecting = endpoint.connect_with(config, to.address, "anybody").unwrap();
    call(&connecting.await?).await
}

/// The join request as `docs/protocol.md` has it, made without the library.
pub(crate) fn request(token: &Token, connection: &Connection, csr: &[u8]) -> Value {
    let text = token.to_string();
    let secret = general_purpose::URL_SAFE_NO_PAD.decode(text.rsplit_once('.').unwrap().1).unwrap();
    let (id, secret) = secret.split_at(8);
    let key = ring::digest::digest(&ring::digest::SHA256, secret);
    let mut exported = [0; 32];
    connection.export_keying_material(&mut exported, b"EXPORTER-fnmesh-join", b"").unwrap();
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, key.as_ref());
    let proof = ring::hmac::sign(&key, &[&exported[..], csr].concat());
    let id: String = id.iter().map(|byte| format!("{byte:02x}")).collect();
    let base64 = |bytes: &[u8]| general_purpose::STANDARD.encode(bytes);
    let params = json!({ "token": id, "csr": base64(csr), "proof": base64(proof.as_ref()) });
    json!({ "jsonrpc": "2.0", "id": 7, "method": "join", "params": params })
}

/// Sends a request with its length, and reads the answer.
pub(crate) async fn ask(connection: &Connection, request: &[u8]) -> Value {
    let framed = [&u32::try_from(request.len()).unwrap().to_le_bytes(), request].concat();
    ask_raw(connection, &framed).await
}

/// Sends bytes, and reads the answer.
pub(crate) async fn ask_raw(connection: &Connection, bytes: &[u8]) -> Value {
    let (mut send, mut recv) = connection.open_bi().await.unwrap();
    send.write_all(bytes).await.unwrap();
    let _ = send.finish();
    let answer = recv.read_to_end(1 << 16).await.unwrap();
    assert_eq!(u32::from_le_bytes(answer[..4].try_into().unwrap()) as usize, answer.len() - 4);
    serde_json::from_slice(&answer[4..]).unwrap()
}

/// Accepts any server.
#[derive(Debug)]
struct Anybody;

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        unreachable!("TLS 1.3")
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }
}

/// What is logged on this thread while it is there.
pub(crate) struct Log {
    lines: Lines,
    _guard: DefaultGuard,
}

#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Log {
    pub(crate) fn new() -> Self {
        let lines = Lines::default();
        let subscriber = tracing_subscriber::fmt().json().with_writer(lines.clone()).finish();
        Self { lines, _guard: tracing::subscriber::set_default(subscriber) }
    }

    /// What was logged since the last time.
    pub(crate) fn lines(&self) -> Vec<Value> {
        let bytes = std::mem::take(&mut *self.lines.0.lock().unwrap_or_else(PoisonError::into_inner));
        let lines = bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        lines.map(|line| serde_json::from_slice(line).unwrap()).collect()
    }

    /// The reasons of the refusals that were logged since the last time.
    pub(crate) fn refusals(&self) -> Vec<String> {
        self.lines()
            .into_iter()
            .filter(|line| line["level"] == "WARN")
            .map(|line| {
                assert_eq!(line["target"], "fnmesh::mesh");
                let fields = &line["fields"];
                assert!(fields["message"].as_str().unwrap().ends_with(" refused"), "{line}");
                assert!(fields["remote"].as_str().unwrap().starts_with("127.0.0.1:"), "{line}");
                fields["reason"].as_str().unwrap().to_owned()
            })
            .collect()
    }

    /// The one refusal that is logged, as soon as it is.
    pub(crate) async fn refusal(&self) -> String {
        loop {
            let mut refusals = self.refusals();
            match (refusals.pop(), refusals.is_empty()) {
                (Some(refusal), true) => return refusal,
                (None, _) => tokio::task::yield_now().await,
                (Some(last), false) => panic!("more than one refusal: {refusals:?}, {last}"),
            }
        }
    }
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

impl io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
