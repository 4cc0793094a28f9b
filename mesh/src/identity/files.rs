//! Files that are there whole or not at all, and secrets that only their owner can read.

use std::{
    fs::{self, File, OpenOptions, Permissions},
    io::{self, ErrorKind, Read, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use ring::rand::{SecureRandom, SystemRandom};

use super::Error;

/// The files of an identity.
pub(super) const CA_CERTIFICATE: &str = "ca.pem";
pub(super) const CA_KEY: &str = "ca.key";
pub(super) const NODE_CERTIFICATE: &str = "node.pem";
pub(super) const NODE_KEY: &str = "node.key";
pub(super) const TOKENS: &str = "tokens.json";
pub(super) const DENIED: &str = "denied.json";

/// No file of ours is near this: beyond it there is something else in its place.
const MAX_BYTES: u64 = 16 << 20;

/// The latest time that a file of ours may tell, in seconds since 1970: `SystemTime` can hold it, and days more.
pub(super) const LATEST_SECONDS: u64 = (u32::MAX as u64) << 4;

/// Random bytes, for secrets and names.
pub(super) fn random<const N: usize>() -> Result<[u8; N], Error> {
    let mut bytes = [0; N];
    SystemRandom::new().fill(&mut bytes)?;
    Ok(bytes)
}

/// The times that a file tells, which others than us may have written, must be such that can be computed with.
pub(super) fn check_times(path: &Path, seconds: impl IntoIterator<Item = u64>, remedy: &str) -> Result<(), Error> {
    match seconds.into_iter().find(|seconds| *seconds > LATEST_SECONDS) {
        None => Ok(()),
        Some(late) => {
            let reason = format!("{late} s since 1970 is too late for a time, {LATEST_SECONDS} the latest. {remedy}");
            Err(Error::Damaged { path: path.to_owned(), reason })
        }
    }
}

/// Reads a file that may be public; `None` if it is not there.
pub(crate) fn read(path: &Path) -> Result<Option<String>, Error> {
    read_open(path, open(path)?)
}

/// Reads a file that nobody but its owner may read; `None` if it is not there.
pub(super) fn read_secret(path: &Path) -> Result<Option<String>, Error> {
    let file = open(path)?;
    if let Some(file) = &file {
        // Of the open file: the one at this path may be another by now.
        let mode = file.metadata().map_err(Error::io("read", path))?.permissions().mode() & 0o7777;
        if mode & 0o077 != 0 {
            return Err(Error::Exposed { path: path.to_owned(), mode });
        }
    }
    read_open(path, file)
}

fn open(path: &Path) -> Result<Option<File>, Error> {
    match File::open(path) {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::io("read", path)(error)),
    }
}

fn read_open(path: &Path, file: Option<File>) -> Result<Option<String>, Error> {
    let Some(file) = file else { return Ok(None) };
    let mut text = String::new();
    file.take(MAX_BYTES + 1).read_to_string(&mut text).map_err(Error::io("read", path))?;
    if text.len() as u64 > MAX_BYTES {
        let reason = format!("larger than {MAX_BYTES} bytes, so this is not a file of fnmesh");
        return Err(Error::Damaged { path: path.to_owned(), reason });
    }
    Ok(Some(text))
}

/// Replaces a file, or makes it: after a crash it has its old or its new content. Only its owner
/// can read it. Returns when the content is on disk.
///
/// Callers write a file from one place at a time.
pub(crate) fn replace(path: &Path, content: &str) -> Result<(), Error> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let temporary = path.with_file_name(format!(".{name}.new"));
    let directory = path.parent().unwrap_or(Path::new("."));
    let replace = || {
        match fs::remove_file(&temporary) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        write_new(&temporary, content)?;
        fs::rename(&temporary, path)?;
        sync_directory(directory)
    };
    replace().map_err(Error::io("write", path))
}

fn write_new(path: &Path, content: &str) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(content.as_bytes())?;
    file.sync_all()
}

fn sync_directory(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// A directory in the making: it appears under its name whole, or not at all.
#[derive(Debug)]
pub(super) struct Staging {
    target: PathBuf,
    path: PathBuf,
}

impl Staging {
    /// Begins the directory `target`, which must not be there, or be empty.
    pub(super) fn begin(target: &Path) -> Result<Self, Error> {
        if !is_vacant(target)? {
            return Err(Error::Exists { directory: target.to_owned() });
        }
        let parent = parent_of(target);
        fs::create_dir_all(parent).map_err(Error::io("create", parent))?;
        let prefix = format!(".{}.new-", target.file_name().unwrap_or_default().to_string_lossy());
        remove_leftovers(parent, &prefix);
        let path = parent.join(format!("{prefix}{:016x}", u64::from_be_bytes(random()?)));
        fs::DirBuilder::new().mode(0o700).create(&path).map_err(Error::io("create", &path))?;
        Ok(Self { target: target.to_owned(), path })
    }

    /// Writes a file of the directory.
    pub(super) fn write(&self, name: &str, content: &str) -> Result<(), Error> {
        let path = self.path.join(name);
        write_new(&path, content).map_err(Error::io("write", path))
    }

    /// Gives the directory its name.
    pub(super) fn commit(self) -> Result<(), Error> {
        let commit = || {
            sync_directory(&self.path)?;
            // Takes the place of an empty directory, of no other.
            fs::rename(&self.path, &self.target)?;
            fs::set_permissions(&self.target, Permissions::from_mode(0o700))?;
            sync_directory(parent_of(&self.target))
        };
        commit().map_err(Error::io("write", &self.target))
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        // Not there any more if it was committed.
        let _ = fs::remove_dir_all(&self.path);
    }
}

/// What a crash left behind: keys that no certificate was made for.
fn remove_leftovers(parent: &Path, prefix: &str) {
    for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().starts_with(prefix) {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

fn parent_of(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Whether there is nothing at this path, or an empty directory.
pub(super) fn is_vacant(directory: &Path) -> Result<bool, Error> {
    match fs::read_dir(directory) {
        Ok(mut entries) => Ok(entries.next().is_none()),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(true),
        Err(error) => Err(Error::io("read", directory)(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o7777
    }

    #[test]
    fn replaced_file_is_secret_and_whole() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("secret");
        // What a crash in the middle left.
        fs::write(root.path().join(".secret.new"), "ha").unwrap();
        replace(&path, "one").unwrap();
        replace(&path, "two").unwrap();
        assert_eq!(read_secret(&path).unwrap().as_deref(), Some("two"));
        assert_eq!(mode(&path), 0o600);
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 1);
    }

    #[test]
    fn secret_that_others_can_read_is_refused() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("node.key");
        fs::write(&path, "").unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o640)).unwrap();
        let text = read_secret(&path).unwrap_err().to_string();
        assert!(text.contains("0640") && text.contains(&format!("chmod 600 {}", path.display())), "{text}");
    }

    #[test]
    fn directory_appears_whole_or_not_at_all() {
        let root = tempfile::tempdir().unwrap();
        let target = root.path().join("a/identity");
        let staging = Staging::begin(&target).unwrap();
        staging.write("node.key", "x").unwrap();
        assert!(is_vacant(&target).unwrap());
        drop(staging);
        assert_eq!(fs::read_dir(root.path().join("a")).unwrap().count(), 0);

        // A crash: its destructor did not run.
        std::mem::forget(Staging::begin(&target).unwrap());
        let staging = Staging::begin(&target).unwrap();
        staging.write("node.key", "y").unwrap();
        staging.commit().unwrap();
        assert_eq!(fs::read_dir(root.path().join("a")).unwrap().count(), 1);
        assert_eq!((mode(&target), mode(&target.join("node.key"))), (0o700, 0o600));
        assert!(matches!(Staging::begin(&target), Err(Error::Exists { .. })));
    }

    #[test]
    fn file_of_unexpected_size_is_refused() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("ca.pem");
        fs::write(&path, vec![b'a'; MAX_BYTES as usize + 1]).unwrap();
        assert!(matches!(read(&path), Err(Error::Damaged { .. })));
    }
}
