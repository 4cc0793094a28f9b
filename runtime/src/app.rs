//! An app as its directory describes it: which modules are served, under which settings, in which version.

mod dotenv;
pub(crate) mod module;
mod name;
#[cfg(test)]
mod tests;
pub(crate) mod version;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::{Path, PathBuf},
};

use fnmesh_invoke::{Failure, Language, Signature};

pub use self::module::Module;
use crate::{
    javascript,
    manifest::{self, FileError, Manifest, did_you_mean},
};

/// One app, read from its directory. Nothing of it runs yet.
#[derive(Clone, Debug)]
pub struct App {
    /// Its name on the mesh.
    pub name: String,
    /// Where its code lies, canonical.
    pub directory: PathBuf,
    /// Hash of its files, 12 hex digits.
    pub version: String,
    /// The whole of that hash.
    pub hash: [u8; 32],
    /// What is loaded, in this order.
    pub modules: Vec<Module>,
    /// Its settings.
    pub manifest: Manifest,
    /// Environment variables for its workers, sorted: `.env` under the manifest's own.
    pub env: Vec<(String, String)>,
    /// TypeScript without its types, by absolute path.
    pub sources: BTreeMap<PathBuf, String>,
    /// What sources say about functions besides what runs, TypeScript's types and comments, by [`Module::file`] and name.
    pub hints: BTreeMap<String, BTreeMap<String, Signature>>,
    /// What links among its files lead to, outside of its directory.
    pub links: Vec<PathBuf>,
    /// Files that look like modules and are not served, each with the reason, for the author to see.
    pub warnings: Vec<String>,
}

/// Why a directory is no app.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    /// It is not there, is no directory or cannot be read.
    #[error("{}: {reason}", directory.display())]
    Directory {
        /// What was asked for.
        directory: PathBuf,
        /// What is wrong with it, and what to do.
        reason: String,
    },
    /// The name cannot be an app's.
    #[error("{name:?} cannot be the name of an app: {reason}{}", suggest(suggestion.as_deref()))]
    Name {
        /// The name.
        name: String,
        /// Which rule it breaks.
        reason: String,
        /// A name that would do.
        suggestion: Option<String>,
    },
    /// A file in it cannot be used.
    #[error(transparent)]
    File(#[from] FileError),
    /// A module of it cannot be parsed.
    #[error("{failure}")]
    Source {
        /// What is wrong, with file and line.
        failure: Box<Failure>,
    },
    /// It has nothing to serve.
    #[error("{}: no functions found; looked for {} at the top level{}", directory.display(), module::LOOKED_FOR, listed(left_out))]
    Empty {
        /// The app's directory.
        directory: PathBuf,
        /// Files that were left out, each with the reason.
        left_out: Vec<String>,
    },
    /// It is larger than an app may be.
    #[error("{}: more than the limit of {limit}; move data that is not code out of the app", directory.display())]
    TooLarge {
        /// The app's directory.
        directory: PathBuf,
        /// The limit, with its unit.
        limit: String,
    },
}

impl App {
    /// Reads the app in `directory`. Its name is `name`, else the manifest's, else the directory's.
    ///
    /// Reads every file of the app: call it where blocking is allowed.
    ///
    /// # Errors
    /// When the directory cannot be read, a file in it is wrong, or there is nothing to serve.
    pub fn read(directory: &Path, name: Option<&str>) -> Result<Self, AppError> {
        let canonical = locate(directory)?;
        let bounds = |manifest: &Manifest| version::Bounds::of(&canonical, &manifest.writable);
        let hash = version::hash(&canonical, &bounds(&Manifest::read(&canonical)?))?;
        // Again, and all else after it: a file that changes while the rest is read then gives another version next time.
        let manifest = Manifest::read(&canonical)?;
        let name = match name.or(manifest.name.as_deref()) {
            Some(name) => name::check(name)?,
            None => name::of_directory(directory, &canonical)?,
        };
        let mut warnings = Vec::new();
        let files = match &manifest.modules {
            Some(files) => files.clone(),
            None => module::discover(&canonical, &mut warnings)?,
        };
        if files.is_empty() {
            return Err(AppError::Empty { directory: canonical, left_out: warnings });
        }
        let modules = modules(&canonical, &manifest, files)?;
        let env = env(&canonical, &manifest)?;
        let (sources, hints, links) = Default::default();
        let (version, hash) = (version::name(&hash), *hash.as_bytes());
        let mut app =
            Self { name, directory: canonical, version, hash, modules, manifest, env, sources, hints, links, warnings };
        app.read_sources()?;
        Ok(app)
    }

    /// The languages of its modules.
    pub fn languages(&self) -> BTreeSet<Language> {
        self.modules.iter().map(|module| module.language).collect()
    }

    /// Strips the types of its TypeScript files, modules and what they may import, and takes types and comments
    /// from the sources of its modules.
    fn read_sources(&mut self) -> Result<(), AppError> {
        let mut files =
            version::files(&self.directory, &version::Bounds::of(&self.directory, &self.manifest.writable))?;
        self.links = files.iter().filter_map(|file| leads_out(&self.directory, file)).collect();
        files.retain(|file| module::is_typescript(file));
        for file in files {
            let path = self.directory.join(&file);
            // Gone since it was listed: whoever imports it will say so.
            let Ok(source) = fs::read_to_string(&path) else { continue };
            match javascript::strip_types(&path, &source) {
                Ok(stripped) => drop(self.sources.insert(path, stripped)),
                Err(failure) if self.modules.iter().any(|module| Path::new(&module.file) == file) => {
                    return Err(AppError::Source { failure: Box::new(failure) });
                }
                Err(failure) => self.warnings.push(format!("{} is left out: {failure}", file.display())),
            }
        }
        for module in self.modules.iter().filter(|module| module.language == Language::Node) {
            let Ok(source) = fs::read_to_string(self.directory.join(&module.file)) else { continue };
            let hints = if module::is_typescript(Path::new(&module.file)) {
                javascript::typescript_signatures(&source)
            } else {
                let documented = javascript::documentation(&source).into_iter();
                documented.map(|(name, doc)| (name, Signature { doc: Some(doc), ..Signature::default() })).collect()
            };
            self.hints.insert(module.file.clone(), hints);
        }
        Ok(())
    }
}

impl From<AppError> for Failure {
    fn from(error: AppError) -> Self {
        if let AppError::Source { failure } = error {
            return *failure;
        }
        Self { kind: "AppError".to_owned(), message: error.to_string(), stack: String::new() }
    }
}

fn locate(directory: &Path) -> Result<PathBuf, AppError> {
    let refuse = |reason: String| AppError::Directory { directory: directory.to_owned(), reason };
    let canonical = fs::canonicalize(directory).map_err(|error| {
        refuse(match error.kind() {
            io::ErrorKind::NotFound => format!("no such directory{}", near(directory)),
            _ => format!("cannot be read: {error}"),
        })
    })?;
    if !canonical.is_dir() {
        return Err(refuse("is a file; give the directory that contains it".to_owned()));
    }
    fs::read_dir(&canonical).map_err(|error| refuse(format!("cannot be read: {error}")))?;
    Ok(canonical)
}

/// Directories beside the one that is missing, where one looks alike.
fn near(missing: &Path) -> String {
    let Some(name) = missing.file_name() else { return String::new() };
    let parent = missing.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let Ok(entries) = fs::read_dir(parent) else { return String::new() };
    let siblings: Vec<_> = entries
        .flatten()
        .filter(|entry| entry.path().is_dir())
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect();
    did_you_mean(&name.to_string_lossy(), siblings.iter().map(String::as_str))
}

fn modules(directory: &Path, manifest: &Manifest, files: Vec<String>) -> Result<Vec<Module>, AppError> {
    let refuse = |message| FileError::new(&directory.join(manifest::FILE), None, message);
    let mut modules = Vec::<Module>::with_capacity(files.len());
    for file in files {
        let module = Module::new(file, manifest);
        match modules.iter().find(|other| other.name == module.name && other.language == module.language) {
            // Named twice.
            Some(other) if other.file == module.file => continue,
            Some(other) => {
                let (name, first, second) = (&module.name, &other.file, &module.file);
                return Err(
                    refuse(format!("{first} and {second} are both the module {name:?}; serve one of them")).into()
                );
            }
            None => modules.push(module),
        }
    }
    for (module, key) in manifest.modules_with_settings() {
        if !modules.iter().any(|known| known.name == module) {
            let hint = did_you_mean(module, modules.iter().map(|known| known.name.as_str()));
            return Err(refuse(format!("functions.{key:?}: there is no module {module:?}{hint}")).into());
        }
    }
    Ok(modules)
}

fn env(directory: &Path, manifest: &Manifest) -> Result<Vec<(String, String)>, FileError> {
    let file = directory.join(".env");
    let mut env = BTreeMap::new();
    // Some people call their virtual environment `.env`.
    if file.is_file()
        && let Some(text) = manifest::read_optional(&file)?
    {
        env = dotenv::parse(&text).map_err(|(line, message)| FileError::new(&file, Some(line), message))?;
    }
    env.extend(manifest.env.clone());
    Ok(env.into_iter().collect())
}

fn suggest(name: Option<&str>) -> String {
    name.map_or_else(String::new, |name| format!("; {name:?} would do: set name in {} or rename", manifest::FILE))
}

fn listed(left_out: &[String]) -> String {
    if left_out.is_empty() { String::new() } else { format!(" and left out: {}", left_out.join("; ")) }
}

/// What `file` is a link to, if that lies outside of the app.
fn leads_out(directory: &Path, file: &Path) -> Option<PathBuf> {
    let path = directory.join(file);
    let target = path.is_symlink().then(|| fs::canonicalize(path).ok())??;
    (!target.starts_with(directory)).then_some(target)
}
