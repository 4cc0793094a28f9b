//! Directories that are made once, by whichever node comes first, and are complete or not there.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::Duration,
};

use rustix::fs::{FlockOperation, flock};
use tokio::time::{Instant, sleep};

use super::{InstallError, failed_to};

/// Says that a directory was made to the end. Directories are made in their final place, and not renamed into it,
/// because scripts in virtual environments contain their own path.
const COMPLETE: &str = ".complete";

/// As long as another node's installation may take: two tools.
const LOCK_TIMEOUT: Duration = Duration::from_secs(2 * super::command::TIMEOUT.as_secs());
const LOCK_POLL: Duration = Duration::from_millis(50);

pub(super) const HASH_LENGTH: usize = 32;

/// One name for all `parts`, in hex digits.
pub(super) fn hash<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> String {
    let mut hasher = blake3::Hasher::new();
    for part in parts {
        hasher.update(&(part.len() as u64).to_le_bytes()).update(part);
    }
    let mut hex = hasher.finalize().to_hex().to_string();
    hex.truncate(HASH_LENGTH);
    hex
}

/// Makes `directory` by `make`, which finds it empty, unless it is already complete. Only one does so at a time, also
/// of several nodes. What a failed or interrupted one left is removed.
pub(super) async fn once(
    directory: &Path,
    make: impl AsyncFnOnce() -> Result<(), InstallError>,
) -> Result<(), InstallError> {
    let complete = directory.join(COMPLETE);
    if complete.exists() {
        return Ok(());
    }
    let parent = directory.parent().unwrap_or(directory);
    fs::create_dir_all(parent).map_err(failed_to("create", parent))?;
    let _lock = Lock::acquire(directory.with_extension("lock")).await?;
    if complete.exists() {
        return Ok(());
    }
    remove(directory).await.map_err(failed_to("remove", directory))?;
    fs::create_dir(directory).map_err(failed_to("create", directory))?;
    let made = match make().await {
        Ok(()) => fs::write(&complete, "").map_err(failed_to("create", &complete)),
        failed => failed,
    };
    if made.is_err() {
        // The reason for the failure tells more than one for this, and the next attempt removes it anyway.
        let _ = remove(directory).await;
    }
    made
}

/// Off the thread: packages can have very many files.
async fn remove(directory: &Path) -> io::Result<()> {
    let directory = directory.to_owned();
    match tokio::task::spawn_blocking(move || fs::remove_dir_all(directory)).await.map_err(io::Error::other)? {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// An exclusive lock on a file that is there only while somebody holds or wants it.
struct Lock {
    file: PathBuf,
    _held: File,
}

impl Lock {
    async fn acquire(file: PathBuf) -> Result<Self, InstallError> {
        let failed = failed_to("lock", &file);
        let deadline = Instant::now() + LOCK_TIMEOUT;
        loop {
            let opened = File::create(&file).map_err(&failed)?;
            match flock(&opened, FlockOperation::NonBlockingLockExclusive) {
                // Who held it before may have removed the file we opened: then somebody else can lock a new one.
                Ok(()) if is_same(&opened, &file) => return Ok(Self { file: file.clone(), _held: opened }),
                Ok(()) => continue,
                Err(rustix::io::Errno::WOULDBLOCK) if Instant::now() < deadline => sleep(LOCK_POLL).await,
                Err(error) => return Err(failed(error.into())),
            }
        }
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // A file that stays does no harm.
        let _ = fs::remove_file(&self.file);
    }
}

fn is_same(opened: &File, path: &Path) -> bool {
    match (opened.metadata(), fs::metadata(path)) {
        (Ok(opened), Ok(there)) => (opened.dev(), opened.ino()) == (there.dev(), there.ino()),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use tokio::task::yield_now;

    use super::*;

    fn failure() -> InstallError {
        InstallError::Interpreter { program: "p".into(), reason: "r".into() }
    }

    fn names(directory: &Path) -> Vec<String> {
        fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    #[tokio::test]
    async fn complete_directory_is_not_made_again() {
        let cache = tempfile::tempdir().unwrap();
        let directory = cache.path().join("kind/hash");
        let made = Cell::new(0);
        for _ in 0..3 {
            once(&directory, async || {
                made.set(made.get() + 1);
                fs::write(directory.join("content"), "").map_err(failed_to("write", &directory))
            })
            .await
            .unwrap();
        }
        assert_eq!(made.get(), 1);
        assert!(directory.join("content").exists());
        assert_eq!(names(&cache.path().join("kind")), ["hash"]);
    }

    #[tokio::test]
    async fn failure_leaves_nothing_and_can_be_repeated() {
        let cache = tempfile::tempdir().unwrap();
        let directory = cache.path().join("hash");
        let fails = async || {
            fs::write(directory.join("half"), "").unwrap();
            Err(failure())
        };
        once(&directory, fails).await.unwrap_err();
        assert_eq!(names(cache.path()), [""; 0]);
        once(&directory, async || Ok(())).await.unwrap();
    }

    #[tokio::test]
    async fn interrupted_attempt_is_cleared_away() {
        let cache = tempfile::tempdir().unwrap();
        let directory = cache.path().join("hash");
        fs::create_dir(&directory).unwrap();
        fs::write(directory.join("half"), "").unwrap();
        once(&directory, async || {
            assert_eq!(names(&directory), [""; 0]);
            Ok(())
        })
        .await
        .unwrap();
    }

    #[tokio::test]
    async fn attempts_at_once_make_it_once() {
        let cache = tempfile::tempdir().unwrap();
        let directory = cache.path().join("hash");
        let (inside, made) = (Cell::new(0), Cell::new(0));
        let attempt = || {
            once(&directory, async || {
                assert_eq!(inside.replace(1), 0);
                for _ in 0..100 {
                    yield_now().await;
                }
                inside.set(0);
                made.set(made.get() + 1);
                // The first one fails, so that another takes over.
                if made.get() == 1 { Err(failure()) } else { Ok(()) }
            })
        };
        let (a, b, c) = tokio::join!(attempt(), attempt(), attempt());
        assert_eq!([a, b, c].iter().filter(|result| result.is_ok()).count(), 2);
        assert_eq!(made.get(), 2);
        assert_eq!(names(cache.path()), ["hash"]);
    }
}
