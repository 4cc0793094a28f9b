//! The one place that reads the process's environment.

use std::{
    env,
    ffi::OsString,
    path::{Path, PathBuf},
};

/// The worker core that CPython loads.
const EXTENSION: &str = "libfnmesh_python.so";

/// Where dependencies of apps are kept unless the user says otherwise.
pub(crate) fn cache_dir() -> PathBuf {
    let absolute = |name| env::var_os(name).map(PathBuf::from).filter(|path: &PathBuf| path.is_absolute());
    cache_dir_of(absolute("XDG_CACHE_HOME"), absolute("HOME"))
}

fn cache_dir_of(xdg: Option<PathBuf>, home: Option<PathBuf>) -> PathBuf {
    xdg.or_else(|| home.map(|home| home.join(".cache"))).unwrap_or_else(env::temp_dir).join("fnmesh")
}

/// The search path for interpreters.
pub(crate) fn path() -> Option<OsString> {
    env::var_os("PATH")
}

/// Everything, for package installers: proxies, certificates, their own settings.
pub(crate) fn all() -> Vec<(OsString, OsString)> {
    env::vars_os().collect()
}

/// The Python extension: the one that was asked for, else the first that is there.
pub(crate) fn python_extension(asked: Option<PathBuf>) -> Extension {
    let candidates = match asked {
        Some(path) => vec![path],
        None => env::current_exe().map(|executable| beside(&executable)).unwrap_or_default(),
    };
    Extension { found: candidates.iter().find(|path| path.is_file()).cloned(), looked_at: candidates }
}

fn beside(executable: &Path) -> Vec<PathBuf> {
    let directory = executable.parent().unwrap_or(Path::new("."));
    vec![directory.join(EXTENSION), directory.join("../lib/fnmesh").join(EXTENSION)]
}

/// Where the Python extension is, or was looked for.
#[derive(Clone, Debug, Default)]
pub(crate) struct Extension {
    /// The file, if there is one.
    pub(crate) found: Option<PathBuf>,
    /// Every place that was tried, in order.
    pub(crate) looked_at: Vec<PathBuf>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cache_follows_xdg_then_home_then_temp() {
        let path = |text: &str| Some(PathBuf::from(text));
        assert_eq!(cache_dir_of(path("/x"), path("/h")), Path::new("/x/fnmesh"));
        assert_eq!(cache_dir_of(None, path("/h")), Path::new("/h/.cache/fnmesh"));
        assert_eq!(cache_dir_of(None, None), env::temp_dir().join("fnmesh"));
    }

    #[test]
    fn missing_extension_names_every_place() {
        let extension = python_extension(Some(PathBuf::from("/nonexistent/x.so")));
        assert_eq!((extension.found, extension.looked_at), (None, vec![PathBuf::from("/nonexistent/x.so")]));
        assert_eq!(beside(Path::new("/usr/bin/fnmesh"))[1], Path::new("/usr/bin/../lib/fnmesh/libfnmesh_python.so"));
    }
}
