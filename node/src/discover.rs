//! From the directories a user names to the apps in them.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    thread,
};

use fnmesh_runtime::app::{App, AppError};

use crate::error::StartError;

/// A directory that is served as one app, as it was first read.
#[derive(Debug)]
pub(crate) struct Found {
    /// The app's name; the directory's where the app cannot be read.
    pub(crate) name: String,
    /// Canonical.
    pub(crate) directory: PathBuf,
    /// What is in it.
    pub(crate) read: Result<App, AppError>,
}

/// Reads every app of these directories, in order.
///
/// # Errors
/// When a directory is not there, or two apps have the same name.
pub(crate) fn discover(directories: &[PathBuf]) -> Result<Vec<Found>, StartError> {
    let mut places = Vec::new();
    for directory in directories {
        let canonical =
            canonical(directory).map_err(|source| StartError::Directory { directory: directory.clone(), source })?;
        if !places.contains(&canonical) {
            places.push(canonical);
        }
    }
    let found: Vec<_> = in_parallel(&places, expand).into_iter().flatten().collect();
    let mut names = BTreeMap::new();
    for app in &found {
        if let Some(first) = names.insert(&app.name, &app.directory) {
            let (name, first, second) = (app.name.clone(), first.clone(), app.directory.clone());
            return Err(StartError::SameName { name, first, second });
        }
    }
    Ok(found)
}

fn canonical(directory: &Path) -> io::Result<PathBuf> {
    let canonical = fs::canonicalize(directory)?;
    if canonical.is_dir() { Ok(canonical) } else { Err(io::ErrorKind::NotADirectory.into()) }
}

/// The app in `directory`, or the apps right below it where it has no function itself.
fn expand(directory: &Path) -> Vec<Found> {
    let own = read(directory);
    if !is_empty(&own) {
        return vec![own];
    }
    let below: Vec<_> =
        in_parallel(&visible_directories(directory), read).into_iter().filter(|found| !is_empty(found)).collect();
    if below.is_empty() { vec![own] } else { below }
}

fn is_empty(found: &Found) -> bool {
    matches!(found.read, Err(AppError::Empty { .. }))
}

fn read(directory: &Path) -> Found {
    let read = App::read(directory, None);
    let name = match &read {
        Ok(app) => app.name.clone(),
        Err(_) => directory.file_name().unwrap_or(directory.as_os_str()).to_string_lossy().into_owned(),
    };
    Found { name, directory: directory.to_owned(), read }
}

fn visible_directories(parent: &Path) -> Vec<PathBuf> {
    let mut directories: Vec<_> = fs::read_dir(parent)
        .into_iter()
        .flatten()
        .flatten()
        .filter(|entry| !entry.file_name().to_string_lossy().starts_with('.') && entry.file_name() != "node_modules")
        .map(|entry| entry.path())
        .filter(|path| path.is_dir())
        .collect();
    directories.sort();
    directories
}

/// Apps are few and reading them is mostly waiting for the disk, so each gets a thread.
fn in_parallel<T: Send>(places: &[PathBuf], work: impl Fn(&Path) -> T + Sync) -> Vec<T> {
    thread::scope(|scope| {
        let threads: Vec<_> = places.iter().map(|place| scope.spawn(|| work(place))).collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            .collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(files: &[&str]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for file in files {
            let path = root.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        }
        root
    }

    fn names(root: &tempfile::TempDir) -> Vec<String> {
        discover(&[root.path().to_owned()]).unwrap().into_iter().map(|found| found.name).collect()
    }

    #[test]
    fn directory_of_apps_stands_for_all_of_them() {
        let root = tree(&["text/text.py", "cart/cart.js", "notes/README.md", ".hidden/x.py"]);
        assert_eq!(names(&root), ["cart", "text"]);
    }

    #[test]
    fn directory_with_functions_is_one_app() {
        let root = tree(&["shop/shop.py", "shop/sub/other.py"]);
        let found = discover(&[root.path().join("shop")]).unwrap();
        assert_eq!((found.len(), found[0].name.as_str(), found[0].read.is_ok()), (1, "shop", true));
    }

    #[test]
    fn directory_without_functions_is_kept_as_failed() {
        let root = tree(&["empty/README.md"]);
        let found = discover(&[root.path().join("empty")]).unwrap();
        assert!(matches!(found[0].read, Err(AppError::Empty { .. })));
    }

    #[test]
    fn same_directory_twice_is_one_app() {
        let root = tree(&["shop/shop.py"]);
        let shop = root.path().join("shop");
        assert_eq!(discover(&[shop.clone(), shop.join(".")]).unwrap().len(), 1);
    }

    #[test]
    fn same_name_twice_names_both_directories() {
        let root = tree(&["a/shop/shop.py", "b/shop/shop.py"]);
        let error = discover(&[root.path().join("a/shop"), root.path().join("b/shop")]).unwrap_err().to_string();
        assert!(error.contains("a/shop") && error.contains("b/shop"), "{error}");
    }

    #[test]
    fn missing_directory_is_named() {
        let error = discover(&[PathBuf::from("/nonexistent/shop")]).unwrap_err().to_string();
        assert!(error.contains("/nonexistent/shop"), "{error}");
    }
}
