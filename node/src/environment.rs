//! The one place that reads the process's environment.

use std::{
    env,
    ffi::OsString,
    path::{self, Path, PathBuf},
};

/// The worker core that CPython loads.
const EXTENSION: &str = "libfnmesh_python.so";
/// What waiting Node workers load.
const NODE_MODULE: &str = "libfnmesh_nodejs.so";

/// Where dependencies of apps are kept unless the user says otherwise.
pub(crate) fn cache_dir() -> PathBuf {
    let absolute = |name| env::var_os(name).map(PathBuf::from).filter(|path: &PathBuf| path.is_absolute());
    cache_dir_of(absolute("XDG_CACHE_HOME"), absolute("HOME"))
}

fn cache_dir_of(xdg: Option<PathBuf>, home: Option<PathBuf>) -> PathBuf {
    xdg.or_else(|| home.map(|home| home.join(".cache"))).unwrap_or_else(env::temp_dir).join("fnmesh")
}

/// Where what runs for this user leaves a sign of itself.
pub(crate) fn run_dir() -> PathBuf {
    let runtime = env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from).filter(|path| path.is_absolute());
    runtime.map_or_else(|| cache_dir().join("run"), |runtime| runtime.join("fnmesh"))
}

/// The search path for interpreters.
pub(crate) fn path() -> Option<OsString> {
    env::var_os("PATH")
}

/// Everything, for package installers: proxies, certificates, their own settings.
pub(crate) fn all() -> Vec<(OsString, OsString)> {
    env::vars_os().collect()
}

/// What workers get of it, below their app's own variables: nothing that could be a secret.
pub(crate) fn of_workers() -> Vec<(OsString, OsString)> {
    const NAMES: [&str; 8] = ["PATH", "HOME", "USER", "LANG", "LC_ALL", "TZ", "TMPDIR", "LD_LIBRARY_PATH"];
    NAMES.iter().filter_map(|name| Some((OsString::from(name), env::var_os(name)?))).collect()
}

/// Where the Python extension may be, best first: where the user says, else near the executable.
pub(crate) fn python_extensions(asked: Option<PathBuf>) -> Vec<PathBuf> {
    match asked {
        // Workers, which load it, have a working directory of their own.
        Some(path) => vec![path::absolute(&path).unwrap_or(path)],
        None => env::current_exe().map(|executable| beside(&executable, EXTENSION)).unwrap_or_default(),
    }
}

/// The module of waiting Node workers, if it is near the executable.
pub(crate) fn node_module() -> Option<PathBuf> {
    beside(&env::current_exe().ok()?, NODE_MODULE).into_iter().find(|path| path.is_file())
}

fn beside(executable: &Path, file: &str) -> Vec<PathBuf> {
    let directory = executable.parent().unwrap_or(Path::new("."));
    vec![directory.join(file), directory.join("../lib/fnmesh").join(file)]
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
    fn extension_is_looked_for_near_the_executable() {
        assert_eq!(python_extensions(Some(PathBuf::from("/x.so"))), [Path::new("/x.so")]);
        assert_eq!(python_extensions(Some(PathBuf::from("x.so"))), [env::current_dir().unwrap().join("x.so")]);
        let places = beside(Path::new("/usr/bin/fnmesh"), EXTENSION);
        assert_eq!(
            places,
            ["/usr/bin/libfnmesh_python.so", "/usr/bin/../lib/fnmesh/libfnmesh_python.so"].map(Path::new)
        );
    }
}
