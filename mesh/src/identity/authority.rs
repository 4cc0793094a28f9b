use std::{fmt, time::SystemTime};

use rcgen::{CertificateSigningRequestParams, Issuer, KeyPair, PublicKey};
use rustls_pki_types::{CertificateDer, CertificateSigningRequestDer};

use super::{
    Error,
    certificate::{fingerprint, is_name, key_of, make_leaf, node_of_key, validity},
};
use crate::NodeId;

/// The key of a mesh's CA: who has it can admit nodes and renew their certificates.
///
/// It signs whatever it is asked to: whether the asker may have a certificate is decided before.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
    ends: SystemTime,
}

/// Why a request for a certificate was not signed.
#[derive(Debug, thiserror::Error)]
pub enum SignError {
    /// It is no PKCS #10 request with an Ed25519 key.
    #[error("the certificate request is not a PKCS #10 request for an Ed25519 key: {0}")]
    Malformed(String),
    /// Its signature does not verify: the asker does not have the key.
    #[error("the certificate request is not signed by its own key")]
    NotSigned,
    /// It is for another node's key.
    #[error("the certificate request is for node {found}, not for node {expected}")]
    WrongNode {
        /// Who asks.
        expected: NodeId,
        /// Whose key it is.
        found: NodeId,
    },
    /// The certificate could not be made.
    #[error(transparent)]
    Failed(#[from] Error),
}

impl Authority {
    /// The authority of the CA with this certificate; `None` if this is not its key.
    pub(super) fn new(certificate: CertificateDer<'static>, key: KeyPair) -> Result<Option<Self>, Error> {
        if NodeId::of_key(&key_of(&certificate)?) != node_of_key(&key) {
            return Ok(None);
        }
        let (_, ends) = validity(&certificate)?;
        Ok(Some(Self { issuer: Issuer::from_ca_cert_der(&certificate, key)?, certificate, ends }))
    }

    /// Makes a certificate for the key of a certificate request (PKCS #10, DER), valid from `now` for
    /// [`LEAF_LIFE`](super::LEAF_LIFE). All else that the request asks for is ignored.
    ///
    /// For a renewal, `expected` is the node at the other end of the link. Whether it is denied is
    /// not asked here: such a node has no link.
    ///
    /// # Errors
    /// If the request is malformed, not signed by its key, or for the key of another node.
    pub fn sign(
        &self,
        request: &[u8],
        expected: NodeId,
        now: SystemTime,
    ) -> Result<CertificateDer<'static>, SignError> {
        let key = requested_key(request)?;
        let found = node_of_key(&key);
        if found != expected {
            return Err(SignError::WrongNode { expected, found });
        }
        Ok(make_leaf(&key, &self.issuer, now, self.ends)?)
    }

    /// SHA-256 of the CA's certificate: what join tokens carry.
    pub fn fingerprint(&self) -> [u8; 32] {
        fingerprint(&self.certificate)
    }

    /// The CA's key as PKCS #8 in DER, for a node that is to share the authority.
    pub(super) fn key_der(&self) -> &[u8] {
        self.issuer.key().serialized_der()
    }
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority").field("ends", &self.ends).finish_non_exhaustive()
    }
}

/// The node that a certificate request is for; it has shown that it has the key.
pub(super) fn requester(request: &[u8]) -> Result<NodeId, SignError> {
    Ok(node_of_key(&requested_key(request)?))
}

fn requested_key(request: &[u8]) -> Result<PublicKey, SignError> {
    let request = CertificateSigningRequestDer::from(request);
    let parsed = CertificateSigningRequestParams::from_der(&request).map_err(|error| match error {
        rcgen::Error::InvalidCertificationRequestSignature => SignError::NotSigned,
        other => SignError::Malformed(other.to_string()),
    })?;
    let key = parsed.public_key;
    if *key.algorithm() != rcgen::PKCS_ED25519 {
        return Err(SignError::Malformed("its key is of another kind".to_owned()));
    }
    if !is_name(node_of_key(&key)) {
        return Err(SignError::Malformed("its node id has no letter, make another key".to_owned()));
    }
    Ok(key)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rcgen::{BasicConstraints, CertificateParams, IsCa};

    use super::*;
    use crate::identity::certificate::{make_ca, new_key, node_of};

    fn authority() -> Authority {
        let key = new_key().unwrap();
        let ca = make_ca(&key, SystemTime::now()).unwrap();
        Authority::new(ca, key).unwrap().unwrap()
    }

    fn request(key: &KeyPair) -> Vec<u8> {
        CertificateParams::default().serialize_request(key).unwrap().der().to_vec()
    }

    #[test]
    fn signs_for_the_key_of_the_request() {
        let key = new_key().unwrap();
        let node = node_of_key(&key);
        let leaf = authority().sign(&request(&key), node, SystemTime::now()).unwrap();
        assert_eq!(node_of(&leaf), Ok(node));
    }

    #[test]
    fn names_and_powers_of_the_request_are_ignored() {
        let key = new_key().unwrap();
        let node = node_of_key(&key);
        let mut wish = CertificateParams::new(vec!["other.example".to_owned()]).unwrap();
        wish.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let request = wish.serialize_request(&key).unwrap();
        let leaf = authority().sign(request.der(), node, SystemTime::now()).unwrap();
        assert_eq!(node_of(&leaf), Ok(node));
        let (_, parsed) = x509_parser::parse_x509_certificate(&leaf).unwrap();
        assert!(!parsed.is_ca());
    }

    #[test]
    fn request_for_another_key_is_refused() {
        let (key, other) = (new_key().unwrap(), new_key().unwrap());
        let result = authority().sign(&request(&key), node_of_key(&other), SystemTime::now());
        assert!(matches!(result, Err(SignError::WrongNode { .. })), "{result:?}");
    }

    #[test]
    fn request_signed_by_another_key_is_refused() {
        let mut request = request(&new_key().unwrap());
        // The signature is the last field.
        *request.last_mut().unwrap() ^= 1;
        assert!(matches!(requester(&request), Err(SignError::NotSigned)));
    }

    #[test]
    fn key_of_another_kind_is_refused() {
        let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
        assert!(matches!(requester(&request(&key)), Err(SignError::Malformed(_))));
    }

    #[test]
    fn another_key_is_not_the_authority() {
        let (key, other) = (new_key().unwrap(), new_key().unwrap());
        let ca = make_ca(&key, SystemTime::now()).unwrap();
        assert!(Authority::new(ca, other).unwrap().is_none());
    }

    proptest! {
        // A bit of the encoding around what is signed may go unnoticed.
        #[test]
        fn changed_request_is_refused_or_for_the_same_key(index in 0_usize..1000, flip in 1_u8..) {
            let key = new_key().unwrap();
            let mut request = request(&key);
            let index = index % request.len();
            request[index] ^= flip;
            if let Ok(node) = requester(&request) {
                prop_assert_eq!(node, node_of_key(&key));
            }
        }

        #[test]
        fn garbage_is_no_request(bytes: Vec<u8>) {
            prop_assert!(requester(&bytes).is_err());
        }
    }
}
