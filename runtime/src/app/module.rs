//! Which files are modules, and what they are called.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Component, Path},
};

use fnmesh_invoke::Language;

use super::AppError;
use crate::manifest::{FunctionSettings, Manifest, did_you_mean};

/// One source file whose public functions are served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Module {
    /// What callers write in `app/module.function`: the path without its ending, dots for slashes.
    pub name: String,
    /// The file, relative to the app's directory, with `/` between parts.
    pub file: String,
    /// Its language.
    pub language: Language,
    /// What the manifest says of its functions, by function name.
    pub settings: BTreeMap<String, FunctionSettings>,
}

impl Module {
    pub(super) fn new(file: String, manifest: &Manifest) -> Self {
        let (stem, extension) = file.rsplit_once('.').unwrap_or((&file, ""));
        let language = language(extension).expect("only files of a known language become modules");
        let package = if language == Language::Python { stem.strip_suffix("/__init__") } else { None };
        let name = package.unwrap_or(stem).replace('/', ".");
        let settings = manifest.settings(&name);
        Self { name, file, language, settings }
    }
}

pub(super) const LOOKED_FOR: &str = "*.py, *.js, *.mjs, *.cjs, *.ts, *.mts and *.cts";

/// Endings of modules. Of Node files with one stem the first ending is served: the source before its compilation.
const EXTENSIONS: [(&str, Language); 7] = [
    ("py", Language::Python),
    ("ts", Language::Node),
    ("mts", Language::Node),
    ("cts", Language::Node),
    ("js", Language::Node),
    ("mjs", Language::Node),
    ("cjs", Language::Node),
];

/// Top-level Python files that are tools of the project and never modules. So are names that begin with `_` or `.`,
/// tests (`test_*.py`, `*_test.py`, `*.test.*`, `*.spec.*`), settings of tools (`*.config.*`) and `*.d.ts`.
const PYTHON_TOOLS: [&str; 4] = ["conftest.py", "manage.py", "noxfile.py", "setup.py"];

/// The modules at the top level of `directory`, sorted. Says in `warnings` which were left out although they are
/// meant to be modules.
pub(super) fn discover(directory: &Path, warnings: &mut Vec<String>) -> Result<Vec<String>, AppError> {
    let unreadable = |error: io::Error| AppError::Directory {
        directory: directory.to_owned(),
        reason: format!("cannot be read: {error}"),
    };
    let mut found = BTreeMap::<(String, Language), usize>::new();
    for entry in fs::read_dir(directory).map_err(unreadable)? {
        let name = entry.map_err(unreadable)?.file_name();
        let Some((file, stem, rank)) = name.to_str().and_then(candidate) else { continue };
        if !directory.join(file).is_file() {
            continue;
        }
        if let Err(reason) = resolve(directory, file) {
            warnings.push(reason);
            continue;
        }
        let of_stem = found.entry((stem.to_owned(), EXTENSIONS[rank].1)).or_insert(rank);
        if *of_stem != rank {
            let (served, left_out) = (rank.min(*of_stem), rank.max(*of_stem));
            *of_stem = served;
            let [served, left_out] = [served, left_out].map(|rank| format!("{stem}.{}", EXTENSIONS[rank].0));
            warnings.push(format!("{left_out:?} is left out: {served:?} has the same module name"));
        }
    }
    warnings.sort();
    Ok(found.into_iter().map(|((stem, _), rank)| format!("{stem}.{}", EXTENSIONS[rank].0)).collect())
}

/// The module file that a manifest names, its path made plain. The error names the file and the reason.
pub(crate) fn resolve(directory: &Path, named: &str) -> Result<String, String> {
    let mut parts = Vec::new();
    for component in Path::new(named).components() {
        match component {
            Component::Normal(part) => parts.push(part.to_str().ok_or_else(|| format!("{named:?} is not UTF-8"))?),
            Component::CurDir => {}
            _ => return Err(format!("{named:?} leads outside the app; give a path relative to the app's directory")),
        }
    }
    let file = parts.join("/");
    let path = directory.join(&file);
    let real = match fs::canonicalize(&path) {
        Ok(real) => real,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(format!("there is no file {named:?}{}", near(directory, &parts)));
        }
        Err(error) => return Err(format!("{named:?} cannot be read: {error}")),
    };
    if !real.starts_with(directory) {
        return Err(format!("{named:?} is a link that leads outside the app; put the file itself there"));
    }
    if !real.is_file() {
        return Err(format!("{named:?} is not a file; name the files to serve"));
    }
    let Some((stem, language)) = split(&file) else {
        return Err(format!("{named:?} has none of the endings {LOOKED_FOR}"));
    };
    if language == Language::Python && !stem.split('/').all(is_identifier) {
        return Err(format!(
            "{named:?} cannot be imported by Python: letters, digits and '_' can, not beginning with a digit"
        ));
    }
    Ok(file)
}

/// Whether Node has to be given this file without its types.
pub(super) fn is_typescript(file: &Path) -> bool {
    file.to_str().is_some_and(
        |file| matches!(file.rsplit_once('.'), Some((stem, "ts" | "mts" | "cts")) if !stem.ends_with(".d")),
    )
}

/// `file` with its stem and place in [`EXTENSIONS`], when its name is that of a module.
fn candidate(file: &str) -> Option<(&str, &str, usize)> {
    let (stem, extension) = file.rsplit_once('.')?;
    let rank = EXTENSIONS.iter().position(|(known, _)| *known == extension)?;
    let is_tool = match EXTENSIONS[rank].1 {
        Language::Python => PYTHON_TOOLS.contains(&file) || stem.starts_with("test_") || stem.ends_with("_test"),
        Language::Node => stem.ends_with(".d") || stem.ends_with(".config"),
    };
    let is_test = stem.ends_with(".test") || stem.ends_with(".spec");
    (!file.starts_with(['_', '.']) && !is_tool && !is_test).then_some((file, stem, rank))
}

fn split(file: &str) -> Option<(&str, Language)> {
    let (stem, extension) = file.rsplit_once('.')?;
    (!stem.ends_with(".d")).then_some((stem, language(extension)?))
}

fn language(extension: &str) -> Option<Language> {
    EXTENSIONS.iter().find(|(known, _)| *known == extension).map(|(_, language)| *language)
}

/// Close to XID_Start XID_Continue*, which Python asks for.
fn is_identifier(part: &str) -> bool {
    part.starts_with(|c: char| c == '_' || c.is_alphabetic()) && part.chars().all(|c| c == '_' || c.is_alphanumeric())
}

/// Modules in the same directory that look like the missing one.
fn near(directory: &Path, parts: &[&str]) -> String {
    let Some((wanted, parents)) = parts.split_last() else { return String::new() };
    let parent = parents.join("/");
    let names: Vec<_> = fs::read_dir(directory.join(&parent))
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| split(name).is_some())
        .map(|name| if parent.is_empty() { name } else { format!("{parent}/{name}") })
        .collect();
    let wanted = if parent.is_empty() { (*wanted).to_owned() } else { format!("{parent}/{wanted}") };
    did_you_mean(&wanted, names.iter().map(String::as_str))
}
