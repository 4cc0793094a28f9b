//! Which files the workers of an app may reach.

use std::{
    ffi::{OsStr, OsString},
    fs, io,
    path::{Path, PathBuf},
};

use crate::app::App;

/// What a worker may reach besides the system: paths that are not there do not matter.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Access {
    /// To read and to run.
    pub(crate) readable: Vec<PathBuf>,
    /// To change too.
    pub(crate) writable: Vec<PathBuf>,
}

/// Parts of a directory that a program is installed in, beside its `bin`.
const PARTS: &[&str] = &["bin", "lib", "lib32", "lib64", "libexec", "share", "include", "etc", "ssl", "pyvenv.cfg"];
/// Variables that list directories in which programs and libraries are looked for.
const SEARCH_PATHS: &[&str] = &["PATH", "LD_LIBRARY_PATH", "PYTHONPATH", "NODE_PATH"];
/// Where Node looks for packages, in the app's directory and in all above it.
const PACKAGES: &str = "node_modules";
/// Links in a `node_modules` that are followed, which those of a workspace are.
const MAX_LINKS: usize = 10_000;

impl Access {
    /// For an app that runs in `interpreter` with this environment; `worker` is where the worker's own code lies.
    ///
    /// # Errors
    /// When a path of the app's manifest is not there.
    pub(crate) fn new(app: &App, interpreter: &Path, worker: &Path, env: &[(OsString, OsString)]) -> io::Result<Self> {
        let mut readable = vec![app.directory.clone(), worker.to_owned()];
        readable.extend(app.links.iter().cloned());
        readable.extend(installation(interpreter));
        readable.extend(search_paths(&app.directory, env));
        for above in app.directory.ancestors() {
            readable.extend(packages(&above.join(PACKAGES)));
        }
        for path in &app.manifest.readable {
            readable.push(existing(&app.directory, path, "readable")?);
        }
        let mut writable = Vec::new();
        for path in &app.manifest.writable {
            make_own(&app.directory, path)?;
            writable.push(existing(&app.directory, path, "writable")?);
        }
        Ok(Self { readable, writable })
    }
}

/// A data directory in the app is made when it is not there.
fn make_own(app: &Path, path: &Path) -> io::Result<()> {
    let whole = std::path::absolute(app.join(path))?;
    let leaves = path.is_absolute() || path.components().any(|part| part.as_os_str() == "..");
    if leaves || whole.exists() {
        return Ok(());
    }
    fs::create_dir_all(&whole)
        .map_err(|error| io::Error::new(error.kind(), format!("writable {} cannot be made: {error}", whole.display())))
}

fn existing(app: &Path, path: &Path, key: &str) -> io::Result<PathBuf> {
    let whole = app.join(path);
    fs::canonicalize(&whole)
        .map_err(|error| io::Error::new(error.kind(), format!("{key} {} in fnmesh.toml: {error}", whole.display())))
}

/// Where a program and its libraries are: seen from its path, from where that leads, and from the environment it is of.
fn installation(program: &Path) -> Vec<PathBuf> {
    let mut programs = vec![program.to_owned()];
    programs.extend(fs::canonicalize(program));
    if let Some(base) = program.parent().and_then(Path::parent).and_then(base_of_environment) {
        // Only its place counts.
        let base = base.join("python");
        programs.extend(base.parent().and_then(|bin| fs::canonicalize(bin).ok()).map(|bin| bin.join("python")));
        programs.push(base);
    }
    let mut found = programs.clone();
    for prefix in programs.iter().filter_map(|program| program.parent()?.parent()) {
        found.extend(PARTS.iter().map(|part| prefix.join(part)));
    }
    found
}

/// `home` in the `pyvenv.cfg` of a virtual environment: the directory of the Python it was made by.
fn base_of_environment(directory: &Path) -> Option<PathBuf> {
    let text = fs::read_to_string(directory.join("pyvenv.cfg")).ok()?;
    text.lines().find_map(|line| {
        let (key, value) = line.split_once('=')?;
        (key.trim() == "home").then(|| PathBuf::from(value.trim()))
    })
}

/// Directories that the environment names, and the user's own Python packages.
fn search_paths(app: &Path, env: &[(OsString, OsString)]) -> Vec<PathBuf> {
    let value = |wanted: &str| env.iter().rev().find(|(name, _)| name == wanted).map(|(_, value)| value);
    let mut found: Vec<PathBuf> = SEARCH_PATHS
        .iter()
        .filter_map(|name| value(name))
        .flat_map(|paths| std::env::split_paths(paths))
        .filter(|path| !path.as_os_str().is_empty())
        .map(|path| app.join(path))
        .collect();
    if let Some(home) = value("HOME") {
        let libraries = fs::read_dir(Path::new(home).join(".local/lib")).into_iter().flatten().flatten();
        found.extend(libraries.map(|entry| entry.path()).filter(|path| starts_with(path, "python")));
    }
    found
}

/// A `node_modules` and what the links in it lead to: packages in the cache, in a store, or beside the app.
fn packages(directory: &Path) -> Vec<PathBuf> {
    let Ok(real) = fs::canonicalize(directory) else { return Vec::new() };
    let mut found = vec![real.clone()];
    let entries = |directory: &Path| fs::read_dir(directory).into_iter().flatten().flatten();
    for entry in entries(&real) {
        if starts_with(&entry.path(), "@") {
            found.extend(entries(&entry.path()).filter_map(|entry| target(&entry)));
        } else {
            found.extend(target(&entry));
        }
        if found.len() > MAX_LINKS {
            break;
        }
    }
    found.retain(|path| *path == real || !path.starts_with(&real));
    found
}

fn target(entry: &fs::DirEntry) -> Option<PathBuf> {
    entry.file_type().ok()?.is_symlink().then(|| fs::canonicalize(entry.path()).ok())?
}

fn starts_with(path: &Path, start: &str) -> bool {
    path.file_name().and_then(OsStr::to_str).is_some_and(|name| name.starts_with(start))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn environment_leads_to_the_python_it_was_made_by() {
        let root = tempfile::tempdir().unwrap();
        let venv = root.path().join("venv");
        fs::create_dir_all(venv.join("bin")).unwrap();
        fs::write(venv.join("pyvenv.cfg"), "home = /opt/python/bin\nversion = 3.12.1\n").unwrap();
        let found = installation(&venv.join("bin/python"));
        for expected in [venv.join("lib"), venv.join("pyvenv.cfg"), "/opt/python/lib".into()] {
            assert!(found.contains(&expected), "{} in {found:?}", expected.display());
        }
    }

    #[test]
    fn home_of_a_program_in_it_is_not_readable() {
        let found = installation(Path::new("/home/ann/bin/node"));
        assert!(!found.contains(&"/home/ann".into()) && found.contains(&"/home/ann/bin".into()));
    }

    #[test]
    fn links_of_a_workspace_are_followed() {
        let root = tempfile::tempdir().unwrap();
        let root = fs::canonicalize(root.path()).unwrap();
        for directory in ["packages/a", "packages/b", "node_modules/@org", "node_modules/c"] {
            fs::create_dir_all(root.join(directory)).unwrap();
        }
        symlink("../packages/a", root.join("node_modules/a")).unwrap();
        symlink("../../packages/b", root.join("node_modules/@org/b")).unwrap();
        let mut found = packages(&root.join("node_modules"));
        found.sort();
        assert_eq!(found, ["node_modules", "packages/a", "packages/b"].map(|path| root.join(path)));
    }

    #[test]
    fn search_paths_of_the_environment_are_readable() {
        let env = [("PYTHONPATH", "lib:/srv/lib"), ("PATH", "/srv/bin"), ("OTHER", "/secret")];
        let env = env.map(|(name, value)| (name.into(), value.into()));
        let found = search_paths(Path::new("/app"), &env);
        assert_eq!(found, ["/srv/bin", "/app/lib", "/srv/lib"].map(PathBuf::from));
    }

    #[test]
    fn own_data_directory_is_made() {
        let app = tempfile::tempdir().unwrap();
        make_own(app.path(), Path::new("data/cache")).unwrap();
        assert!(existing(app.path(), Path::new("data/cache"), "writable").is_ok());
        make_own(app.path(), Path::new("../no")).unwrap();
        let error = existing(app.path(), Path::new("../no-such-place"), "writable").unwrap_err().to_string();
        assert!(error.contains("writable") && error.contains("no-such-place"), "{error}");
    }
}
