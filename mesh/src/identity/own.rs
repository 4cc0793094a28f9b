use std::{
    fmt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::SystemTime,
};

use arc_swap::ArcSwap;
use rcgen::{CertificateParams, Issuer, KeyPair};
use rustls::sign::{CertifiedKey, SigningKey};
use rustls_pki_types::{CertificateDer, PrivatePkcs8KeyDer, TrustAnchor};
use webpki::KeyUsage;

use super::{
    Authority, Error, Invalid,
    certificate::{self, node_of_key, unix_time, validity},
    files::{self, Staging},
};
use crate::NodeId;

/// Who this node is: its key, its certificate, the mesh's CA, and the CA's key if it has it. Cheap
/// to clone; all clones see a renewed certificate.
#[derive(Clone)]
pub struct Identity(Arc<Inner>);

struct Inner {
    directory: PathBuf,
    node: NodeId,
    key: KeyPair,
    signing: Arc<dyn SigningKey>,
    ca: CertificateDer<'static>,
    anchor: TrustAnchor<'static>,
    authority: Option<Authority>,
    leaf: ArcSwap<Leaf>,
    /// Held while the file of the certificate is replaced.
    renewing: Mutex<()>,
}

struct Leaf {
    certified: Arc<CertifiedKey>,
    not_before: SystemTime,
    not_after: SystemTime,
}

impl Identity {
    /// Makes a new mesh and this node's identity in it, in `directory`, which must not be there yet or be
    /// empty. The directory appears whole or, after a crash, not at all. Blocks on the disk.
    ///
    /// # Errors
    /// If there is something in the directory, or it cannot be written.
    pub fn found(directory: &Path, now: SystemTime) -> Result<Self, Error> {
        let staging = Staging::begin(directory)?;
        let ca_key = certificate::new_key()?;
        let ca = certificate::make_ca(&ca_key, now)?;
        let (_, ends) = validity(&ca)?;
        let key = certificate::new_key()?;
        let leaf = {
            let issuer = Issuer::from_ca_cert_der(&ca, &ca_key)?;
            certificate::make_leaf(&key, &issuer, now, ends)?
        };
        install(staging, directory, &key, &leaf, &ca, Some(ca_key.serialized_der()))
    }

    /// Reads the identity in `directory`; `None` if the directory is empty or not there. Blocks on
    /// the disk. An expired certificate is no error here: see [`Identity::expires`].
    ///
    /// # Errors
    /// If files are missing, damaged or do not belong together, or others can read the keys.
    pub fn load(directory: &Path) -> Result<Option<Self>, Error> {
        if files::is_vacant(directory)? {
            return Ok(None);
        }
        let missing = |file| move || Error::Incomplete { directory: directory.to_owned(), file };
        let path = |name: &str| directory.join(name);
        let ca = read_certificate(&path(files::CA_CERTIFICATE))?.ok_or_else(missing(files::CA_CERTIFICATE))?;
        let key = read_key(&path(files::NODE_KEY))?.ok_or_else(missing(files::NODE_KEY))?;
        let leaf = read_certificate(&path(files::NODE_CERTIFICATE))?.ok_or_else(missing(files::NODE_CERTIFICATE))?;
        let authority = match read_key(&path(files::CA_KEY))? {
            Some(ca_key) => {
                let foreign = || damaged(&path(files::CA_KEY), "it is not the key of ca.pem");
                Some(Authority::new(ca.clone(), ca_key)?.ok_or_else(foreign)?)
            }
            None => None,
        };
        let (not_before, _) = validity(&leaf)?;
        let identity = Self::new(directory, key, leaf, ca, authority)?;
        identity
            .check(&identity.certificate(), not_before)
            .map_err(|error| damaged(&path(files::NODE_CERTIFICATE), &error.to_string()))?;
        Ok(Some(identity))
    }

    fn new(
        directory: &Path,
        key: KeyPair,
        leaf: CertificateDer<'static>,
        ca: CertificateDer<'static>,
        authority: Option<Authority>,
    ) -> Result<Self, Error> {
        let signing =
            rustls::crypto::ring::sign::any_eddsa_type(&PrivatePkcs8KeyDer::from(key.serialized_der().to_vec()))
                .map_err(|error| Error::Crypto(error.to_string()))?;
        let leaf = Leaf::new(leaf, &ca, &signing)?;
        Ok(Self(Arc::new(Inner {
            directory: directory.to_owned(),
            node: node_of_key(&key),
            key,
            signing,
            anchor: certificate::anchor(&ca)?,
            ca,
            authority,
            leaf: ArcSwap::from_pointee(leaf),
            renewing: Mutex::new(()),
        })))
    }

    /// This node's id.
    pub fn id(&self) -> NodeId {
        self.0.node
    }

    /// The power to admit and to renew, if this node has the CA's key.
    pub fn authority(&self) -> Option<&Authority> {
        self.0.authority.as_ref()
    }

    /// SHA-256 of the CA's certificate: the mesh's name, so to speak.
    pub fn mesh(&self) -> [u8; 32] {
        certificate::fingerprint(&self.0.ca)
    }

    /// When this node's certificate ends.
    pub fn expires(&self) -> SystemTime {
        self.0.leaf.load().not_after
    }

    /// Whether two thirds of the certificate's life are over: from then on a node asks any node with
    /// an [`Authority`] for a new one.
    pub fn needs_renewal(&self, now: SystemTime) -> bool {
        let leaf = self.0.leaf.load();
        let life = leaf.not_after.duration_since(leaf.not_before).unwrap_or_default();
        now >= leaf.not_before + life * 2 / 3
    }

    /// A certificate request (PKCS #10, DER) for this node's key: what [`Authority::sign`] takes.
    ///
    /// # Errors
    /// If the cryptography library fails.
    pub fn request(&self) -> Result<Vec<u8>, Error> {
        certificate_request(&self.0.key)
    }

    /// Takes a renewed certificate into use: it is on disk when this returns, and the next
    /// handshake presents it. Blocks on the disk.
    ///
    /// # Errors
    /// If it is not valid now, not of this mesh or not for this node's key, or cannot be written; the old one stays.
    pub fn renewed(&self, certificate: &[u8], now: SystemTime) -> Result<(), Error> {
        let certificate = CertificateDer::from(certificate.to_vec());
        self.check(&certificate, now)?;
        let leaf = Leaf::new(certificate.clone(), &self.0.ca, &self.0.signing)?;
        let _writing = self.0.renewing.lock().unwrap_or_else(PoisonError::into_inner);
        files::replace(&self.0.directory.join(files::NODE_CERTIFICATE), &certificate_pem(&certificate))?;
        self.0.leaf.store(Arc::new(leaf));
        Ok(())
    }

    /// 32 secret bytes that are the same after a restart, and others for each purpose: for the
    /// transport's stateless-reset and connection-id keys.
    pub fn derived_key(&self, purpose: &str) -> [u8; 32] {
        let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, self.0.key.serialized_der());
        let tag = ring::hmac::sign(&key, purpose.as_bytes());
        std::array::from_fn(|index| tag.as_ref()[index])
    }

    /// Whether this is a certificate for this node that its peers would accept.
    fn check(&self, certificate: &CertificateDer<'_>, now: SystemTime) -> Result<(), Invalid> {
        let found = certificate::verify(certificate, &self.0.anchor, unix_time(now), KeyUsage::client_auth())?;
        if found != self.0.node {
            return Err(Invalid::WrongNode { expected: self.0.node.to_string(), found });
        }
        Ok(())
    }

    /// What this node shows in a handshake at this moment.
    pub(super) fn certified(&self) -> Arc<CertifiedKey> {
        self.0.leaf.load().certified.clone()
    }

    fn certificate(&self) -> CertificateDer<'static> {
        self.certified().cert[0].clone()
    }

    pub(super) fn ca(&self) -> &CertificateDer<'static> {
        &self.0.ca
    }

    pub(super) fn anchor(&self) -> &TrustAnchor<'static> {
        &self.0.anchor
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity").field("node", &self.0.node).finish_non_exhaustive()
    }
}

impl Leaf {
    fn new(
        certificate: CertificateDer<'static>,
        ca: &CertificateDer<'static>,
        signing: &Arc<dyn SigningKey>,
    ) -> Result<Self, Invalid> {
        let (not_before, not_after) = validity(&certificate)?;
        // With the CA's, which joiners compare with their token.
        let certified = Arc::new(CertifiedKey::new(vec![certificate, ca.clone()], signing.clone()));
        Ok(Self { certified, not_before, not_after })
    }
}

/// Writes an identity, and reads back what is on disk now.
pub(super) fn install(
    staging: Staging,
    directory: &Path,
    key: &KeyPair,
    leaf: &CertificateDer<'_>,
    ca: &CertificateDer<'_>,
    ca_key: Option<&[u8]>,
) -> Result<Identity, Error> {
    staging.write(files::NODE_KEY, &key.serialize_pem())?;
    staging.write(files::NODE_CERTIFICATE, &certificate_pem(leaf))?;
    staging.write(files::CA_CERTIFICATE, &certificate_pem(ca))?;
    if let Some(ca_key) = ca_key {
        staging.write(files::CA_KEY, &to_pem("PRIVATE KEY", ca_key))?;
    }
    staging.commit()?;
    let file = files::NODE_KEY;
    Identity::load(directory)?.ok_or_else(|| Error::Incomplete { directory: directory.to_owned(), file })
}

/// A certificate request for a key. It asks for nothing: the signer decides.
pub(super) fn certificate_request(key: &KeyPair) -> Result<Vec<u8>, Error> {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    Ok(params.serialize_request(key)?.der().to_vec())
}

fn read_certificate(path: &Path) -> Result<Option<CertificateDer<'static>>, Error> {
    let Some(text) = files::read(path)? else { return Ok(None) };
    match pem::parse(&text) {
        Ok(block) if block.tag() == "CERTIFICATE" => Ok(Some(block.into_contents().into())),
        _ => Err(damaged(path, "this is no certificate in PEM")),
    }
}

fn read_key(path: &Path) -> Result<Option<KeyPair>, Error> {
    let Some(text) = files::read_secret(path)? else { return Ok(None) };
    match KeyPair::from_pem(&text) {
        Ok(key) if *key.algorithm() == rcgen::PKCS_ED25519 => Ok(Some(key)),
        _ => Err(damaged(path, "this is no Ed25519 key in PEM")),
    }
}

fn damaged(path: &Path, reason: &str) -> Error {
    let reason = format!("{reason}. Restore the directory from a copy, or remove it and join again");
    Error::Damaged { path: path.to_owned(), reason }
}

fn certificate_pem(certificate: &CertificateDer<'_>) -> String {
    to_pem("CERTIFICATE", certificate)
}

fn to_pem(tag: &str, der: &[u8]) -> String {
    let config = pem::EncodeConfig::new().set_line_ending(pem::LineEnding::LF);
    pem::encode_config(&pem::Pem::new(tag, der), config)
}

#[cfg(test)]
mod tests;
