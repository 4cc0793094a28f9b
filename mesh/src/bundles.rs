//! The bundles that a node keeps, and how it gets those of others.

use std::{
    collections::BTreeSet,
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Read as _, Write},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use tokio::{task, time::timeout};

use crate::{
    Handle, NodeId,
    deployments::Content,
    hex,
    rpc::{self, PeerError},
    transport::Items,
};

/// How long a peer may take for the next piece of a bundle.
const PIECE_TIMEOUT: Duration = Duration::from_secs(10);

/// Bundles by their hash. A file with the name of a hash is whole and has been checked; what is being fetched ends in
/// `.part`, and what is being packed in `.new`.
#[derive(Clone, Debug)]
pub struct Bundles {
    directory: Arc<Path>,
}

/// Why a bundle cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// No peer gives it.
    #[error("no node gives the bundle: {}", reasons.join("; "))]
    Nobody {
        /// What each one said.
        reasons: Vec<String>,
    },
    /// It cannot be written.
    #[error("cannot write {}: {source}", path.display())]
    Disk {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
}

impl Bundles {
    /// Those in `directory`, which is made if need be.
    ///
    /// # Errors
    /// If the directory cannot be made.
    pub(crate) fn open(directory: PathBuf) -> io::Result<Self> {
        DirBuilder::new().recursive(true).mode(0o700).create(&directory)?;
        Ok(Self { directory: directory.into() })
    }

    /// Where a bundle is, if it is there.
    pub fn path(&self, bundle: &[u8; 32]) -> PathBuf {
        self.directory.join(hex::encode(bundle))
    }

    /// Whether a bundle is here, whole.
    pub fn contains(&self, bundle: &[u8; 32]) -> bool {
        self.path(bundle).is_file()
    }

    /// Keeps what `pack` writes; its hash and its length. Blocks on the disk.
    ///
    /// # Errors
    /// What `pack` says, or that the file cannot be written, which leaves nothing behind.
    pub fn add<E: From<io::Error>>(
        &self,
        pack: impl FnOnce(&mut dyn Write) -> Result<(), E>,
    ) -> Result<([u8; 32], u64), E> {
        let path = self.directory.join(format!("{:016x}.new", fastrand::u64(..)));
        let packed = (|| {
            let mut file = Hashing { file: create(&path)?, hasher: blake3::Hasher::new(), bytes: 0 };
            pack(&mut file)?;
            file.file.sync_all()?;
            let hash = *file.hasher.finalize().as_bytes();
            fs::rename(&path, self.path(&hash))?;
            File::open(&self.directory)?.sync_all()?;
            Ok((hash, file.bytes))
        })();
        if packed.is_err() {
            // Not there if it could not even be made.
            let _ = fs::remove_file(&path);
        }
        packed
    }

    /// Removes all bundles but these, and what is left of broken attempts. Nothing may be packed or fetched meanwhile.
    /// Blocks on the disk.
    ///
    /// # Errors
    /// If the directory cannot be read or a file not be removed.
    pub fn retain(&self, kept: &BTreeSet<[u8; 32]>) -> io::Result<()> {
        for entry in fs::read_dir(&self.directory)? {
            let entry = entry?;
            let name = entry.file_name();
            let name = name.to_string_lossy();
            let hash = hex::decode(name.strip_suffix(".part").unwrap_or(&name));
            if hash.is_none_or(|hash| !kept.contains(&hash)) {
                fs::remove_file(entry.path())?;
            }
        }
        Ok(())
    }

    fn part(&self, bundle: &[u8; 32]) -> PathBuf {
        self.path(bundle).with_extension("part")
    }

    /// Makes the fetched part the bundle if it is that; it is removed if not.
    fn check(&self, content: &Content) -> io::Result<bool> {
        let part = self.part(&content.bundle);
        let mut hasher = blake3::Hasher::new();
        let file = File::open(&part)?;
        hasher.update_reader((&file).take(content.bundle_bytes.saturating_add(1)))?;
        if *hasher.finalize().as_bytes() != content.bundle {
            fs::remove_file(&part)?;
            return Ok(false);
        }
        file.sync_all()?;
        fs::rename(&part, self.path(&content.bundle))?;
        File::open(&self.directory)?.sync_all()?;
        Ok(true)
    }
}

impl Handle {
    /// Whether a peer has the whole bundle of `content`.
    pub async fn has_bundle(&self, peer: NodeId, content: &Content) -> bool {
        let Some(caller) = self.callers().get(peer) else { return false };
        let asked = timeout(PIECE_TIMEOUT, rpc::fetch_bundle(&caller, content.bundle, content.bundle_bytes));
        asked.await.is_ok_and(|answer| answer.is_ok())
    }

    /// Sees to it that the bundle of `content` is here: fetched from the first of `peers` that gives it, going on where
    /// an earlier attempt was cut off. `tell` hears how much of it is here. One fetch of a bundle at a time.
    ///
    /// # Errors
    /// [`FetchError`]; what has come so far is kept for the next attempt.
    pub async fn fetch_bundle(
        &self,
        content: &Content,
        peers: &[NodeId],
        mut tell: impl FnMut(u64),
    ) -> Result<PathBuf, FetchError> {
        let bundles = self.bundles();
        let path = bundles.path(&content.bundle);
        let mut reasons = Vec::new();
        if peers.is_empty() && !bundles.contains(&content.bundle) {
            reasons.push("no other node is in reach".to_owned());
        }
        for peer in peers {
            if bundles.contains(&content.bundle) {
                break;
            }
            let Some(caller) = self.callers().get(*peer) else {
                reasons.push(format!("{peer}: there is no link to it"));
                continue;
            };
            let part = bundles.part(&content.bundle);
            let disk = |source| FetchError::Disk { path: part.clone(), source };
            let offset = match fs::metadata(&part) {
                Ok(metadata) if metadata.len() <= content.bundle_bytes => metadata.len(),
                Ok(_) => {
                    fs::remove_file(&part).map_err(disk)?;
                    0
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
                Err(error) => return Err(disk(error)),
            };
            let fetched = match timeout(PIECE_TIMEOUT, rpc::fetch_bundle(&caller, content.bundle, offset)).await {
                Ok(Ok((bytes, _))) if bytes != content.bundle_bytes => {
                    Err(format!("it has {bytes} bytes there and should have {}", content.bundle_bytes))
                }
                Ok(Ok((_, items))) => receive(&part, items, content.bundle_bytes - offset, |done| tell(offset + done))
                    .await
                    .map_err(disk)?,
                Ok(Err(PeerError::Failed(error))) => Err(error.message()),
                Ok(Err(PeerError::NotSent(reason) | PeerError::Lost(reason))) => Err(reason),
                Err(_) => Err(format!("it does not answer within {PIECE_TIMEOUT:?}")),
            };
            if let Err(reason) = fetched {
                reasons.push(format!("{peer}: {reason}"));
                continue;
            }
            let (bundles, wanted) = (bundles.clone(), content.clone());
            let checked = task::spawn_blocking(move || bundles.check(&wanted)).await;
            if !checked.unwrap_or_else(|error| Err(io::Error::other(error))).map_err(disk)? {
                tracing::warn!(target: "fnmesh::mesh", %peer, "a bundle is not what its hash says; it is thrown away");
                reasons.push(format!("{peer}: what came is not the bundle with this hash"));
            }
        }
        if bundles.contains(&content.bundle) { Ok(path) } else { Err(FetchError::Nobody { reasons }) }
    }
}

/// Appends what comes to a file; the inner error is the peer's. All that came stays in the file.
async fn receive(
    part: &Path,
    mut items: Items,
    mut missing: u64,
    mut tell: impl FnMut(u64),
) -> io::Result<Result<(), String>> {
    let wanted = missing;
    let mut file = append(part)?;
    while missing > 0 {
        let piece = match timeout(PIECE_TIMEOUT, items.next()).await {
            Ok(Some(Ok((_, piece)))) if piece.len() as u64 <= missing => piece,
            Ok(Some(Ok(_))) => return Ok(Err("it sends more than the bundle".to_owned())),
            Ok(Some(Err(error))) => return Ok(Err(error.to_string())),
            Ok(None) => return Ok(Err("it sends less than the bundle".to_owned())),
            Err(_) => return Ok(Err(format!("nothing came for {PIECE_TIMEOUT:?}"))),
        };
        missing -= piece.len() as u64;
        file = write(file, piece).await?;
        tell(wanted - missing);
    }
    Ok(Ok(()))
}

async fn write(mut file: File, piece: Bytes) -> io::Result<File> {
    let written = task::spawn_blocking(move || file.write_all(&piece).map(|()| file)).await;
    written.unwrap_or_else(|error| Err(io::Error::other(error)))
}

fn create(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)
}

fn append(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).mode(0o600).open(path)
}

/// A file whose content is hashed as it is written.
struct Hashing {
    file: File,
    hasher: blake3::Hasher,
    bytes: u64,
}

impl Write for Hashing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.hasher.update(&bytes[..written]);
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}
