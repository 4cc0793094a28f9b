//! What a Python app needs: `requirements.txt`, else `pyproject.toml`.

use std::path::{Path, PathBuf};

use serde::Deserialize;
use toml::Spanned;

use crate::manifest::{FileError, line_of, read_optional};

/// Packages for pip to install.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Requirements {
    /// The file that lists them.
    pub(super) file: &'static str,
    /// How pip is told.
    pub(super) arguments: Vec<String>,
    /// All that was read, for the hash.
    pub(super) texts: Vec<String>,
}

/// The requirements of the app in `directory`; `None` when there are none.
///
/// Unless `install_scripts`, those are refused that pip would build from source although it is told to take wheels
/// only: that option does not hold for paths, archives and repositories.
pub(super) fn read(directory: &Path, install_scripts: bool) -> Result<Option<Requirements>, FileError> {
    let mut reader = Reader { install_scripts, files: Vec::new(), texts: Vec::new(), is_empty: true };
    const LIST: &str = "requirements.txt";
    if let Some(text) = read_optional(&directory.join(LIST))? {
        reader.list(directory.join(LIST), text)?;
        if !reader.is_empty {
            let arguments = vec!["-r".to_owned(), LIST.to_owned()];
            return Ok(Some(Requirements { file: LIST, arguments, texts: reader.texts }));
        }
    }
    reader.project(directory)
}

/// The part of `pyproject.toml` that is read. The project itself is not installed: that would run its build.
#[derive(Default, Deserialize)]
struct PyProject {
    #[serde(default)]
    project: Project,
}

#[derive(Default, Deserialize)]
struct Project {
    #[serde(default)]
    dependencies: Vec<Spanned<String>>,
}

struct Reader {
    install_scripts: bool,
    files: Vec<PathBuf>,
    texts: Vec<String>,
    is_empty: bool,
}

impl Reader {
    fn project(&self, directory: &Path) -> Result<Option<Requirements>, FileError> {
        const PROJECT: &str = "pyproject.toml";
        let file = directory.join(PROJECT);
        let Some(text) = read_optional(&file)? else { return Ok(None) };
        let parsed: PyProject = toml::from_str(&text).map_err(|error| {
            FileError::new(&file, error.span().map(|span| line_of(&text, span.start)), error.message())
        })?;
        let mut arguments = Vec::new();
        for dependency in parsed.project.dependencies {
            let line = line_of(&text, dependency.span().start);
            let dependency = dependency.into_inner();
            if dependency.trim_start().starts_with('-') {
                return Err(FileError::new(&file, Some(line), format!("{dependency:?} is no requirement")));
            }
            self.check(&file, line, &dependency)?;
            arguments.push(dependency);
        }
        let texts = arguments.clone();
        Ok((!arguments.is_empty()).then_some(Requirements { file: PROJECT, arguments, texts }))
    }

    /// A requirements file and those it includes.
    fn list(&mut self, file: PathBuf, text: String) -> Result<(), FileError> {
        if self.files.contains(&file) {
            return Ok(());
        }
        self.files.push(file.clone());
        for (line, requirement) in logical_lines(&text) {
            self.is_empty = false;
            match included(&requirement) {
                // What pip fetches by itself restricts at most.
                Some((Include::Constraint, path)) if path.contains("://") => {}
                Some((_, path)) if !path.contains("://") => {
                    let path = file.parent().unwrap_or(Path::new("")).join(path);
                    let Some(text) = read_optional(&path)? else {
                        let message = format!("there is no file {}, which this line includes", path.display());
                        return Err(FileError::new(&file, Some(line), message));
                    };
                    self.list(path, text)?;
                }
                _ => self.check(&file, line, &requirement)?,
            }
        }
        self.texts.push(text);
        Ok(())
    }

    fn check(&self, file: &Path, line: usize, requirement: &str) -> Result<(), FileError> {
        if self.install_scripts || !builds(requirement) {
            return Ok(());
        }
        let message = format!(
            "{requirement:?} may be built from source, which runs its code; name a wheel or a version, \
             or set install_scripts = true in {}",
            crate::manifest::FILE
        );
        Err(FileError::new(file, Some(line), message))
    }
}

enum Include {
    Requirements,
    Constraint,
}

/// Lines that say something, with continuations joined, without comments; numbered from 1.
fn logical_lines(text: &str) -> Vec<(usize, String)> {
    let mut lines = Vec::new();
    let mut open: Option<(usize, String)> = None;
    for (number, line) in text.lines().enumerate() {
        let (start, mut joined) = open.take().unwrap_or((number + 1, String::new()));
        let is_comment = line.trim_start().starts_with('#');
        match line.strip_suffix('\\') {
            Some(part) if !is_comment => {
                joined.push_str(part);
                open = Some((start, joined));
            }
            _ => {
                joined.push_str(line);
                lines.push((start, joined));
            }
        }
    }
    lines.extend(open);
    lines.retain_mut(|(_, line)| {
        let is_comment = |at: usize| at == 0 || line[..at].ends_with(char::is_whitespace);
        let comment = line.match_indices('#').find(|(at, _)| is_comment(*at));
        if let Some((at, _)) = comment {
            line.truncate(at);
        }
        *line = line.trim().to_owned();
        !line.is_empty()
    });
    lines
}

/// The file of `-r file` and `-c file`.
fn included(line: &str) -> Option<(Include, &str)> {
    for (option, include) in [
        ("--requirement", Include::Requirements),
        ("-r", Include::Requirements),
        ("--constraint", Include::Constraint),
        ("-c", Include::Constraint),
    ] {
        if let Some(path) = line.strip_prefix(option) {
            return Some((include, path.trim_start_matches(['=', ' ', '\t'])));
        }
    }
    None
}

/// Whether pip may run code of the package to install it.
fn builds(requirement: &str) -> bool {
    if requirement.contains("--no-binary") {
        return true;
    }
    if requirement.starts_with('-') {
        return ["-e", "--editable", "-r", "--requirement"].iter().any(|option| requirement.starts_with(option));
    }
    // `name @ url ; marker --hash=...`: what counts is the URL or path.
    let head = requirement.split(';').next().unwrap_or_default().trim();
    let target = head.split_once('@').map_or(head, |(_, target)| target.trim_start());
    let target = target.split([' ', '\t', '#', '?']).next().unwrap_or_default();
    let is_reference = head.contains(['/', '@'])
        || head.starts_with('.')
        || [".zip", ".tgz", ".tar.gz", ".tar.bz2", ".tar.xz"].iter().any(|ending| target.ends_with(ending));
    is_reference && !target.ends_with(".whl")
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn read_with(files: &[(&str, &str)], install_scripts: bool) -> Result<Option<Requirements>, String> {
        let app = tempfile::tempdir().unwrap();
        for (name, text) in files {
            fs::write(app.path().join(name), text).unwrap();
        }
        let shorten = |error: FileError| error.to_string().replace(&format!("{}/", app.path().display()), "");
        read(app.path(), install_scripts).map_err(shorten)
    }

    #[test]
    fn nothing_asked_for_is_nothing() {
        assert_eq!(read_with(&[], false), Ok(None));
        assert_eq!(read_with(&[("requirements.txt", "# none\n\n   # yet\n")], false), Ok(None));
        assert_eq!(read_with(&[("pyproject.toml", "[tool.black]\nline-length = 120\n")], false), Ok(None));
        assert_eq!(read_with(&[("pyproject.toml", "[project]\nname = \"x\"\ndependencies = []\n")], false), Ok(None));
    }

    #[test]
    fn requirements_win_over_project() {
        let project = ("pyproject.toml", "[project]\ndependencies = [\"six>=1\", 'attrs; python_version < \"4\"']\n");
        let read = |list| read_with(&[("requirements.txt", list), project], false).unwrap().unwrap();
        assert_eq!(read("six==1.16\n").arguments, ["-r", "requirements.txt"]);
        assert_eq!(read("# see pyproject.toml\n").arguments, ["six>=1", "attrs; python_version < \"4\""]);
    }

    #[test]
    fn included_files_count() {
        let read = |base| {
            let files = [
                ("requirements.txt", "-r base.txt\n-c limits.txt\n-c https://example.org/c.txt"),
                ("base.txt", base),
                ("limits.txt", "six<2"),
            ];
            read_with(&files, false)
        };
        assert_ne!(read("six"), read("attrs"));
        assert_eq!(read("--requirement=requirements.txt\nsix").unwrap().unwrap().texts.len(), 3);
        let error = read("six\n--requirement  gone.txt").unwrap_err();
        assert!(error.starts_with("base.txt:2: there is no file") && error.contains("gone.txt"), "{error}");
    }

    #[test]
    fn sources_are_refused_unless_allowed() {
        for source in [
            ".",
            "./lib",
            "lib/",
            "../lib[extra]",
            "-e .",
            "--editable=./lib",
            "git+https://example.org/x.git@main#egg=x",
            "x @ git+ssh://git@example.org/x",
            "x @ https://example.org/x-1.tar.gz ; python_version > '3'",
            "https://example.org/x-1.zip#sha256=00",
            "x-1.tar.gz",
            "--no-binary :all:",
            "--pre --no-binary x",
            "-r https://example.org/requirements.txt",
        ] {
            let list = format!("six\n\n{source}\n");
            let error = read_with(&[("requirements.txt", &list)], false).unwrap_err();
            assert!(error.starts_with("requirements.txt:3: ") && error.contains("install_scripts = true"), "{error}");
            assert!(read_with(&[("requirements.txt", &list)], true).unwrap().is_some(), "{source}");
        }
        let error = read_with(&[("pyproject.toml", "[project]\ndependencies = [\n  \"x @ file:///x\"]")], false);
        assert!(error.unwrap_err().starts_with("pyproject.toml:3: "));
    }

    #[test]
    fn versions_wheels_and_options_are_taken() {
        let list = "six\nsix==1.16 ; python_version < '4' # why\nattrs[tests]>=1,<99 \\\n  --hash=sha256:00\n\
                    x @ https://example.org/x-1-py3-none-any.whl#sha256=00\n./wheels/y-1-py3-none-any.whl\n\
                    --index-url https://example.org/simple\n-f ./wheels\n--extra-index-url=https://example.org/a\n";
        assert!(read_with(&[("requirements.txt", list)], false).unwrap().is_some());
    }

    #[test]
    fn project_faults_name_their_line() {
        for (text, line) in [
            ("[project]\ndependencies = 3", 2),
            ("[project]\ndependencies = [\n3]", 3),
            ("[project", 1),
            ("[project]\n\ndependencies = [\"-r x\"]", 3),
        ] {
            let error = read_with(&[("pyproject.toml", text)], true).unwrap_err();
            assert!(error.starts_with(&format!("pyproject.toml:{line}: ")), "{error}");
        }
    }

    #[test]
    fn continued_lines_are_one() {
        let lines = logical_lines("a \\\n  b\n# c \\\nd # e\nf#g \\");
        let expected = [(1, "a   b"), (4, "d"), (5, "f#g")];
        assert_eq!(lines, expected.map(|(line, text)| (line, text.to_owned())));
    }
}
