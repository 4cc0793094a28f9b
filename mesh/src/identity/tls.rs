//! TLS configurations: TLS 1.3 with ring, Ed25519 only, no resumption and no 0-RTT, so that each
//! connection shows a certificate that is valid at that moment.

use std::sync::Arc;

use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use rustls::{
    OtherError, SignatureScheme,
    client::{
        ResolvesClientCert, Resumption,
        danger::{ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, WebPkiSupportedAlgorithms},
    server::{
        ClientHello, NoServerSessionStorage, ResolvesServerCert,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
    sign::CertifiedKey,
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use webpki::{EndEntityCert, KeyUsage};

use super::{
    Identity, Invalid,
    certificate::{node_of, verify},
};

/// The application protocol of calls between nodes; both sides have certificates.
pub const ALPN_MESH: &[u8] = b"fnmesh/1";

/// The application protocol of connections on which only the node that dialled makes calls; both sides have
/// certificates.
pub const ALPN_CALL: &[u8] = b"fnmesh-call/1";

/// The application protocol of joining; the client has no certificate yet.
pub const ALPN_JOIN: &[u8] = b"fnmesh-join/1";

/// Nodes sign with Ed25519: nothing else is offered, and no other parser is reachable.
pub(super) const ALGORITHMS: WebPkiSupportedAlgorithms = WebPkiSupportedAlgorithms {
    all: &[webpki::ring::ED25519],
    mapping: &[(SignatureScheme::ED25519, &[webpki::ring::ED25519])],
};

impl Identity {
    /// For the endpoint of this node, for all protocols. Set a `TransportConfig` on it as needed.
    ///
    /// A client certificate is checked if there is one. Whether there has to be one depends on the
    /// protocol: call [`accept`](super::accept) or [`admit`](super::admit) for each connection.
    pub fn server_config(&self) -> quinn::ServerConfig {
        let presented = Arc::new(Presented(self.clone()));
        let mut config = rustls::ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .expect("ring has TLS 1.3")
            .with_client_cert_verifier(Arc::new(OfMesh(self.clone())))
            .with_cert_resolver(presented);
        config.alpn_protocols = vec![ALPN_MESH.to_vec(), ALPN_CALL.to_vec(), ALPN_JOIN.to_vec()];
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        let crypto = QuicServerConfig::try_from(config).expect("ring has QUIC's initial cipher suite");
        quinn::ServerConfig::with_crypto(Arc::new(crypto))
    }

    /// For connections to other nodes; the server name is the expected node's id as text. Set a
    /// `TransportConfig` on it as needed.
    ///
    /// If the other side refuses this node, `connect` succeeds nevertheless, and the connection is
    /// closed after that: see [`told`](super::told).
    pub fn client_config(&self) -> quinn::ClientConfig {
        self.client_config_for(ALPN_MESH)
    }

    /// As [`Identity::client_config`], for connections that only this side calls over. Nodes that know no such
    /// connections fail the handshake.
    pub fn call_config(&self) -> quinn::ClientConfig {
        self.client_config_for(ALPN_CALL)
    }

    pub(crate) fn client_config_for(&self, alpn: &[u8]) -> quinn::ClientConfig {
        let config = rustls::ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .expect("ring has TLS 1.3")
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(OfMesh(self.clone())))
            .with_client_cert_resolver(Arc::new(Presented(self.clone())));
        client_config(config, alpn)
    }
}

/// Completes the configuration of a client for one protocol.
pub(super) fn client_config(mut config: rustls::ClientConfig, alpn: &[u8]) -> quinn::ClientConfig {
    config.alpn_protocols = vec![alpn.to_vec()];
    config.resumption = Resumption::disabled();
    let crypto = QuicClientConfig::try_from(config).expect("ring has QUIC's initial cipher suite");
    quinn::ClientConfig::new(Arc::new(crypto))
}

/// Never the process's default, which whoever comes first decides.
pub(super) fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// As the reason of a failed handshake: quinn sends the text to the other side.
pub(super) fn reason(invalid: Invalid) -> rustls::Error {
    rustls::Error::Other(OtherError(Arc::new(invalid)))
}

/// Shows the certificate that this node has at the moment of the handshake.
#[derive(Debug)]
struct Presented(Identity);

impl ResolvesServerCert for Presented {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.certified())
    }
}

impl ResolvesClientCert for Presented {
    fn resolve(&self, _authorities: &[&[u8]], schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        schemes.contains(&SignatureScheme::ED25519).then(|| self.0.certified())
    }

    fn has_certs(&self) -> bool {
        true
    }
}

/// What all verifiers of certificates do the same: signatures are those of TLS 1.3, by [`ALGORITHMS`].
macro_rules! tls13_signatures {
    () => {
        fn verify_tls12_signature(
            &self,
            _message: &[u8],
            _certificate: &rustls_pki_types::CertificateDer<'_>,
            _signature: &rustls::DigitallySignedStruct,
        ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
            Err(rustls::Error::General("only TLS 1.3 is spoken here".to_owned()))
        }

        fn verify_tls13_signature(
            &self,
            message: &[u8],
            certificate: &rustls_pki_types::CertificateDer<'_>,
            signature: &rustls::DigitallySignedStruct,
        ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
            let algorithms = &$crate::identity::tls::ALGORITHMS;
            rustls::crypto::verify_tls13_signature(message, certificate, signature, algorithms)
        }

        fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
            $crate::identity::tls::ALGORITHMS.supported_schemes()
        }
    };
}
pub(super) use tls13_signatures;

/// Accepts certificates of this node's mesh.
#[derive(Debug)]
struct OfMesh(Identity);

impl ClientCertVerifier for OfMesh {
    // Joiners have none.
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[rustls::DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        certificate: &CertificateDer<'_>,
        _others: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        verify(certificate, self.0.anchor(), now, KeyUsage::client_auth()).map_err(reason)?;
        Ok(ClientCertVerified::assertion())
    }

    tls13_signatures!();
}

impl ServerCertVerifier for OfMesh {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        _others: &[CertificateDer<'_>],
        expected: &ServerName<'_>,
        _ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        verify(certificate, self.0.anchor(), now, KeyUsage::server_auth()).map_err(reason)?;
        check_name(certificate, expected).map_err(reason)?;
        Ok(ServerCertVerified::assertion())
    }

    tls13_signatures!();
}

fn check_name(certificate: &CertificateDer<'_>, expected: &ServerName<'_>) -> Result<(), Invalid> {
    let matches = EndEntityCert::try_from(certificate)
        .and_then(|parsed| parsed.verify_is_valid_for_subject_name(expected))
        .is_ok();
    if matches {
        return Ok(());
    }
    Err(Invalid::WrongNode { expected: expected.to_str().into_owned(), found: node_of(certificate)? })
}
