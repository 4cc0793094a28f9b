//! How a Python worker is started.

use std::{ffi::OsString, io, path::PathBuf, sync::Arc};

use super::{
    cgroup::Bounds,
    process::{DirectoryIdentity, Launch},
    sandbox::{Access, Sandbox},
};
use crate::{app::App, config::Config};

/// Loads the worker core, given by path, into the interpreter and runs it.
const BOOTSTRAP: &str = include_str!("../../python/src/bootstrap.py");

pub(crate) fn launch(
    config: &Config,
    sandbox: &Arc<Sandbox>,
    app: &App,
    interpreter: PathBuf,
    env: Vec<(OsString, OsString)>,
) -> io::Result<Launch> {
    let access = Access::new(app, &interpreter, &config.python_extension, &env)?;
    Ok(Launch {
        program: interpreter,
        args: vec!["-c".into(), BOOTSTRAP.into()],
        trailing_args: vec![config.python_extension.clone().into()],
        env,
        directory: app.directory.clone(),
        identity: DirectoryIdentity::of(&app.directory)?,
        bounds: Bounds::new(config, app),
        access: Some(access),
        sandbox: Arc::clone(sandbox),
    })
}
