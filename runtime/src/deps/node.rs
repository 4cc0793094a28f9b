//! The packages of a Node app: its own `node_modules`, else a link to a cached one.

use std::{
    ffi::{OsStr, OsString},
    fs, io,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    time::Instant,
};

use serde_json::{Map, Value};

use super::{
    InstallError, Interpreter, Progress, Tools,
    command::{TIMEOUT, command, run},
    failed_to,
    interpreter::{find, resolve_node},
    store,
};
use crate::{
    app::App,
    manifest::{FileError, read_optional},
};

const PACKAGES: &str = "node_modules";
const MANIFEST: &str = "package.json";
/// Files beside `package.json` that say what is installed and from where.
const BESIDE: [&str; 3] = ["package-lock.json", "npm-shrinkwrap.json", ".npmrc"];

/// The executable to start.
pub(super) async fn install(
    app: &App,
    tools: &Tools,
    progress: &mut dyn FnMut(Progress),
) -> Result<PathBuf, InstallError> {
    let node = tools.node.as_deref().unwrap_or(Path::new("node"));
    let node = resolve_node(node, &app.directory, tools).await?;
    let link = app.directory.join(PACKAGES);
    if is_authors_own(&link)? {
        return Ok(node.executable);
    }
    let Some(package) = Package::read(&app.directory)? else { return Ok(node.executable) };
    let directory = tools.cache_dir.join(PACKAGES).join(package.hash(app, &node));
    store::once(&directory, async || create(&directory, app, tools, &node, &package, progress).await).await?;
    place(&link, &directory.join(PACKAGES))?;
    Ok(node.executable)
}

/// What is installed.
struct Package {
    /// `package.json` without `scripts`: they belong to files that are not in the cache.
    manifest: String,
    beside: Vec<(&'static str, String)>,
}

impl Package {
    /// `None` when the app in `directory` asks for no packages.
    fn read(directory: &Path) -> Result<Option<Self>, FileError> {
        let file = directory.join(MANIFEST);
        let Some(text) = read_optional(&file)? else { return Ok(None) };
        let mut manifest: Map<String, Value> = serde_json::from_str(&text)
            .map_err(|error| FileError::new(&file, Some(error.line()), error.to_string()))?;
        manifest.remove("scripts");
        let mut is_empty = true;
        for kind in ["dependencies", "optionalDependencies"] {
            let Some(packages) = manifest.get(kind).and_then(Value::as_object) else { continue };
            is_empty &= packages.is_empty();
            if let Some((name, path)) = packages.iter().find(|(_, wanted)| wanted.as_str().is_some_and(is_path)) {
                let message =
                    format!("{kind}.{name} is the path {path}; run npm install in the app's directory yourself");
                return Err(FileError::new(&file, None, message));
            }
        }
        if is_empty {
            return Ok(None);
        }
        let mut beside = Vec::new();
        for name in BESIDE {
            if let Some(text) = read_optional(&directory.join(name))? {
                beside.push((name, text));
            }
        }
        Ok(Some(Self { manifest: Value::Object(manifest).to_string(), beside }))
    }

    fn hash(&self, app: &App, node: &Interpreter) -> String {
        let mut parts = vec![node.executable.as_os_str().as_encoded_bytes(), node.version.as_bytes()];
        parts.push(if app.manifest.install_scripts { b"scripts" } else { b"ignore-scripts" });
        parts.push(self.manifest.as_bytes());
        parts.extend(self.beside.iter().flat_map(|(name, text)| [name.as_bytes(), text.as_bytes()]));
        store::hash(parts)
    }

    fn write(&self, directory: &Path) -> io::Result<()> {
        fs::write(directory.join(MANIFEST), &self.manifest)?;
        self.beside.iter().try_for_each(|(name, text)| fs::write(directory.join(name), text))
    }

    fn is_locked(&self) -> bool {
        self.beside.iter().any(|(name, _)| name.ends_with(".json"))
    }
}

async fn create(
    directory: &Path,
    app: &App,
    tools: &Tools,
    node: &Interpreter,
    package: &Package,
    progress: &mut dyn FnMut(Progress),
) -> Result<(), InstallError> {
    let started = Instant::now();
    let what = format!("Node packages of {} ({MANIFEST})", app.name);
    progress(Progress::Started { what: what.clone() });
    package.write(directory).map_err(failed_to("write to", directory))?;

    let mut npm = command(&npm(node, tools)?, directory, tools);
    npm.env("PATH", path_with(node, tools));
    npm.arg(if package.is_locked() { "ci" } else { "install" });
    npm.args(["--no-audit", "--no-fund", "--no-update-notifier", "--omit=dev"]);
    if !app.manifest.install_scripts {
        npm.arg("--ignore-scripts");
    }
    let hint = "check package.json and its lock file and the connection to the package registry";
    run(npm, &what, TIMEOUT, progress).await.map_err(|error| error.with_hint(hint))?;
    let packages = directory.join(PACKAGES);
    // npm makes none when every package is optional and fits another system.
    fs::create_dir_all(&packages).map_err(failed_to("create", &packages))?;
    progress(Progress::Finished { what, elapsed: started.elapsed() });
    Ok(())
}

/// The npm that came with this Node, else the first on the path.
fn npm(node: &Interpreter, tools: &Tools) -> Result<PathBuf, InstallError> {
    find(OsStr::new("npm"), Some(&path_with(node, tools))).ok_or_else(|| InstallError::Interpreter {
        program: "npm".to_owned(),
        reason: "not found beside node or on the PATH; install it (apt install npm), or the packages yourself"
            .to_owned(),
    })
}

/// The search path with the directory of `node` first: npm is a script that looks for `node` there.
fn path_with(node: &Interpreter, tools: &Tools) -> OsString {
    let mut path = node.executable.parent().unwrap_or(Path::new("/usr/bin")).as_os_str().to_owned();
    if let Some(rest) = &tools.path {
        path.push(":");
        path.push(rest);
    }
    path
}

/// Whether the app brings its packages itself: a directory, or a link that is not one of ours.
fn is_authors_own(link: &Path) -> Result<bool, InstallError> {
    let Ok(metadata) = fs::symlink_metadata(link) else { return Ok(false) };
    if !metadata.is_symlink() {
        return Ok(true);
    }
    let target = fs::read_link(link).map_err(failed_to("read the link", link))?;
    if is_ours(&target) {
        return Ok(false);
    }
    if !link.is_dir() {
        let message = format!("leads to {}, which is not there; remove the link or mend it", target.display());
        return Err(FileError::new(link, None, message).into());
    }
    Ok(true)
}

/// `…/node_modules/<hash>/node_modules`, in whichever cache.
fn is_ours(target: &Path) -> bool {
    let mut parts = target.iter().rev();
    let is_hash =
        |part: &OsStr| part.len() == store::HASH_LENGTH && part.as_encoded_bytes().iter().all(u8::is_ascii_hexdigit);
    parts.next().is_some_and(|part| part == PACKAGES)
        && parts.next().is_some_and(is_hash)
        && parts.next().is_some_and(|part| part == PACKAGES)
}

/// Makes `link` lead to `target`, in one step where it led elsewhere.
fn place(link: &Path, target: &Path) -> Result<(), FileError> {
    if fs::read_link(link).is_ok_and(|current| current == target) {
        return Ok(());
    }
    let fresh = link.with_file_name(format!(".{PACKAGES}.{}", std::process::id()));
    symlink(target, &fresh).and_then(|()| fs::rename(&fresh, link)).map_err(|error| {
        // Nothing more can be done about it.
        let _ = fs::remove_file(&fresh);
        let message = format!(
            "cannot be made a link to the installed packages: {error}; make the app's directory writable, \
             or run npm install there yourself"
        );
        FileError::new(link, None, message)
    })
}

fn is_path(wanted: &str) -> bool {
    let prefixes = ["file:", "link:", "workspace:", ".", "/", "~/"];
    prefixes.iter().any(|prefix| wanted.starts_with(prefix))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(files: &[(&str, &str)]) -> Result<Option<Package>, String> {
        let app = tempfile::tempdir().unwrap();
        for (name, text) in files {
            fs::write(app.path().join(name), text).unwrap();
        }
        let shorten = |error: FileError| error.to_string().replace(&format!("{}/", app.path().display()), "");
        Package::read(app.path()).map_err(shorten)
    }

    #[test]
    fn app_without_packages_asks_for_nothing() {
        for manifest in
            [r#"{"type": "module"}"#, r#"{"dependencies": {}}"#, r#"{"devDependencies": {"typescript": "5"}}"#]
        {
            assert!(read(&[("package.json", manifest)]).unwrap().is_none(), "{manifest}");
        }
        assert!(read(&[]).unwrap().is_none());
    }

    #[test]
    fn manifest_is_kept_without_its_scripts() {
        let manifest = r#"{"name":"x","scripts":{"prepare":"tsc"},"dependencies":{"a":"1"}}"#;
        let package = read(&[("package.json", manifest), ("package-lock.json", "{}"), (".npmrc", "x=1")]);
        let package = package.unwrap().unwrap();
        assert_eq!(package.manifest, r#"{"name":"x","dependencies":{"a":"1"}}"#);
        assert!(package.is_locked());
        let cache = tempfile::tempdir().unwrap();
        package.write(cache.path()).unwrap();
        assert_eq!(fs::read_to_string(cache.path().join(".npmrc")).unwrap(), "x=1");
        assert_eq!(fs::read_to_string(cache.path().join("package-lock.json")).unwrap(), "{}");
        let open = read(&[("package.json", r#"{"optionalDependencies":{"a":"1"}}"#), (".npmrc", "")]);
        assert!(!open.unwrap().unwrap().is_locked());
    }

    #[test]
    fn faults_of_the_manifest_are_named() {
        let fault = |manifest: &str| read(&[("package.json", manifest)]).err().unwrap();
        assert!(fault("{\n\"a\": }").starts_with("package.json:2: "));
        assert!(fault("[]").starts_with("package.json:1: "));
        for path in ["file:../lib", "../lib", "link:x", "workspace:*", "/abs"] {
            let fault = fault(&format!(r#"{{"dependencies":{{"lib":"{path}"}}}}"#));
            assert!(
                fault.starts_with(&format!("package.json: dependencies.lib is the path \"{path}\"; run")),
                "{fault}"
            );
        }
    }

    #[test]
    fn only_our_stale_link_is_replaced() {
        let app = tempfile::tempdir().unwrap();
        let link = app.path().join("node_modules");
        assert!(!is_authors_own(&link).unwrap());
        let ours =
            |name: &str| Path::new("/gone/node_modules").join(name.repeat(store::HASH_LENGTH)).join("node_modules");
        for target in [ours("a"), ours("b"), ours("b")] {
            assert!(!is_authors_own(&link).unwrap());
            place(&link, &target).unwrap();
            assert_eq!(fs::read_link(&link).unwrap(), target);
        }
        assert_eq!(fs::read_dir(app.path()).unwrap().count(), 1);

        fs::remove_file(&link).unwrap();
        symlink("/gone/packages", &link).unwrap();
        let error = is_authors_own(&link).unwrap_err().to_string();
        assert!(error.contains("node_modules: leads to /gone/packages, which is not there"), "{error}");
        fs::remove_file(&link).unwrap();
        symlink("/tmp", &link).unwrap();
        assert!(is_authors_own(&link).unwrap());
        fs::remove_file(&link).unwrap();
        fs::create_dir(&link).unwrap();
        assert!(is_authors_own(&link).unwrap());
    }

    #[test]
    fn link_that_cannot_be_placed_says_what_to_do() {
        let error = place(Path::new("/proc/node_modules"), Path::new("/x")).unwrap_err().to_string();
        assert!(error.starts_with("/proc/node_modules: cannot be made a link"), "{error}");
        assert!(error.contains("make the app's directory writable, or run npm install there yourself"), "{error}");
    }
}
