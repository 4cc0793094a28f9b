//! The content hash that names a version of an app.

use std::{
    fs,
    io::{self, Read},
    os::unix::ffi::OsStrExt,
    path::{Component, Path, PathBuf},
};

use blake3::Hasher;
use bytesize::ByteSize;

use super::AppError;

/// How large an app may be, and what in it is no part of it.
pub(crate) struct Bounds {
    /// Data that it writes itself, absolute.
    pub(crate) data: Vec<PathBuf>,
    pub(crate) entries: usize,
    pub(crate) size: ByteSize,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { data: Vec::new(), entries: 10_000, size: ByteSize::mib(512) }
    }
}

impl Bounds {
    /// For the app in `directory` that may write to these paths.
    pub(crate) fn of(directory: &Path, writable: &[PathBuf]) -> Self {
        let data = writable.iter().filter_map(|path| fs::canonicalize(directory.join(path)).ok());
        Self { data: data.collect(), ..Self::default() }
    }

    /// Whether `target` lies in data that lies in the app.
    fn is_data(&self, directory: &Path, target: &Path) -> bool {
        let within = |data: &&PathBuf| data.starts_with(directory) && *data != directory;
        self.data.iter().filter(within).any(|data| target.starts_with(data))
    }
}

/// What one of the app's [`files`] counts as.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Its content.
    File,
    /// The content of the file in the app that it is a link to, canonical.
    Copy(PathBuf),
    /// What it says as a link: where it leads in the app, relative to where it lies, wherever that can be told.
    Link(PathBuf),
}

/// Puts the hash of an app together, file by file in order.
#[derive(Default)]
pub(crate) struct Total(Hasher);

impl Total {
    pub(crate) fn add(&mut self, path: &Path, content: blake3::Hash) {
        let path = path.as_os_str().as_bytes();
        self.0.update(&(path.len() as u64).to_le_bytes()).update(path).update(content.as_bytes());
    }

    pub(crate) fn finish(&self) -> blake3::Hash {
        self.0.finalize()
    }
}

/// What people call the version with this hash: its first 12 hex digits.
pub(super) fn name(hash: &blake3::Hash) -> String {
    let mut hex = hash.to_hex().to_string();
    hex.truncate(12);
    hex
}

/// Hash of the paths and contents of the app's [`files`].
///
/// The same wherever the app lies. A file that cannot be read counts by its name, one that vanished meanwhile (editors
/// replace files) not at all.
pub(super) fn hash(directory: &Path, bounds: &Bounds) -> Result<blake3::Hash, AppError> {
    let mut total = Total::default();
    let mut left = bounds.size.as_u64();
    for path in files(directory, bounds)? {
        let content = match digest(directory, &path, bounds, &mut left) {
            Ok(Some(content)) => content,
            Ok(None) => return Err(too_large(directory, format!("{} of files", bounds.size))),
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => blake3::hash(b""),
            Err(error) if is_passing(&error) => continue,
            Err(error) => return Err(unreadable(directory, &path, &error)),
        };
        total.add(&path, content);
    }
    Ok(total.finish())
}

/// The app's own files and links, relative, sorted: without installed packages, caches and dot files other than
/// `.env`. Links to directories are not followed, so that they cannot run in a circle.
pub(crate) fn files(directory: &Path, bounds: &Bounds) -> Result<Vec<PathBuf>, AppError> {
    let mut files = Vec::new();
    let mut directories = vec![PathBuf::new()];
    let mut entries = 0;
    while let Some(within) = directories.pop() {
        let listing = match fs::read_dir(directory.join(&within)) {
            Ok(listing) => listing,
            Err(error) if !within.as_os_str().is_empty() && is_passing(&error) => continue,
            Err(error) => return Err(unreadable(directory, &within, &error)),
        };
        for entry in listing {
            let entry = entry.map_err(|error| unreadable(directory, &within, &error))?;
            let path = within.join(entry.file_name());
            let Ok(kind) = entry.file_type() else { continue };
            if is_excluded(directory, &path, kind.is_dir()) || bounds.data.contains(&directory.join(&path)) {
                continue;
            }
            entries += 1;
            if entries > bounds.entries {
                return Err(too_large(directory, format!("{} files and directories", bounds.entries)));
            }
            if kind.is_dir() {
                directories.push(path);
            } else if kind.is_file() || kind.is_symlink() {
                files.push(path);
            }
        }
    }
    files.sort();
    Ok(files)
}

fn is_excluded(directory: &Path, path: &Path, is_dir: bool) -> bool {
    let name = path.file_name().unwrap_or_default();
    let is_environment = || is_dir && directory.join(path).join("pyvenv.cfg").exists();
    name == "node_modules"
        || name == "__pycache__"
        || name.as_bytes().starts_with(b".") && name != ".env"
        || is_environment()
}

/// What the file or link `path`, of the app in the canonical `directory`, counts as.
///
/// # Errors
/// When it is a link that cannot be read.
pub(crate) fn kind(directory: &Path, path: &Path, bounds: &Bounds) -> io::Result<Kind> {
    let absolute = directory.join(path);
    if !absolute.is_symlink() {
        return Ok(Kind::File);
    }
    match fs::canonicalize(&absolute) {
        Ok(target) if !target.starts_with(directory) => Ok(Kind::Link(fs::read_link(&absolute)?)),
        Ok(target) if target.is_file() && !bounds.is_data(directory, &target) => Ok(Kind::Copy(target)),
        Ok(target) => Ok(Kind::Link(relative(&absolute, &target))),
        Err(_) => Ok(Kind::Link(fs::read_link(&absolute)?)),
    }
}

/// What a link says counts as.
pub(crate) fn of_link(says: &Path) -> blake3::Hash {
    blake3::hash(says.as_os_str().as_bytes())
}

/// What the link `from` to `target` says if it is relative. Both are absolute, without links on the way.
pub(crate) fn relative(from: &Path, target: &Path) -> PathBuf {
    let from = from.parent().unwrap_or(from);
    let shared = from.components().zip(target.components()).take_while(|(a, b)| a == b).count();
    let up = from.components().skip(shared).map(|_| Component::ParentDir);
    let says: PathBuf = up.chain(target.components().skip(shared)).collect();
    if says.as_os_str().is_empty() { PathBuf::from(".") } else { says }
}

/// `None` when the file has more than `left` bytes, which is what the files after it may have.
fn digest(directory: &Path, path: &Path, bounds: &Bounds, left: &mut u64) -> io::Result<Option<blake3::Hash>> {
    let path = match kind(directory, path, bounds)? {
        Kind::File => directory.join(path),
        Kind::Copy(target) => target,
        Kind::Link(says) => return Ok(Some(of_link(&says))),
    };
    let mut hasher = Hasher::new();
    hasher.update_reader(fs::File::open(path)?.take(*left + 1))?;
    let Some(rest) = left.checked_sub(hasher.count()) else { return Ok(None) };
    *left = rest;
    Ok(Some(hasher.finalize()))
}

/// Not there, not ours to read, or replaced by something else since it was listed.
fn is_passing(error: &io::Error) -> bool {
    use io::ErrorKind::{IsADirectory, NotADirectory, NotFound, PermissionDenied};
    matches!(error.kind(), NotFound | PermissionDenied | NotADirectory | IsADirectory)
}

fn unreadable(directory: &Path, path: &Path, error: &io::Error) -> AppError {
    AppError::Directory { directory: directory.join(path), reason: format!("cannot be read: {error}") }
}

fn too_large(directory: &Path, limit: String) -> AppError {
    AppError::TooLarge { directory: directory.to_owned(), limit }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use tempfile::TempDir;

    use super::*;

    fn app(files: &[(&str, &str)]) -> TempDir {
        let directory = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = directory.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        directory
    }

    fn hash_of(app: &TempDir) -> blake3::Hash {
        hash(&app.path().canonicalize().unwrap(), &Bounds::default()).unwrap()
    }

    #[test]
    fn equal_content_gives_equal_hash() {
        let files = [("a.py", "x = 1"), ("lib/b.py", "y = 2")];
        assert_eq!(hash_of(&app(&files)), hash_of(&app(&files)));
        assert_eq!(name(&hash_of(&app(&files))).len(), 12);
    }

    #[test]
    fn each_change_gives_another_hash() {
        let base = app(&[("a.py", "x = 1"), ("b.py", "")]);
        for changed in [
            app(&[("a.py", "x = 2"), ("b.py", "")]),
            app(&[("a2.py", "x = 1"), ("b.py", "")]),
            app(&[("a.py", ""), ("b.py", "x = 1")]),
            app(&[("a.py", "x = 1")]),
            app(&[("a.py", "x = 1"), ("b.py", ""), ("c/d.txt", "")]),
            app(&[("a.py", "x = 1"), ("b.py", ""), (".env", "A=1")]),
        ] {
            assert_ne!(hash_of(&base), hash_of(&changed));
        }
    }

    #[test]
    fn packages_caches_and_dot_files_do_not_count() {
        let base = app(&[("a.py", "x = 1")]);
        let with = app(&[
            ("a.py", "x = 1"),
            ("node_modules/p/index.js", "1"),
            ("lib/node_modules/p/index.js", "1"),
            (".venv/bin/python", "1"),
            ("env/pyvenv.cfg", "home = /usr"),
            ("env/lib/x.py", "1"),
            ("__pycache__/a.pyc", "1"),
            (".git/HEAD", "1"),
            (".cache/x", "1"),
            (".a.py.swp", "1"),
        ]);
        assert_eq!(hash_of(&base), hash_of(&with));
    }

    #[test]
    fn links_in_a_circle_end() {
        let app = app(&[("a.py", "x = 1"), ("lib/b.py", "")]);
        symlink("..", app.path().join("lib/up")).unwrap();
        symlink("loop", app.path().join("loop")).unwrap();
        assert_eq!(files(app.path(), &Bounds::default()).unwrap().len(), 4);
        hash_of(&app);
    }

    #[test]
    fn link_to_a_file_of_the_app_counts_by_content() {
        let app = app(&[("lib/a.txt", "1")]);
        symlink("lib/a.txt", app.path().join("a.py")).unwrap();
        let linked = hash_of(&app);
        fs::remove_file(app.path().join("a.py")).unwrap();
        fs::write(app.path().join("a.py"), "1").unwrap();
        assert_eq!(linked, hash_of(&app));
    }

    #[test]
    fn links_count_the_same_wherever_the_app_lies() {
        let apps = [(); 2].map(|()| app(&[("lib/a.txt", "1"), ("lib/sub/b.txt", "2")]));
        for (app, up) in apps.iter().zip(["../lib", "./../lib/sub/.."]) {
            symlink(app.path().join("lib"), app.path().join("absolute")).unwrap();
            symlink(up, app.path().join("lib/up")).unwrap();
        }
        assert_eq!(hash_of(&apps[0]), hash_of(&apps[1]));
        let root = apps[0].path().canonicalize().unwrap();
        let kind = |path| kind(&root, Path::new(path), &Bounds::default()).unwrap();
        assert_eq!(kind("absolute"), Kind::Link("lib".into()));
        assert_eq!(kind("lib/up"), Kind::Link(".".into()));
    }

    #[test]
    fn link_to_data_counts_by_what_it_says() {
        let app = app(&[("a.py", ""), ("data/state.json", "1")]);
        symlink("data/state.json", app.path().join("state.json")).unwrap();
        let root = app.path().canonicalize().unwrap();
        let hash = || hash(&root, &Bounds::of(&root, &["data".into()])).unwrap();
        let before = hash();
        fs::write(root.join("data/state.json"), "2").unwrap();
        assert_eq!(before, hash());
    }

    #[test]
    fn link_out_of_the_app_is_not_read() {
        let (app, outside) = (app(&[("a.py", "")]), app(&[("secret", "1")]));
        symlink(outside.path().join("secret"), app.path().join("data")).unwrap();
        let before = hash_of(&app);
        fs::write(outside.path().join("secret"), "2").unwrap();
        assert_eq!(before, hash_of(&app));
    }

    #[test]
    fn fifo_is_passed_over() {
        let app = app(&[("a.py", "")]);
        let before = hash_of(&app);
        let made = std::process::Command::new("mkfifo").arg(app.path().join("pipe")).status().unwrap();
        assert!(made.success());
        assert_eq!(before, hash_of(&app));
    }

    #[test]
    fn vanished_file_counts_as_absent() {
        let app = app(&[("a.py", "")]);
        let error = digest(app.path(), Path::new("gone.py"), &Bounds::default(), &mut 10).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn file_count_limit_is_named() {
        let app = app(&[("a.py", ""), ("b.py", ""), ("c/d.py", "")]);
        let hash = |entries| hash(app.path(), &Bounds { entries, ..Bounds::default() });
        assert!(hash(4).is_ok());
        let error = hash(3).unwrap_err().to_string();
        assert!(error.contains("more than the limit of 3 files and directories; move data"), "{error}");
    }

    #[test]
    fn size_limit_is_named() {
        let app = app(&[("a.py", &"x".repeat(1000)), ("b.py", &"y".repeat(24))]);
        let hash = |bytes| hash(app.path(), &Bounds { size: ByteSize::b(bytes), ..Bounds::default() });
        assert!(hash(1024).is_ok());
        let error = hash(1023).unwrap_err().to_string();
        assert!(error.contains("more than the limit of 1023 B of files"), "{error}");
    }
}
