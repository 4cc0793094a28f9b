//! How a Node.js worker is started.

use std::{ffi::OsString, fs, io, path::PathBuf};

use super::process::Launch;
use crate::{app::App, config::Config};

/// The worker's own source, one file. It is part of the binary and written where Node can load it.
const WORKER: &str = include_str!("../../node-js/worker.cjs");

pub(crate) fn launch(
    config: &Config,
    app: &App,
    interpreter: PathBuf,
    env: Vec<(OsString, OsString)>,
) -> io::Result<Launch> {
    let mut args: Vec<OsString> = Vec::new();
    if let Some(bytes) = app.manifest.memory {
        // V8 reserves far more address space than it uses, so the heap is what can be limited.
        args.push(format!("--max-old-space-size={}", (bytes >> 20).max(1)).into());
    }
    args.push(worker_script(config)?.into());
    Ok(Launch {
        program: interpreter,
        args,
        trailing_args: Vec::new(),
        env,
        directory: app.directory.clone(),
        max_data_bytes: None,
        channels: 1 + config.threads,
    })
}

/// Writes the worker's source unless it is there. Its name is its hash, so versions do not mix.
fn worker_script(config: &Config) -> io::Result<PathBuf> {
    let hash = blake3::hash(WORKER.as_bytes()).to_hex();
    let directory = std::path::absolute(&config.cache_dir)?.join("workers");
    let path = directory.join(format!("{}.cjs", &hash[..16]));
    if fs::read(&path).is_ok_and(|found| found == WORKER.as_bytes()) {
        return Ok(path);
    }
    fs::create_dir_all(&directory)?;
    // Another node may write the same file: a rename makes it whole for both.
    let partial = directory.join(format!("{}.partial-{}", &hash[..16], std::process::id()));
    fs::write(&partial, WORKER)?;
    fs::rename(&partial, &path)?;
    Ok(path)
}
