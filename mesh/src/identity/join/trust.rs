//! Whom a joiner trusts: it knows nothing of the mesh but what is in its token.

use std::sync::{Arc, OnceLock};

use rustls::client::danger::{ServerCertVerified, ServerCertVerifier};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use webpki::KeyUsage;

use crate::{
    NodeId,
    identity::{
        ALPN_JOIN, Invalid, Token,
        certificate::{anchor, fingerprint, verify},
        tls,
    },
};

/// The joiner does not know the member's id: this name is sent to nobody and compared with nothing.
pub(super) const SERVER_NAME: &str = "fnmesh-join";

/// For one try to join.
pub(super) fn client_config(verifier: Arc<OfToken>) -> quinn::ClientConfig {
    let mut config = rustls::ClientConfig::builder_with_provider(tls::provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("ring has TLS 1.3")
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    config.enable_sni = false;
    tls::client_config(config, ALPN_JOIN)
}

/// Accepts a node whose certificate was made by the CA that a token is for. The CA's certificate
/// comes with it.
#[derive(Debug)]
pub(super) struct OfToken {
    mesh: [u8; 32],
    /// Who it is, or why it was not accepted: the connection's error is but a text.
    result: OnceLock<Result<NodeId, Invalid>>,
}

impl OfToken {
    pub(super) fn new(token: &Token) -> Self {
        Self { mesh: token.mesh(), result: OnceLock::new() }
    }

    /// Who was met, once the handshake is over.
    pub(super) fn result(&self) -> Option<&Result<NodeId, Invalid>> {
        self.result.get()
    }

    fn verify(
        &self,
        certificate: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<NodeId, Invalid> {
        let ca = others.iter().find(|other| fingerprint(other) == self.mesh).ok_or(Invalid::OtherMesh)?;
        verify(certificate, &anchor(ca)?, now, KeyUsage::server_auth())
    }
}

impl ServerCertVerifier for OfToken {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let result = self.result.get_or_init(|| self.verify(certificate, others, now));
        result.clone().map(|_| ServerCertVerified::assertion()).map_err(tls::reason)
    }

    tls::tls13_signatures!();
}
