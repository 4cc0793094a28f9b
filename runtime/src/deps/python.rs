//! The Python of an app: its own `.venv`, else a cached environment with its packages, else the plain interpreter.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Instant,
};

use super::{
    InstallError, Interpreter, Progress, Tools,
    command::{TIMEOUT, command, run},
    interpreter::resolve_python,
    requirements::{self, Requirements},
    store,
};
use crate::{app::App, manifest::FileError};

/// The executable to start.
pub(super) async fn install(
    app: &App,
    tools: &Tools,
    progress: &mut dyn FnMut(Progress),
) -> Result<PathBuf, InstallError> {
    let own = app.directory.join(".venv/bin/python");
    if fs::symlink_metadata(&own).is_ok() {
        if !own.exists() {
            let message = "leads nowhere; make the virtual environment again or remove .venv";
            return Err(FileError::new(&own, None, message).into());
        }
        return Ok(resolve_python(&own, &app.directory, tools).await?.executable);
    }
    let python = tools.python.as_deref().unwrap_or(Path::new("python3"));
    let base = resolve_python(python, &app.directory, tools).await?;
    let Some(requirements) = requirements::read(&app.directory, app.manifest.install_scripts)? else {
        return Ok(base.executable);
    };
    let venv = tools.cache_dir.join("venvs").join(hash(app, &base, &requirements));
    store::once(&venv, async || create(&venv, app, tools, &base, &requirements, progress).await).await?;
    Ok(venv.join("bin/python"))
}

fn hash(app: &App, base: &Interpreter, requirements: &Requirements) -> String {
    let mut parts = vec![base.executable.as_os_str().as_encoded_bytes(), base.version.as_bytes()];
    parts.push(if app.manifest.install_scripts { b"scripts" } else { b"wheels" });
    parts.push(requirements.file.as_bytes());
    parts.extend(requirements.texts.iter().map(String::as_bytes));
    store::hash(parts)
}

async fn create(
    venv: &Path,
    app: &App,
    tools: &Tools,
    base: &Interpreter,
    requirements: &Requirements,
    progress: &mut dyn FnMut(Progress),
) -> Result<(), InstallError> {
    let started = Instant::now();
    let what = format!("Python packages of {} ({})", app.name, requirements.file);
    progress(Progress::Started { what: what.clone() });

    // `-I`: modules of the app must not stand in for those of the standard library.
    let mut make = command(&base.executable, &app.directory, tools);
    make.args(["-I", "-m", "venv"]).arg(venv);
    let hint = "the venv module may be missing: apt install python3-venv";
    run(make, &what, TIMEOUT, progress).await.map_err(|error| error.with_hint(hint))?;

    let mut pip = command(&venv.join("bin/python"), &app.directory, tools);
    pip.args(["-I", "-m", "pip", "install", "--disable-pip-version-check", "--no-input", "--progress-bar", "off"]);
    let hint = if app.manifest.install_scripts {
        "check the names and versions and the connection to the package index"
    } else {
        pip.args(["--only-binary", ":all:"]);
        "packages without a wheel are not built, since that runs their code; allow it with install_scripts = true \
         in fnmesh.toml"
    };
    pip.args(&requirements.arguments);
    run(pip, &what, TIMEOUT, progress).await.map_err(|error| error.with_hint(hint))?;
    progress(Progress::Finished { what, elapsed: started.elapsed() });
    Ok(())
}
