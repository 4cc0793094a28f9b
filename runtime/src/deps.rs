//! Interpreters and third-party packages of an app: found or installed once, then reused.
//!
//! Packages live in the cache directory under a hash of what was asked for, so a second start finds them there.

mod command;
mod interpreter;
mod node;
mod python;
mod requirements;
mod store;

use std::{
    ffi::{OsStr, OsString},
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use fnmesh_invoke::{Failure, Language};

pub use self::interpreter::{Interpreter, resolve_node, resolve_python};
use crate::{app::App, manifest::FileError};

/// Where interpreters and package installers are and what they may see.
#[derive(Clone, Debug, Default)]
pub struct Tools {
    /// Where packages are kept. Created if missing.
    pub cache_dir: PathBuf,
    /// Interpreter for apps without a `.venv`: a path, or a name to find on `path`. Default `python3`.
    pub python: Option<PathBuf>,
    /// Node.js: a path, or a name to find on `path`. Default `node`.
    pub node: Option<PathBuf>,
    /// Search path of the node, handed to the tools.
    pub path: Option<OsString>,
    /// The node's environment. Tools get only what [`is_for_tools`] lets through.
    pub env: Vec<(OsString, OsString)>,
}

/// What an app runs with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Dependencies {
    /// The Python to start, when the app has Python modules.
    pub python: Option<PathBuf>,
    /// The Node.js to start, when the app has JavaScript or TypeScript modules.
    pub node: Option<PathBuf>,
}

/// What an installation is doing. None is reported where nothing has to be installed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Progress {
    /// It begins.
    Started {
        /// What is installed, for people.
        what: String,
    },
    /// The tool wrote a line.
    Line {
        /// The line.
        text: String,
    },
    /// It is complete.
    Finished {
        /// As in [`Progress::Started`].
        what: String,
        /// How long it took.
        elapsed: Duration,
    },
}

/// Why an app's interpreter or packages are not there.
#[derive(Debug, thiserror::Error)]
pub enum InstallError {
    /// The interpreter is missing, too old or does not run.
    #[error("{program}: {reason}")]
    Interpreter {
        /// Its name or path.
        program: String,
        /// What is wrong and what to do.
        reason: String,
    },
    /// A file that lists packages cannot be used.
    #[error(transparent)]
    File(#[from] FileError),
    /// A tool failed or took too long.
    #[error("{what}: {reason}{}", hint.map_or(String::new(), |hint| format!("; {hint}")))]
    Tool {
        /// What was to be done.
        what: String,
        /// How the tool ended.
        reason: String,
        /// What to do.
        hint: Option<&'static str>,
        /// The last lines that it wrote.
        output: String,
    },
    /// The operating system refused.
    #[error("cannot {what} {}: {source}", path.display())]
    Io {
        /// What was to be done, as a verb.
        what: &'static str,
        /// With which file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

/// Finds the interpreters of `app` and installs its packages where they are not there yet.
///
/// Touches little more than a few file stamps when there is nothing to do. Dropping the future ends the tools.
///
/// # Errors
/// When an interpreter is missing or too old, or a tool fails; a failed installation leaves nothing behind.
pub async fn install(
    app: &App,
    tools: &Tools,
    progress: &mut dyn FnMut(Progress),
) -> Result<Dependencies, InstallError> {
    // Tools run in the app's directory and links lead into the cache: the path must hold from anywhere.
    let cache_dir = std::path::absolute(&tools.cache_dir).map_err(failed_to("find", &tools.cache_dir))?;
    let tools = &Tools { cache_dir, ..tools.clone() };
    let languages = app.languages();
    let mut dependencies = Dependencies::default();
    if languages.contains(&Language::Python) {
        dependencies.python = Some(python::install(app, tools, progress).await?);
    }
    if languages.contains(&Language::Node) {
        dependencies.node = Some(node::install(app, tools, progress).await?);
    }
    Ok(dependencies)
}

/// Whether installers and version managers may see the environment variable `name`.
pub fn is_for_tools(name: &OsStr) -> bool {
    const NAMES: [&str; 15] = [
        "HOME",
        "TMPDIR",
        "LANG",
        "LC_ALL",
        "XDG_CACHE_HOME",
        "XDG_CONFIG_HOME",
        "NODE_EXTRA_CA_CERTS",
        "REQUESTS_CA_BUNDLE",
        "CURL_CA_BUNDLE",
        "SSL_CERT_FILE",
        "SSL_CERT_DIR",
        "http_proxy",
        "https_proxy",
        "all_proxy",
        "no_proxy",
    ];
    const PREFIXES: [&str; 7] = ["pip_", "npm_config_", "pyenv_", "asdf_", "mise_", "nvm_", "volta_"];
    let Some(name) = name.to_str() else { return false };
    let lower = name.to_ascii_lowercase();
    NAMES.contains(&name)
        || lower.ends_with("_proxy") && NAMES.contains(&&*lower)
        || PREFIXES.iter().any(|prefix| lower.starts_with(prefix))
}

impl InstallError {
    fn with_hint(mut self, advice: &'static str) -> Self {
        if let Self::Tool { hint, .. } = &mut self {
            *hint = Some(advice);
        }
        self
    }
}

impl From<InstallError> for Failure {
    fn from(error: InstallError) -> Self {
        let message = error.to_string();
        let stack = if let InstallError::Tool { output, .. } = error { output } else { String::new() };
        Self { kind: "InstallError".to_owned(), message, stack }
    }
}

fn failed_to(what: &'static str, path: &Path) -> impl Fn(io::Error) -> InstallError {
    move |source| InstallError::Io { what, path: path.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tools_see_their_settings_and_no_secrets() {
        for name in [
            "HOME",
            "PIP_INDEX_URL",
            "npm_config_cache",
            "NPM_CONFIG_CACHE",
            "HTTPS_PROXY",
            "no_proxy",
            "SSL_CERT_FILE",
        ] {
            assert!(is_for_tools(name.as_ref()), "{name}");
        }
        for name in ["AWS_SECRET_ACCESS_KEY", "PYTHONPATH", "NODE_OPTIONS", "PIP", "MY_PROXY", "home", "PATH"] {
            assert!(!is_for_tools(name.as_ref()), "{name}");
        }
    }

    #[test]
    fn failure_shows_what_the_tool_said() {
        let error = InstallError::Tool {
            what: "Python packages of shop".into(),
            reason: "failed (exit status: 1)".into(),
            hint: Some("do this"),
            output: "last\nlines".into(),
        };
        let failure = Failure::from(error);
        assert_eq!(failure.message, "Python packages of shop: failed (exit status: 1); do this");
        assert_eq!((failure.kind.as_str(), failure.stack.as_str()), ("InstallError", "last\nlines"));
    }
}
