//! Which executable an interpreter's name stands for, and its version.
//!
//! Version managers put slow shell scripts on the path; what they lead to is asked once and remembered.

use std::{
    ffi::{OsStr, OsString},
    fs, io,
    os::unix::{
        ffi::{OsStrExt, OsStringExt},
        fs::{MetadataExt, PermissionsExt},
    },
    path::{Path, PathBuf},
    time::Duration,
};

use serde::{Deserialize, Serialize};
use tokio::time::timeout;

use super::{
    InstallError, Tools,
    command::{command, output},
    is_for_tools, store,
};

/// An interpreter that can be started.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Interpreter {
    /// The executable itself.
    pub executable: PathBuf,
    /// Its version, such as `3.11.7`.
    pub version: String,
}

/// What `python`, a path or a name on the tools' path, stands for in `directory`.
///
/// # Errors
/// When it is missing, does not run, or is older than Python 3.9.
pub async fn resolve_python(python: &Path, directory: &Path, tools: &Tools) -> Result<Interpreter, InstallError> {
    PYTHON.resolve(python, directory, tools).await
}

/// What `node`, a path or a name on the tools' path, stands for in `directory`.
///
/// # Errors
/// When it is missing, does not run, or is older than Node.js 18.
pub async fn resolve_node(node: &Path, directory: &Path, tools: &Tools) -> Result<Interpreter, InstallError> {
    NODE.resolve(node, directory, tools).await
}

/// The executable file `program` on the search path.
pub(super) fn find(program: &OsStr, path: Option<&OsStr>) -> Option<PathBuf> {
    let is_executable =
        |file: &PathBuf| fs::metadata(file).is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0);
    std::env::split_paths(path?)
        .filter(|directory| directory.is_absolute())
        .map(|directory| directory.join(program))
        .find(is_executable)
}

struct Kind {
    name: &'static str,
    /// Makes it print its executable and its version, a line each.
    probe: &'static [&'static str],
    oldest: (u32, u32),
    install: &'static str,
}

// `-S -E` start it faster, and unlike `-I` also a version too old to be used, which then says so.
const PYTHON: Kind = Kind {
    name: "Python",
    probe: &["-S", "-E", "-c", "import sys; print(sys.executable); print('%d.%d.%d' % sys.version_info[:3])"],
    oldest: (3, 9),
    install: "apt install python3 python3-venv",
};

const NODE: Kind = Kind {
    name: "Node.js",
    probe: &["-e", "console.log(process.execPath); console.log(process.versions.node)"],
    oldest: (18, 0),
    install: "apt install nodejs npm",
};

const PROBE_TIMEOUT: Duration = Duration::from_secs(20);

/// Files by which version managers choose a version for a directory.
const PINS: [&str; 6] = [".python-version", ".node-version", ".nvmrc", ".tool-versions", "mise.toml", "package.json"];

#[derive(Serialize, Deserialize)]
struct Remembered {
    #[serde(flatten)]
    interpreter: Interpreter,
    stamp: Stamp,
}

/// Changes when the file does: device, inode, size, modification time.
type Stamp = (u64, u64, u64, i64, i64);

impl Kind {
    async fn resolve(&self, program: &Path, directory: &Path, tools: &Tools) -> Result<Interpreter, InstallError> {
        let found = self.locate(program, tools)?;
        let file = tools.cache_dir.join("interpreters").join(key(&found, directory, tools));
        if let Some(interpreter) = recall(&file) {
            return Ok(interpreter);
        }
        let interpreter = self.ask(&found, directory, tools).await?;
        // Only a short cut: without it the next start asks again.
        let _ = remember(&file, &interpreter);
        Ok(interpreter)
    }

    fn locate(&self, program: &Path, tools: &Tools) -> Result<PathBuf, InstallError> {
        let is_name = program.components().count() == 1 && !program.is_absolute();
        let found = if is_name {
            find(program.as_os_str(), tools.path.as_deref())
        } else {
            std::path::absolute(program).ok().filter(|path| path.exists())
        };
        found.ok_or_else(|| {
            let place = if is_name { "not found on the PATH" } else { "not found" };
            self.refuse(program, &format!("{place}; {}", self.advice()))
        })
    }

    async fn ask(&self, program: &Path, directory: &Path, tools: &Tools) -> Result<Interpreter, InstallError> {
        let output = match timeout(PROBE_TIMEOUT, output(command(program, directory, tools).args(self.probe))).await {
            Ok(Ok(output)) => output,
            Ok(Err(error)) => return Err(self.refuse(program, &format!("cannot run: {error}; {}", self.advice()))),
            Err(_) => return Err(self.refuse(program, &format!("did not answer within {PROBE_TIMEOUT:?}"))),
        };
        let mut lines = output.stdout.split(|&byte| byte == b'\n');
        let executable = lines.next().filter(|line| line.starts_with(b"/"));
        let version = lines.next().and_then(|line| std::str::from_utf8(line).ok());
        let (true, Some(executable), Some(version)) = (output.status.success(), executable, version) else {
            let said = String::from_utf8_lossy(&output.stderr);
            let said = said.lines().rfind(|line| !line.trim().is_empty()).unwrap_or("it said nothing");
            let reason = format!("does not work as {} ({}): {said}; {}", self.name, output.status, self.advice());
            return Err(self.refuse(program, &reason));
        };
        if parse_version(version).is_none_or(|version| version < self.oldest) {
            let reason = format!("is {} {version}, which is too old; {}", self.name, self.advice());
            return Err(self.refuse(program, &reason));
        }
        let executable = PathBuf::from(OsString::from_vec(executable.to_vec()));
        Ok(Interpreter { executable, version: version.to_owned() })
    }

    fn refuse(&self, program: &Path, reason: &str) -> InstallError {
        InstallError::Interpreter { program: program.display().to_string(), reason: reason.to_owned() }
    }

    fn advice(&self) -> String {
        let (major, minor) = self.oldest;
        let minor = if minor == 0 { String::new() } else { format!(".{minor}") };
        let Self { name, install, .. } = self;
        format!("{name} {major}{minor} or newer is needed: install it ({install}) or name another in the configuration")
    }
}

fn parse_version(version: &str) -> Option<(u32, u32)> {
    let mut parts = version.split('.');
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

/// Everything that decides what `program` stands for.
fn key(program: &Path, directory: &Path, tools: &Tools) -> String {
    let pins = directory.ancestors().flat_map(|within| PINS.map(|pin| within.join(pin)));
    // pyenv's choice for everything lies beside its directory of scripts.
    let global = program.parent().and_then(Path::parent).map(|root| root.join("version"));
    let files = pins.chain(global).chain([program.to_owned()]);
    let stamps = format!("{:?}", files.map(|file| stamp(&file)).collect::<Vec<_>>());

    let mut parts = vec![program.as_os_str().as_bytes(), directory.as_os_str().as_bytes(), stamps.as_bytes()];
    parts.push(tools.path.as_deref().unwrap_or_default().as_bytes());
    let env = tools.env.iter().filter(|(name, _)| is_for_tools(name));
    parts.extend(env.flat_map(|(name, value)| [name.as_bytes(), value.as_bytes()]));
    store::hash(parts)
}

fn stamp(file: &Path) -> Option<Stamp> {
    let metadata = fs::metadata(file).ok()?;
    Some((metadata.dev(), metadata.ino(), metadata.size(), metadata.mtime(), metadata.mtime_nsec()))
}

fn recall(file: &Path) -> Option<Interpreter> {
    let remembered: Remembered = serde_json::from_slice(&fs::read(file).ok()?).ok()?;
    (stamp(&remembered.interpreter.executable) == Some(remembered.stamp)).then_some(remembered.interpreter)
}

fn remember(file: &Path, interpreter: &Interpreter) -> io::Result<()> {
    let stamp = stamp(&interpreter.executable).ok_or(io::ErrorKind::NotFound)?;
    let text = serde_json::to_vec(&Remembered { interpreter: interpreter.clone(), stamp })?;
    if let Some(parent) = file.parent() {
        fs::create_dir_all(parent)?;
    }
    // Renamed, so that nobody reads half of it.
    let partial = file.with_extension(std::process::id().to_string());
    fs::write(&partial, text)?;
    fs::rename(&partial, file)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A directory with an executable `python3` that runs `script`, and tools that find only that.
    fn fake(script: &str) -> (tempfile::TempDir, Tools) {
        let root = tempfile::tempdir().unwrap();
        let bin = root.path().join("bin");
        fs::create_dir(&bin).unwrap();
        write_script(&bin.join("python3"), script);
        let tools =
            Tools { cache_dir: root.path().join("cache"), path: Some(bin.into_os_string()), ..Tools::default() };
        (root, tools)
    }

    fn write_script(file: &Path, script: &str) {
        // By another process: a file that this one has open for writing, and any fork of it, cannot be run.
        let status = std::process::Command::new("/bin/sh")
            .args(["-c", r#"rm -f "$0"; printf '#!/bin/sh\n%s\n' "$1" > "$0"; chmod +x "$0""#])
            .args([file.as_os_str(), OsStr::new(script)])
            .status();
        assert!(status.unwrap().success());
    }

    async fn python(root: &Path, tools: &Tools) -> Result<Interpreter, InstallError> {
        resolve_python(Path::new("python3"), root, tools).await
    }

    #[tokio::test]
    async fn script_leads_to_the_real_executable() {
        let (root, tools) = fake("echo /bin/sh; echo 3.12.1");
        let interpreter = python(root.path(), &tools).await.unwrap();
        assert_eq!(interpreter, Interpreter { executable: "/bin/sh".into(), version: "3.12.1".into() });
    }

    #[tokio::test]
    async fn answer_is_remembered_until_something_changes() {
        let (root, tools) = fake("echo x >> asked; echo /bin/sh; echo 3.12.1");
        let asked = || fs::read_to_string(root.path().join("asked")).unwrap().len() / 2;
        for _ in 0..3 {
            python(root.path(), &tools).await.unwrap();
        }
        assert_eq!(asked(), 1);
        fs::write(root.path().join(".python-version"), "3.12").unwrap();
        python(root.path(), &tools).await.unwrap();
        assert_eq!(asked(), 2);
        let other = Tools { env: vec![("PYENV_VERSION".into(), "3.13".into())], ..tools.clone() };
        python(root.path(), &other).await.unwrap();
        assert_eq!(asked(), 3);
        write_script(&root.path().join("bin/python3"), "echo /bin/sh; echo 3.13.0");
        assert_eq!(python(root.path(), &tools).await.unwrap().version, "3.13.0");
    }

    #[tokio::test]
    async fn executable_that_changed_is_asked_again() {
        let (root, tools) = fake("echo $PWD/real; read -r version < real; echo $version");
        fs::write(root.path().join("real"), "3.12.1").unwrap();
        assert_eq!(python(root.path(), &tools).await.unwrap().version, "3.12.1");
        fs::write(root.path().join("real"), "3.12.10").unwrap();
        assert_eq!(python(root.path(), &tools).await.unwrap().version, "3.12.10");
        fs::remove_file(root.path().join("real")).unwrap();
        python(root.path(), &tools).await.unwrap_err();
    }

    #[tokio::test]
    async fn damaged_memory_is_asked_again() {
        let (root, tools) = fake("echo /bin/sh; echo 3.12.1");
        python(root.path(), &tools).await.unwrap();
        for entry in fs::read_dir(tools.cache_dir.join("interpreters")).unwrap() {
            fs::write(entry.unwrap().path(), "{").unwrap();
        }
        assert_eq!(python(root.path(), &tools).await.unwrap().version, "3.12.1");
    }

    #[tokio::test]
    async fn unusable_interpreter_says_why_and_what_to_do() {
        let needed = "Python 3.9 or newer is needed: install it (apt install python3 python3-venv) \
                      or name another in the configuration";
        for (script, reason) in [
            ("echo /bin/sh; echo 3.8.20", "is Python 3.8.20, which is too old".to_owned()),
            ("echo /bin/sh; echo 2.7.18", "is Python 2.7.18, which is too old".to_owned()),
            (
                "echo no such version >&2; exit 127",
                "does not work as Python (exit status: 127): no such version".into(),
            ),
            ("exit 0", "does not work as Python (exit status: 0): it said nothing".into()),
        ] {
            let (root, tools) = fake(script);
            let error = python(root.path(), &tools).await.unwrap_err().to_string();
            assert_eq!(error, format!("{}/bin/python3: {reason}; {needed}", root.path().display()));
        }
        let (root, tools) = fake("");
        let error = resolve_node(Path::new("node"), root.path(), &tools).await.unwrap_err().to_string();
        assert!(error.starts_with("node: not found on the PATH; Node.js 18 or newer is needed"), "{error}");
        let error = resolve_python(Path::new("/no/python"), root.path(), &tools).await.unwrap_err().to_string();
        assert!(error.starts_with("/no/python: not found; Python 3.9"), "{error}");
    }

    #[test]
    fn file_that_is_not_executable_is_passed_over() {
        let root = tempfile::tempdir().unwrap();
        let [first, second] = ["a", "b"].map(|name| root.path().join(name));
        for directory in [&first, &second] {
            fs::create_dir(directory).unwrap();
        }
        fs::write(first.join("tool"), "").unwrap();
        write_script(&second.join("tool"), "");
        let path = std::env::join_paths([Path::new("."), &first, &second]).unwrap();
        assert_eq!(find(OsStr::new("tool"), Some(&path)), Some(second.join("tool")));
        assert_eq!(find(OsStr::new("tool"), None), None);
    }
}
