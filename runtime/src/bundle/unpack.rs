//! Unpacks a bundle.

use std::{
    collections::HashSet,
    fs::{self, OpenOptions, Permissions},
    io::{self, BufReader, Read, Write},
    os::unix::fs::{OpenOptionsExt, PermissionsExt, symlink},
    path::{Path, PathBuf},
};

use super::{
    BundleError, Limits, UNFINISHED, link,
    record::{self, Content, Record},
};
use crate::{
    app::version::{self, Bounds},
    manifest::{FileError, Manifest},
};

/// Makes `directory`, which must not exist yet, from a bundle. Its parent must exist.
///
/// Nothing is written anywhere else, whatever is in the bundle, and nothing is left after an error. Blocks. What comes
/// out is some app: that it is the one that was asked for, [`crate::App::hash`] tells.
///
/// # Errors
/// When `bundle` is no bundle, is larger than `limits`, has a link that leads out of it or a file that is no part of
/// an app's content, or cannot be read, or when files cannot be written.
pub fn unpack(bundle: impl Read, directory: &Path, limits: Limits) -> Result<(), BundleError> {
    if fs::symlink_metadata(directory).is_ok() {
        return Err(BundleError::file(directory, io::ErrorKind::AlreadyExists.into()));
    }
    let failed = |error| BundleError::file(directory, error);
    let parent = directory.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let parent = fs::canonicalize(parent).map_err(failed)?;
    let unfinished = tempfile::Builder::new().prefix(UNFINISHED).tempdir_in(parent).map_err(failed)?;
    let mut tree = Tree::new(unfinished.path(), directory, limits);
    tree.fill(&mut BufReader::with_capacity(1 << 16, bundle))?;
    tree.link()?;
    tree.check()?;
    fs::set_permissions(unfinished.path(), Permissions::from_mode(0o755)).map_err(failed)?;
    fs::rename(unfinished.path(), directory).map_err(failed)?;
    // There is nothing left to remove.
    let _ = unfinished.keep();
    Ok(())
}

/// What has been unpacked.
struct Tree<'a> {
    root: &'a Path,
    /// Where it will be in the end.
    directory: &'a Path,
    limits: Limits,
    /// Bytes that files may still have.
    left: u64,
    /// In order.
    files: Vec<PathBuf>,
    directories: HashSet<PathBuf>,
    /// To be made when all files are there, so that none is written through them.
    links: Vec<(PathBuf, PathBuf)>,
}

impl<'a> Tree<'a> {
    fn new(root: &'a Path, directory: &'a Path, limits: Limits) -> Self {
        let directories = HashSet::from([PathBuf::new()]);
        Self { root, directory, limits, left: limits.size.as_u64(), files: Vec::new(), directories, links: Vec::new() }
    }

    fn fill(&mut self, input: &mut impl Read) -> Result<(), BundleError> {
        while let Some(Record { path, content }) = record::read(input)? {
            if self.files.last().is_some_and(|last| *last >= path) {
                return Err(refused(&path, "comes twice, or not in order"));
            }
            self.files.push(path.clone());
            self.count()?;
            match content {
                Content::File { bytes, executable } => {
                    self.left = self.left.checked_sub(bytes).ok_or_else(|| self.too_large())?;
                    self.file(&path, bytes, executable, input)?;
                }
                Content::Link(says) => self.links.push((path, says)),
            }
        }
        Ok(())
    }

    fn file(&mut self, path: &Path, bytes: u64, executable: bool, input: &mut impl Read) -> Result<(), BundleError> {
        self.make_parents(path)?;
        let failed = |error| self.failed(path, error);
        let mut options = OpenOptions::new();
        let mut file = options.write(true).create_new(true).mode(0o600).open(self.root.join(path)).map_err(failed)?;
        copy(input, &mut file, bytes, failed)?;
        let mode = if executable { 0o755 } else { 0o644 };
        file.set_permissions(Permissions::from_mode(mode)).map_err(failed)
    }

    /// Makes the links, now that all else is there.
    fn link(&mut self) -> Result<(), BundleError> {
        let links = std::mem::take(&mut self.links);
        for (path, says) in &links {
            self.make_parents(path)?;
            symlink(says, self.root.join(path)).map_err(|error| self.failed(path, error))?;
        }
        for (path, says) in &links {
            if link::leads_out(self.root, &link::parent(path), says) {
                return Err(refused(path, &format!("links to {}, outside of the app", says.display())));
            }
        }
        Ok(())
    }

    fn make_parents(&mut self, path: &Path) -> Result<(), BundleError> {
        let missing = path.ancestors().skip(1).take_while(|parent| !self.directories.contains(*parent));
        let missing: Vec<_> = missing.map(Path::to_owned).collect();
        for directory in missing.into_iter().rev() {
            self.directories.insert(directory.clone());
            self.count()?;
            let absolute = self.root.join(&directory);
            fs::create_dir(&absolute).map_err(|error| self.failed(&directory, error))?;
            let made = fs::set_permissions(&absolute, Permissions::from_mode(0o755));
            made.map_err(|error| self.failed(&directory, error))?;
        }
        Ok(())
    }

    /// That there is room for one entry more.
    fn count(&self) -> Result<(), BundleError> {
        // The app's directory itself does not count.
        let entries = self.files.len() + self.directories.len() - 1;
        if entries > self.limits.entries { Err(self.too_large()) } else { Ok(()) }
    }

    /// What is in the way is the bundle's fault, all else the machine's.
    fn failed(&self, path: &Path, error: io::Error) -> BundleError {
        use io::ErrorKind::{AlreadyExists, InvalidFilename, NotADirectory};
        match error.kind() {
            AlreadyExists | NotADirectory | InvalidFilename => refused(path, &format!("cannot be made: {error}")),
            _ => BundleError::file(&self.directory.join(path), error),
        }
    }

    fn too_large(&self) -> BundleError {
        let Limits { entries, size } = self.limits;
        BundleError::refused(format!(
            "more than the limit of {entries} files and directories or {size} of files; move data that is not code out \
             of the app"
        ))
    }

    /// That the content hash covers all there is: a file of an installed package, or what Python compiled, would run
    /// without anybody having checked it.
    fn check(&self) -> Result<(), BundleError> {
        let manifest = Manifest::read(self.root).map_err(|error| {
            // Where it is now will be gone when somebody reads this.
            let file = error.file.strip_prefix(self.root).map_or(error.file.clone(), |file| self.directory.join(file));
            FileError { file, ..error }
        })?;
        let Limits { entries, size } = self.limits;
        let bounds = Bounds { entries, size, ..Bounds::of(self.root, &manifest.writable) };
        let covered: HashSet<_> = version::files(self.root, &bounds)?.into_iter().collect();
        match self.files.iter().find(|file| !covered.contains(*file)) {
            Some(file) => Err(refused(file, "is no part of an app's content")),
            None => Ok(()),
        }
    }
}

/// Copies so many bytes into `file`, and reads over the padding.
fn copy(
    input: &mut impl Read,
    file: &mut impl Write,
    bytes: u64,
    failed: impl Fn(io::Error) -> BundleError,
) -> Result<(), BundleError> {
    let mut buffer = [0; 1 << 14];
    let mut left = bytes;
    while left > 0 {
        let most = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
        record::fill(input, &mut buffer[..most])?;
        file.write_all(&buffer[..most]).map_err(&failed)?;
        left -= most as u64;
    }
    record::fill(input, &mut buffer[..record::padding(bytes).len()])
}

fn refused(path: &Path, what: &str) -> BundleError {
    BundleError::refused(format!("{}: {what}", path.display()))
}
