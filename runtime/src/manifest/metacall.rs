//! MetaCall's `metacall.json`, as its FaaS reads it: which scripts of which language are served.

use std::{fs, path::Path};

use serde::Deserialize;

use super::{FileError, did_you_mean, read_optional};
use crate::app::module;

/// MetaCall's names of the languages we run, with the files each may name.
const LANGUAGES: [(&str, &[&str]); 3] =
    [("py", &["py"]), ("node", &["js", "mjs", "cjs"]), ("ts", &["ts", "mts", "cts"])];

/// Members that we do not use belong to MetaCall and are left alone.
#[derive(Deserialize)]
struct Metacall {
    language_id: String,
    #[serde(default)]
    path: String,
    scripts: Vec<String>,
}

/// The files that `metacall.json` and `metacall-*.json` name, relative to `directory`; `None` without such a file.
pub(super) fn modules(directory: &Path) -> Result<Option<Vec<String>>, FileError> {
    let mut modules = Vec::new();
    for name in file_names(directory)? {
        let file = directory.join(name);
        // A file that vanished since it was listed says nothing.
        let Some(text) = read_optional(&file)? else { continue };
        let parsed: Metacall = serde_json::from_str(&text)
            .map_err(|error| FileError::new(&file, Some(error.line()), error.to_string()))?;
        let scripts = scripts(directory, &parsed).map_err(|message| FileError::new(&file, None, message))?;
        modules.extend(scripts);
    }
    Ok((!modules.is_empty()).then_some(modules))
}

fn file_names(directory: &Path) -> Result<Vec<String>, FileError> {
    let unreadable = |error| FileError::new(directory, None, format!("cannot be read: {error}"));
    let mut names = Vec::new();
    for entry in fs::read_dir(directory).map_err(unreadable)? {
        if let Ok(name) = entry.map_err(unreadable)?.file_name().into_string()
            && name.strip_prefix("metacall").and_then(|rest| rest.strip_suffix(".json")).is_some_and(is_kind)
        {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

/// The `-py` of `metacall-py.json`, or nothing.
fn is_kind(between: &str) -> bool {
    between.is_empty() || between.len() > 1 && between.starts_with('-')
}

fn scripts(directory: &Path, metacall: &Metacall) -> Result<Vec<String>, String> {
    let wanted = metacall.language_id.as_str();
    let Some((_, extensions)) = LANGUAGES.iter().find(|(id, _)| *id == wanted) else {
        let supported = LANGUAGES.map(|(id, _)| id);
        let hint = did_you_mean(wanted, supported);
        return Err(format!("language_id {wanted:?} is not supported; there are {}{hint}", supported.join(", ")));
    };
    if metacall.scripts.is_empty() {
        return Err("scripts is empty; name at least one file".to_owned());
    }
    let resolve = |script: &String| {
        let file = Path::new(&metacall.path).join(script);
        let module = module::resolve(directory, &file.to_string_lossy())?;
        let fits = extensions.iter().any(|extension| module.ends_with(&format!(".{extension}")));
        if fits { Ok(module) } else { Err(format!("{script:?} is no script of language_id {wanted:?}")) }
    };
    metacall.scripts.iter().map(resolve).collect()
}
