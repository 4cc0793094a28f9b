//! Notices that the files of an app have changed.

use std::{
    fs,
    path::{Component, Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use notify_debouncer_full::{
    DebounceEventResult, DebouncedEvent, Debouncer, RecommendedCache, new_debouncer,
    notify::{
        self, EventKind, RecommendedWatcher, RecursiveMode,
        event::{AccessKind, AccessMode},
    },
};
use tokio::sync::Notify;

/// Saving one file makes several events, and saving all files many.
const DEBOUNCE: Duration = Duration::from_millis(100);
/// Directories whose content is not an app's own code.
const FOREIGN: [&str; 3] = ["node_modules", "__pycache__", "venv"];

/// Watches the directories of apps.
pub(crate) struct Watcher {
    debouncer: Debouncer<RecommendedWatcher, RecommendedCache>,
}

impl Watcher {
    /// Watches nothing yet; later tells each app's [`Notify`] of changes below its directory.
    ///
    /// # Errors
    /// When the system refuses.
    pub(crate) fn new(apps: Vec<(PathBuf, Arc<Notify>)>) -> notify::Result<Self> {
        let handle = move |result: DebounceEventResult| {
            for (directory, changed) in &apps {
                let concerns = match &result {
                    Ok(events) => events.iter().any(|event| concerns(event, directory)),
                    // Events may have been lost: looking again is right for everybody.
                    Err(_) => true,
                };
                if concerns {
                    changed.notify_one();
                }
            }
        };
        Ok(Self { debouncer: new_debouncer(DEBOUNCE, None, handle)? })
    }

    /// Watches an app's directories as they are now; call it again before reading a change, because
    /// a new or replaced directory is not watched yet.
    ///
    /// Each is watched on its own: a recursive watch would also take all of `node_modules`.
    ///
    /// # Errors
    /// When the limit of watches is reached.
    pub(crate) fn watch(&mut self, directory: &Path) -> notify::Result<()> {
        let mut open = vec![directory.to_owned()];
        while let Some(next) = open.pop() {
            match self.debouncer.watch(&next, RecursiveMode::NonRecursive) {
                Ok(()) => open.extend(directories(&next)),
                // It went away in the meantime; the directory above it tells.
                Err(error) if !matches!(error.kind, notify::ErrorKind::MaxFilesWatch) && !next.is_dir() => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

fn directories(parent: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(parent).into_iter().flatten().flatten();
    entries
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()) && is_own(Path::new(&entry.file_name())))
        .map(|entry| entry.path())
        .collect()
}

/// Whether an event may mean another version of the app in `directory`.
fn concerns(event: &DebouncedEvent, directory: &Path) -> bool {
    let reads_only = matches!(event.kind, EventKind::Access(kind) if kind != AccessKind::Close(AccessMode::Write));
    !reads_only && event.paths.iter().any(|path| path.strip_prefix(directory).is_ok_and(is_own))
}

/// Whether a path inside an app is its own: no foreign code, nothing hidden but `.env`, no editor's leftovers.
fn is_own(relative: &Path) -> bool {
    relative.components().all(|component| {
        let Component::Normal(name) = component else { return false };
        let Some(name) = name.to_str() else { return true };
        let hidden = name.starts_with('.') && name != ".env";
        let leftover = name.ends_with('~')
            || name.starts_with('#')
            || name == "4913" // Vim tries whether it may write here.
            || [".swp", ".swx", ".tmp", ".part", ".pyc", "___jb_old___", "___jb_tmp___"].iter().any(|end| name.ends_with(end));
        !hidden && !leftover && !FOREIGN.contains(&name)
    })
}

#[cfg(test)]
mod tests {
    use tokio::time::timeout;

    use super::*;

    const SOON: Duration = Duration::from_secs(10);

    struct Fixture {
        root: tempfile::TempDir,
        watcher: Watcher,
        changed: Arc<Notify>,
    }

    impl Fixture {
        fn new() -> Self {
            let root = tempfile::tempdir().unwrap();
            fs::create_dir_all(root.path().join("node_modules/x")).unwrap();
            let changed = Arc::new(Notify::new());
            let mut watcher = Watcher::new(vec![(root.path().to_owned(), Arc::clone(&changed))]).unwrap();
            watcher.watch(root.path()).unwrap();
            Self { root, watcher, changed }
        }

        fn write(&self, file: &str) {
            fs::write(self.root.path().join(file), file).unwrap();
        }

        async fn hears(&self) -> bool {
            timeout(SOON, self.changed.notified()).await.is_ok()
        }

        /// What is not told in three times the debounce is not told.
        async fn is_quiet(&self) -> bool {
            timeout(DEBOUNCE * 3, self.changed.notified()).await.is_err()
        }
    }

    #[test]
    fn own_files_are_told_from_leftovers() {
        for own in ["", "shop.py", "lib/util.js", ".env", "requirements.txt", "data/a b.json"] {
            assert!(is_own(Path::new(own)), "{own}");
        }
        for other in [
            ".git/HEAD",
            "node_modules/x/index.js",
            "__pycache__/a.pyc",
            ".venv/bin/python",
            ".shop.py.swp",
            "shop.py~",
            "4913",
            "../x",
        ] {
            assert!(!is_own(Path::new(other)), "{other}");
        }
    }

    #[tokio::test]
    async fn written_file_is_noticed() {
        let fixture = Fixture::new();
        fixture.write("shop.py");
        assert!(fixture.hears().await);
    }

    #[tokio::test]
    async fn new_directory_is_watched_from_the_next_look_on() {
        let mut fixture = Fixture::new();
        fs::create_dir(fixture.root.path().join("lib")).unwrap();
        assert!(fixture.hears().await);
        fixture.watcher.watch(fixture.root.path()).unwrap();
        fixture.write("lib/util.py");
        assert!(fixture.hears().await);
    }

    #[tokio::test]
    async fn replaced_directory_is_watched_again() {
        let mut fixture = Fixture::new();
        let directory = fixture.root.path().to_owned();
        fs::remove_dir_all(&directory).unwrap();
        assert!(fixture.hears().await);
        fs::create_dir(&directory).unwrap();
        fixture.watcher.watch(&directory).unwrap();
        fixture.write("shop.py");
        assert!(fixture.hears().await);
    }

    #[tokio::test]
    async fn foreign_files_and_reading_are_not_heard() {
        let fixture = Fixture::new();
        fixture.write("shop.py");
        assert!(fixture.hears().await);
        // One write is several events, which may be told in two portions.
        while !fixture.is_quiet().await {}
        fixture.write("node_modules/x/index.js");
        fixture.write(".hidden");
        fs::read(fixture.root.path().join("shop.py")).unwrap();
        assert!(fixture.is_quiet().await);
    }
}
