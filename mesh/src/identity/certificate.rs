//! Certificates of a mesh: how they are made, and the one check of them.

use std::{
    fmt,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PublicKeyData, SanType, SerialNumber, SigningKey,
};
use ring::digest::{SHA256, digest};
use rustls_pki_types::{CertificateDer, ServerName, TrustAnchor, UnixTime};
use webpki::{EndEntityCert, KeyUsage};
use x509_parser::{certificate::X509Certificate, prelude::FromDer};

use super::{Error, files};
use crate::NodeId;

/// How long a node's certificate is valid.
pub const LEAF_LIFE: Duration = Duration::from_secs(30 * 24 * 3600);

/// How much slower than the signer's a clock may go: certificates are valid from this long before
/// they were made.
pub const CLOCK_SKEW: Duration = Duration::from_secs(5 * 60);

const CA_LIFE: Duration = Duration::from_secs(3653 * 24 * 3600);

/// Why a certificate is not accepted.
#[derive(Clone, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    /// Another CA made it.
    #[error("the certificate was not made by this mesh's authority: the node is of another mesh")]
    OtherMesh,
    /// Its time is over.
    #[error(
        "the certificate has expired at {}: check the clocks; if they are right, remove the node's identity and join \
         again with a new token",
        humantime::format_rfc3339_seconds(*.since)
    )]
    Expired {
        /// When it ended.
        since: SystemTime,
    },
    /// Its time has not come.
    #[error("the certificate is valid only from {} on: check the clocks", humantime::format_rfc3339_seconds(*.from))]
    NotYet {
        /// When it begins.
        from: SystemTime,
    },
    /// Its name is not the hash of its key.
    #[error("the certificate's name is not the hash of its key: it is no certificate of a node")]
    Misnamed,
    /// It is somebody else's.
    #[error("node {expected} was expected, but the certificate is of node {found}")]
    WrongNode {
        /// Whose it should be.
        expected: String,
        /// Whose it is.
        found: NodeId,
    },
    /// It is no certificate as nodes have.
    #[error("the certificate is malformed: {0}")]
    Malformed(String),
}

// rustls shows errors of others by their Debug text.
impl fmt::Debug for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// SHA-256 of a certificate.
pub(super) fn fingerprint(certificate: &CertificateDer<'_>) -> [u8; 32] {
    let hash = digest(&SHA256, certificate);
    std::array::from_fn(|index| hash.as_ref()[index])
}

/// A new key whose node id can stand in a certificate.
pub(super) fn new_key() -> Result<KeyPair, Error> {
    loop {
        let key = KeyPair::generate_for(&rcgen::PKCS_ED25519)?;
        // One of 3 million ids has digits only, which is not allowed for a DNS name.
        if is_name(node_of_key(&key)) {
            return Ok(key);
        }
    }
}

/// Whether an id is valid as the DNS name it has to be.
pub(super) fn is_name(node: NodeId) -> bool {
    matches!(ServerName::try_from(node.to_string()), Ok(ServerName::DnsName(_)))
}

/// The id that belongs to a key.
pub(super) fn node_of_key(key: &impl PublicKeyData) -> NodeId {
    NodeId::of_key(&key.subject_public_key_info())
}

/// A new mesh's own certificate.
pub(super) fn make_ca(key: &KeyPair, now: SystemTime) -> Result<CertificateDer<'static>, Error> {
    // Meshes have different names so that "of another mesh" is not "with a bad signature".
    let mut params = params(format!("fnmesh {}", node_of_key(key)), now, now + CA_LIFE)?;
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    Ok(params.self_signed(key)?.into())
}

/// A node's certificate. Nothing in it is of the node's choice but its key.
pub(super) fn make_leaf(
    key: &impl PublicKeyData,
    issuer: &Issuer<'_, impl SigningKey>,
    now: SystemTime,
    latest: SystemTime,
) -> Result<CertificateDer<'static>, Error> {
    let name = node_of_key(key).to_string();
    let mut params = params(name.clone(), now, latest.min(now + LEAF_LIFE))?;
    params.subject_alt_names = vec![SanType::DnsName(name.try_into()?)];
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    params.use_authority_key_identifier_extension = true;
    Ok(params.signed_by(key, issuer)?.into())
}

fn params(name: String, now: SystemTime, until: SystemTime) -> Result<CertificateParams, Error> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.not_before = (now - CLOCK_SKEW).into();
    params.not_after = until.into();
    let mut serial = files::random::<16>()?;
    // Serial numbers are positive (RFC 5280, 4.1.2.2).
    serial[0] = serial[0] & 0x7f | 0x40;
    params.serial_number = Some(SerialNumber::from_slice(&serial));
    Ok(params)
}

/// When a certificate begins and ends.
pub(super) fn validity(certificate: &CertificateDer<'_>) -> Result<(SystemTime, SystemTime), Invalid> {
    let (_, parsed) = X509Certificate::from_der(certificate).map_err(|error| Invalid::Malformed(error.to_string()))?;
    let time = |seconds: i64| {
        let seconds = u64::try_from(seconds).map_err(|_| Invalid::Malformed("a time before 1970".to_owned()))?;
        UNIX_EPOCH.checked_add(Duration::from_secs(seconds)).ok_or_else(|| Invalid::Malformed("a time too late".into()))
    };
    let validity = parsed.validity();
    Ok((time(validity.not_before.timestamp())?, time(validity.not_after.timestamp())?))
}

/// The public key in a certificate, as `SubjectPublicKeyInfo` in DER.
pub(super) fn key_of(certificate: &CertificateDer<'_>) -> Result<Vec<u8>, Invalid> {
    let parsed = EndEntityCert::try_from(certificate).map_err(malformed)?;
    Ok(parsed.subject_public_key_info().to_vec())
}

/// The node whose certificate this is: its one name, which must be the hash of its key. Says
/// nothing about who made it.
pub(super) fn node_of(certificate: &CertificateDer<'_>) -> Result<NodeId, Invalid> {
    let parsed = EndEntityCert::try_from(certificate).map_err(malformed)?;
    let node = NodeId::of_key(&parsed.subject_public_key_info());
    let mut names = parsed.valid_dns_names();
    match (names.next(), names.next()) {
        (Some(name), None) if name.parse() == Ok(node) => Ok(node),
        _ => Err(Invalid::Misnamed),
    }
}

/// The node whose certificate this is, if the mesh with this CA made it and it is valid now.
pub(super) fn verify(
    certificate: &CertificateDer<'_>,
    ca: &TrustAnchor<'_>,
    now: UnixTime,
    usage: KeyUsage,
) -> Result<NodeId, Invalid> {
    let parsed = EndEntityCert::try_from(certificate).map_err(malformed)?;
    let roots = std::slice::from_ref(ca);
    parsed.verify_for_usage(&[webpki::ring::ED25519], roots, &[], now, usage, None, None).map_err(|error| {
        let time = |time: UnixTime| UNIX_EPOCH + Duration::from_secs(time.as_secs());
        match error {
            webpki::Error::CertExpired { not_after, .. } => Invalid::Expired { since: time(not_after) },
            webpki::Error::CertNotValidYet { not_before, .. } => Invalid::NotYet { from: time(not_before) },
            webpki::Error::UnknownIssuer | webpki::Error::InvalidSignatureForPublicKey => Invalid::OtherMesh,
            other => malformed(other),
        }
    })?;
    node_of(certificate)
}

/// What certificates are checked against.
pub(super) fn anchor(ca: &CertificateDer<'_>) -> Result<TrustAnchor<'static>, Invalid> {
    Ok(webpki::anchor_from_trusted_cert(ca).map_err(malformed)?.to_owned())
}

/// A point in time as webpki wants it; before 1970 it is 1970.
pub(super) fn unix_time(now: SystemTime) -> UnixTime {
    UnixTime::since_unix_epoch(now.duration_since(UNIX_EPOCH).unwrap_or_default())
}

fn malformed(error: webpki::Error) -> Invalid {
    Invalid::Malformed(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Mesh {
        issuer: Issuer<'static, KeyPair>,
        anchor: TrustAnchor<'static>,
    }

    fn mesh(now: SystemTime) -> Mesh {
        let key = new_key().unwrap();
        let ca = make_ca(&key, now).unwrap();
        Mesh { issuer: Issuer::from_ca_cert_der(&ca, key).unwrap(), anchor: anchor(&ca).unwrap() }
    }

    fn check(leaf: &CertificateDer<'_>, mesh: &Mesh, now: SystemTime) -> Result<NodeId, Invalid> {
        let both = [KeyUsage::client_auth(), KeyUsage::server_auth()];
        let [client, server] = both.map(|usage| verify(leaf, &mesh.anchor, unix_time(now), usage));
        assert_eq!(client, server);
        client
    }

    #[test]
    fn leaf_is_valid_from_before_now_for_its_life() {
        let now = SystemTime::now();
        let mesh = mesh(now);
        let key = new_key().unwrap();
        let leaf = make_leaf(&key, &mesh.issuer, now, now + CA_LIFE).unwrap();
        let second = Duration::from_secs(1);
        for inside in [now - CLOCK_SKEW + second, now, now + LEAF_LIFE - second] {
            assert_eq!(check(&leaf, &mesh, inside), Ok(node_of_key(&key)));
        }
        assert!(matches!(check(&leaf, &mesh, now - CLOCK_SKEW - second), Err(Invalid::NotYet { .. })));
        assert!(matches!(check(&leaf, &mesh, now + LEAF_LIFE + second), Err(Invalid::Expired { .. })));
    }

    #[test]
    fn leaf_of_another_mesh_is_refused() {
        let now = SystemTime::now();
        let (ours, theirs) = (mesh(now), mesh(now));
        let leaf = make_leaf(&new_key().unwrap(), &theirs.issuer, now, now + CA_LIFE).unwrap();
        assert_eq!(check(&leaf, &ours, now), Err(Invalid::OtherMesh));
    }

    #[test]
    fn name_that_is_not_the_hash_of_the_key_is_refused() {
        let now = SystemTime::now();
        let mesh = mesh(now);
        let (key, other) = (new_key().unwrap(), new_key().unwrap());
        let names = |names: &[NodeId]| names.iter().map(ToString::to_string).collect::<Vec<_>>();
        let (own, others) = (node_of_key(&key), node_of_key(&other));
        for names in [names(&[others]), names(&[own, others]), names(&[])] {
            let mut params = CertificateParams::new(names).unwrap();
            params.not_after = (now + LEAF_LIFE).into();
            let leaf = params.signed_by(&key, &mesh.issuer).unwrap();
            assert_eq!(check(leaf.der(), &mesh, now), Err(Invalid::Misnamed));
        }
    }

    #[test]
    fn leaf_ends_no_later_than_its_ca() {
        let now = SystemTime::now();
        let mesh = mesh(now);
        let end = now + Duration::from_secs(100);
        let leaf = make_leaf(&new_key().unwrap(), &mesh.issuer, now, end).unwrap();
        assert!(validity(&leaf).unwrap().1 <= end);
    }

    #[test]
    fn ca_is_no_certificate_of_a_node() {
        let now = SystemTime::now();
        let key = new_key().unwrap();
        let ca = make_ca(&key, now).unwrap();
        let mesh = Mesh { anchor: anchor(&ca).unwrap(), issuer: Issuer::from_ca_cert_der(&ca, key).unwrap() };
        assert!(matches!(check(&ca, &mesh, now), Err(Invalid::Malformed(_))));
    }
}
