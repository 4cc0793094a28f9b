//! What an app's author says about it: `fnmesh.toml`, and MetaCall's `metacall.json` where that names no modules.

mod metacall;
mod pool;
#[cfg(test)]
mod tests;
mod value;

use std::{
    collections::BTreeMap,
    fmt, fs, io,
    io::Read,
    num::NonZeroU32,
    path::{Path, PathBuf},
    time::Duration,
};

use bytesize::ByteSize;
use fnmesh_invoke::{Limits, nearest};
use serde::Deserialize;

pub use pool::PoolSettings;

use crate::app::module;

/// The manifest's file name.
pub const FILE: &str = "fnmesh.toml";

const MAX_FILE_BYTES: u64 = 1 << 20;

/// The settings of one app. An app without `fnmesh.toml` has the defaults.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Manifest {
    /// The app's name. Default: its directory's.
    pub name: Option<String>,
    /// Files that are served, relative to the app's directory; they exist and lie inside it. From `fnmesh.toml`, else
    /// from `metacall.json` and `metacall-*.json`. Default: what [`crate::App::read`] finds.
    pub modules: Option<Vec<String>>,
    /// How long one call may take, 1 ms to 24 h. Default 30 s.
    #[serde(deserialize_with = "value::timeout")]
    pub timeout: Duration,
    /// Calls in flight in one instance, 1 to 10,000. Default 100.
    #[serde(deserialize_with = "value::concurrency")]
    pub concurrency: NonZeroU32,
    /// Memory of one instance, 16 MiB or more. Default: [`crate::Config::max_memory_bytes`].
    #[serde(deserialize_with = "value::memory")]
    pub memory: Option<ByteSize>,
    /// Processes and threads of one instance, 16 to 100,000. Default: 512 and as many as `concurrency`.
    #[serde(deserialize_with = "value::processes")]
    pub processes: Option<NonZeroU32>,
    /// Temporary files of one instance, 1 MiB or more. Default 512 MiB.
    #[serde(deserialize_with = "value::temporary")]
    pub tmp: ByteSize,
    /// Files and directories besides the app's own that it may read, absolute or relative to the app. Default none.
    pub readable: Vec<PathBuf>,
    /// Files and directories it may change, absolute or relative to the app. They count as data: their content makes
    /// no new version of the app. Default none.
    pub writable: Vec<PathBuf>,
    /// Instances that each of the app's languages keeps even when nobody calls, 0 to 256. Default 1.
    #[serde(deserialize_with = "value::min_instances")]
    pub min_instances: u32,
    /// Instances that each of the app's languages may have, 1 to 256 and at least `min_instances`. Default: one
    /// for each core, but at least 2 and at least `min_instances`.
    #[serde(deserialize_with = "value::some_instances")]
    pub max_instances: Option<NonZeroU32>,
    /// How long an instance beyond `min_instances` may be without a call before it stops, 1 s to 24 h. Default
    /// 10 min.
    #[serde(deserialize_with = "value::keep_alive")]
    pub keep_alive: Duration,
    /// Calls that may wait in each of the app's languages, 1 to 100,000. Default: 1024, or as many as are served in
    /// a second if that is more, up to 16,384.
    #[serde(deserialize_with = "value::some_queue")]
    pub queue: Option<NonZeroU32>,
    /// What of this is different for Python.
    pub python: PoolSettings,
    /// What of this is different for JavaScript and TypeScript.
    pub node: PoolSettings,
    /// Whether Python instances may be forked from a process that has the app loaded. Default true.
    pub fork: bool,
    /// Whether packages may run code of theirs while they are installed. Default false.
    pub install_scripts: bool,
    /// Whether HTTP callers may call the functions. Default true.
    pub public: bool,
    /// Environment variables for the app's workers. They win over `.env`.
    #[serde(deserialize_with = "value::env")]
    pub env: BTreeMap<String, String>,
    /// Settings by `function` or `module.function`; of the two the longer name counts, alone.
    pub functions: BTreeMap<String, FunctionSettings>,
}

/// What a manifest says about one function.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FunctionSettings {
    /// How long one call may take, 1 ms to 24 h. Default: the app's.
    #[serde(deserialize_with = "value::some_timeout")]
    pub timeout: Option<Duration>,
    /// Calls in flight of this function on this node, 1 to 10,000. Default: no limit but the instances'.
    #[serde(deserialize_with = "value::some_concurrency")]
    pub concurrency: Option<NonZeroU32>,
    /// Whether HTTP callers may call it. Default: the app's.
    pub public: Option<bool>,
    /// Node: it takes a last argument `(err, value)`. Default false.
    pub callback: bool,
    /// Node: it takes the HTTP request. Default false.
    pub http: bool,
}

impl Default for Manifest {
    fn default() -> Self {
        Self {
            name: None,
            modules: None,
            timeout: Limits::default().timeout,
            concurrency: value::DEFAULT_CONCURRENCY,
            memory: None,
            processes: None,
            tmp: value::DEFAULT_TEMPORARY,
            readable: Vec::new(),
            writable: Vec::new(),
            min_instances: 1,
            max_instances: None,
            keep_alive: value::DEFAULT_KEEP_ALIVE,
            queue: None,
            python: PoolSettings::default(),
            node: PoolSettings::default(),
            fork: true,
            install_scripts: false,
            public: true,
            env: BTreeMap::new(),
            functions: BTreeMap::new(),
        }
    }
}

impl Manifest {
    /// Reads the manifest of the app in `directory`, which is canonical.
    ///
    /// # Errors
    /// When a file cannot be read or understood, or names modules that are not there.
    pub fn read(directory: &Path) -> Result<Self, FileError> {
        let file = directory.join(FILE);
        let mut manifest = match read_optional(&file)? {
            Some(text) => Self::parse(&file, &text)?,
            None => Self::default(),
        };
        manifest.modules = match manifest.modules.take() {
            Some(modules) => Some(named(directory, &file, &modules)?),
            None => metacall::modules(directory)?,
        };
        Ok(manifest)
    }

    /// Keys of [`Self::functions`] that fit none of the app's functions, given as (module, function).
    pub fn unmatched<'a>(&self, functions: impl IntoIterator<Item = (&'a str, &'a str)>) -> Vec<&str> {
        let mut unmatched: Vec<_> = self.functions.keys().map(String::as_str).collect();
        for (module, function) in functions {
            unmatched.retain(|key| match split_key(key) {
                (Some(of), name) => (of, name) != (module, function),
                (None, name) => name != function,
            });
        }
        unmatched
    }

    /// The settings of the functions of `module`, by function name.
    pub(crate) fn settings(&self, module: &str) -> BTreeMap<String, FunctionSettings> {
        let mut settings = BTreeMap::new();
        for (key, value) in &self.functions {
            match split_key(key) {
                (None, name) => {
                    settings.entry(name.to_owned()).or_insert_with(|| value.clone());
                }
                (Some(of), name) if of == module => {
                    settings.insert(name.to_owned(), value.clone());
                }
                _ => {}
            }
        }
        settings
    }

    /// The modules that keys of [`Self::functions`] name.
    pub(crate) fn modules_with_settings(&self) -> impl Iterator<Item = (&str, &str)> {
        self.functions.keys().filter_map(|key| Some((split_key(key).0?, key.as_str())))
    }

    fn parse(file: &Path, text: &str) -> Result<Self, FileError> {
        let manifest: Self = toml::from_str(text).map_err(|error| {
            let line = error.span().map(|span| line_of(text, span.start));
            FileError::new(file, line, explain(error.message()))
        })?;
        manifest.check_pools().map_err(|message| FileError::new(file, None, message))?;
        Ok(manifest)
    }
}

/// A file of an app that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct FileError {
    /// The file.
    pub file: PathBuf,
    /// The line, counted from 1, where it is known.
    pub line: Option<usize>,
    /// What is wrong there.
    pub message: String,
}

impl FileError {
    pub(crate) fn new(file: &Path, line: Option<usize>, message: impl Into<String>) -> Self {
        Self { file: file.to_owned(), line, message: message.into() }
    }
}

impl fmt::Display for FileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.file.display())?;
        if let Some(line) = self.line {
            write!(f, "{line}:")?;
        }
        write!(f, " {}", self.message)
    }
}

/// The text of `file`; `None` where there is no such file.
pub(crate) fn read_optional(file: &Path) -> Result<Option<String>, FileError> {
    let mut bytes = Vec::new();
    match fs::File::open(file).and_then(|opened| opened.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes)) {
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(FileError::new(file, None, format!("cannot be read: {error}"))),
    }
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(FileError::new(file, None, format!("larger than the limit of {MAX_FILE_BYTES} bytes")));
    }
    String::from_utf8(bytes).map(Some).map_err(|error| {
        let valid = error.utf8_error().valid_up_to();
        let line = 1 + error.as_bytes()[..valid].iter().filter(|&&byte| byte == b'\n').count();
        FileError::new(file, Some(line), "not UTF-8 text")
    })
}

/// The line, counted from 1, of the byte at `offset`.
pub(crate) fn line_of(text: &str, offset: usize) -> usize {
    1 + text.as_bytes().iter().take(offset).filter(|&&byte| byte == b'\n').count()
}

/// `; did you mean "a"?`, or nothing where no name looks like `wanted`.
pub(crate) fn did_you_mean<'a>(wanted: &str, names: impl IntoIterator<Item = &'a str>) -> String {
    nearest(wanted, names).first().map_or_else(String::new, |name| format!("; did you mean {name:?}?"))
}

fn named(directory: &Path, file: &Path, modules: &[String]) -> Result<Vec<String>, FileError> {
    if modules.is_empty() {
        let message = "modules is empty; name at least one file, or leave it out to serve every file";
        return Err(FileError::new(file, None, message));
    }
    modules
        .iter()
        .map(|module| module::resolve(directory, module).map_err(|message| FileError::new(file, None, message)))
        .collect()
}

/// `module.function` or `function`; modules may have dots, functions cannot.
fn split_key(key: &str) -> (Option<&str>, &str) {
    key.rsplit_once('.').map_or((None, key), |(module, function)| (Some(module), function))
}

/// Adds a "did you mean" to serde's "unknown field `a`, expected one of `b`, `c`".
fn explain(message: &str) -> String {
    let mut quoted = message.split('`').skip(1).step_by(2);
    let Some(unknown) = message.strip_prefix("unknown field ").and_then(|_| quoted.next()) else {
        return message.to_owned();
    };
    let known: Vec<_> = quoted.collect();
    if unknown == "instances" && known.contains(&"min_instances") {
        return "unknown key \"instances\"; write min_instances and max_instances, between which a pool adapts"
            .to_owned();
    }
    let mut hint = did_you_mean(unknown, known.iter().copied());
    if hint.is_empty() {
        hint = format!("; there are {}", known.join(", "));
        if known.contains(&"callback") {
            hint.push_str(" (a module's function is written [functions.\"module.function\"])");
        }
    }
    format!("unknown key {unknown:?}{hint}")
}
