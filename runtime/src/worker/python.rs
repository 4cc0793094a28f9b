//! How a Python worker is started.

use std::{ffi::OsString, path::PathBuf};

use super::process::Launch;
use crate::{app::App, config::Config};

/// Loads the worker core, given by path, into the interpreter and runs it.
const BOOTSTRAP: &str = include_str!("../../python/src/bootstrap.py");

pub(crate) fn launch(config: &Config, app: &App, interpreter: PathBuf, env: Vec<(OsString, OsString)>) -> Launch {
    Launch {
        program: interpreter,
        args: vec!["-c".into(), BOOTSTRAP.into()],
        trailing_args: vec![config.python_extension.clone().into()],
        env,
        directory: app.directory.clone(),
        max_memory_bytes: app.manifest.memory.map(|limit| limit.as_u64()),
        channels: 1 + config.threads,
    }
}
