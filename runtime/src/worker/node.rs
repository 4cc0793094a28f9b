//! How a Node.js worker is started.

use std::{
    ffi::{OsStr, OsString},
    fs, io,
    os::fd::RawFd,
    path::{Path, PathBuf},
    sync::Arc,
};

use serde::Serialize;

use super::{
    cgroup::Bounds,
    process::{DirectoryIdentity, Launch},
    sandbox::{Access, Sandbox},
};
use crate::{app::App, config::Config};

macro_rules! sources {
    ($($path:literal)*) => {
        &[$(($path, include_str!(concat!("../../node-js/", $path)))),*]
    };
}

/// The worker's own source: part of the binary, and written where Node can load it.
const SOURCES: &[(&str, &str)] = sources! {
    "worker.cjs"
    "worker/call.cjs"
    "worker/channel.cjs"
    "worker/failure.cjs"
    "worker/flat.cjs"
    "worker/frame.cjs"
    "worker/hooks.cjs"
    "worker/http.cjs"
    "worker/json-error.cjs"
    "worker/json.cjs"
    "worker/load.cjs"
    "worker/logs.cjs"
    "worker/main.cjs"
    "worker/reply.cjs"
    "worker/serialize.cjs"
    "worker/serve.cjs"
    "worker/sources.cjs"
    "worker/stream.cjs"
    "worker/syntax.cjs"
    "worker/target.cjs"
};

pub(crate) fn launch(
    config: &Config,
    sandbox: &Arc<Sandbox>,
    app: &App,
    interpreter: PathBuf,
    env: Vec<(OsString, OsString)>,
) -> io::Result<Launch> {
    let bounds = Bounds::new(config, app);
    // So that V8 collects garbage before the process reaches the limit.
    let mut args: Vec<OsString> = vec![format!("--max-old-space-size={}", bounds.memory_bytes >> 20).into()];
    let script = write_worker(&config.cache_dir)
        .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", config.cache_dir.display())))?;
    let access = Access::new(app, &interpreter, script.parent().unwrap_or(&script), &env)?;
    args.push(script.into());
    Ok(Launch {
        program: interpreter,
        args,
        trailing_args: Vec::new(),
        env,
        directory: app.directory.clone(),
        identity: DirectoryIdentity::of(&app.directory)?,
        bounds,
        access: Some(access),
        sandbox: Arc::clone(sandbox),
    })
}

/// How a worker is started that waits for an app, and becomes one of `launch` by [`enter`]; of all that are the same
/// here it can be any. `None` where it could not be told all, or might not load `module`, which is what it confines
/// itself with.
pub(crate) fn blank(launch: &Launch, module: &Path) -> Option<Launch> {
    let root = Path::new("/");
    launch.directory.to_str()?;
    if launch.env.iter().any(|(name, _)| name == "NODE_OPTIONS") {
        return None;
    }
    let mut env = Vec::new();
    for (name, value) in &launch.env {
        if is_read_at_start(name.to_str()?) {
            env.push((name.clone(), value.clone()));
        }
        value.to_str()?;
    }
    Some(Launch {
        program: launch.program.clone(),
        args: launch.args.clone(),
        trailing_args: vec![module.into()],
        env,
        directory: root.to_owned(),
        // Not the root's: an interpreter that was replaced is another one.
        identity: DirectoryIdentity::of(&launch.program).ok()?,
        bounds: launch.bounds,
        access: None,
        sandbox: Arc::clone(&launch.sandbox),
    })
}

/// Body of the frame that makes a [`blank`] worker one of `launch`, with the descriptor of the rules it has to enter.
pub(crate) fn enter(launch: &Launch, rules: Option<RawFd>) -> io::Result<Vec<u8>> {
    #[derive(Serialize)]
    struct Enter<'a> {
        directory: &'a str,
        environment: Vec<(&'a str, &'a str)>,
        rules: Option<RawFd>,
    }
    fn text(text: &OsStr) -> io::Result<&str> {
        text.to_str().ok_or_else(|| io::Error::other(format!("{} is not UTF-8", text.display())))
    }
    let mut environment = Vec::new();
    for (name, value) in &launch.env {
        let name = text(name)?;
        if !is_read_at_start(name) {
            environment.push((name, text(value)?));
        }
    }
    Ok(serde_json::to_vec(&Enter { directory: text(launch.directory.as_os_str())?, environment, rules })?)
}

/// Whether Node, or a library it is made of, may look at this variable before it runs a script, or keep what it saw.
fn is_read_at_start(name: &str) -> bool {
    const NAMES: [&str; 9] = ["PATH", "HOME", "LANG", "LANGUAGE", "TZ", "TZDIR", "TERM", "GCONV_PATH", "LOCPATH"];
    const STARTS: [&str; 10] = ["NODE_", "LD_", "LC_", "UV_", "V8_", "ICU_", "SSL_", "OPENSSL_", "MALLOC_", "GLIBC_"];
    NAMES.contains(&name) || STARTS.iter().any(|start| name.starts_with(start))
}

/// Writes the worker's source unless it is there. Its directory is named by its hash, so versions do not mix.
fn write_worker(cache_dir: &Path) -> io::Result<PathBuf> {
    let mut hasher = blake3::Hasher::new();
    for (path, text) in SOURCES {
        hasher.update(path.as_bytes()).update(&[0]).update(text.as_bytes()).update(&[0]);
    }
    let hash = hasher.finalize().to_hex();
    let workers = std::path::absolute(cache_dir)?.join("workers");
    let directory = workers.join(&hash[..16]);
    if !directory.exists() {
        // Another node may write the same: a rename makes the directory whole for both.
        let partial = workers.join(format!("{}.partial-{}", &hash[..16], std::process::id()));
        for (path, text) in SOURCES {
            let file = partial.join(path);
            fs::create_dir_all(file.parent().unwrap_or(&partial))?;
            fs::write(file, text)?;
        }
        let renamed = fs::rename(&partial, &directory);
        if !directory.exists() {
            renamed?;
        }
        // Left over only where the other node was first.
        let _ = fs::remove_dir_all(&partial);
    }
    Ok(directory.join("worker.cjs"))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_source_file_is_embedded() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("node-js");
        let parts = fs::read_dir(root.join("worker")).unwrap();
        let mut found: BTreeSet<_> =
            parts.map(|entry| format!("worker/{}", entry.unwrap().file_name().to_string_lossy())).collect();
        found.insert("worker.cjs".to_owned());
        assert_eq!(found, SOURCES.iter().map(|(path, _)| (*path).to_owned()).collect());
    }

    #[test]
    fn worker_is_written_once_and_whole() {
        let cache = tempfile::tempdir().unwrap();
        let entry = write_worker(cache.path()).unwrap();
        assert_eq!(write_worker(cache.path()).unwrap(), entry);
        assert_eq!(fs::read_to_string(&entry).unwrap(), SOURCES[0].1);
        assert_eq!(fs::read_dir(cache.path().join("workers")).unwrap().count(), 1);
    }
}
