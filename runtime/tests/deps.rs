//! Installs real packages with the real tools and the ordinary registries.
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::{
    env, fs,
    path::{Path, PathBuf},
    pin::pin,
    process::Command,
    task::{Context, Poll, Waker},
};

use fnmesh_runtime::{
    App,
    deps::{Dependencies, InstallError, Progress, Tools, install},
};
use tempfile::TempDir;

struct Setup {
    root: TempDir,
    tools: Tools,
}

impl Setup {
    fn new(files: &[(&str, &str)]) -> Self {
        let root = tempfile::tempdir().unwrap();
        let tools = Tools {
            cache_dir: root.path().join("cache"),
            path: env::var_os("PATH"),
            env: env::vars_os().collect(),
            ..Tools::default()
        };
        let setup = Self { root, tools };
        for (name, text) in files {
            setup.write(name, text);
        }
        setup
    }

    fn directory(&self) -> PathBuf {
        self.root.path().canonicalize().unwrap().join("app")
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.directory().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    async fn install(&self) -> (Result<Dependencies, InstallError>, Vec<Progress>) {
        let app = App::read(&self.directory(), Some("shop")).unwrap();
        let mut seen = Vec::new();
        let result = install(&app, &self.tools, &mut |progress| seen.push(progress)).await;
        (result, seen)
    }

    /// Names in a directory of the cache.
    fn cached(&self, kind: &str) -> Vec<String> {
        let names = fs::read_dir(self.tools.cache_dir.join(kind)).into_iter().flatten();
        names.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }
}

fn run(program: &Path, directory: &Path, arguments: &[&str]) -> String {
    let output = Command::new(program).current_dir(directory).args(arguments).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

fn started(progress: &[Progress]) -> Vec<&str> {
    fn what(progress: &Progress) -> Option<&str> {
        if let Progress::Started { what } = progress { Some(what) } else { None }
    }
    progress.iter().filter_map(what).collect()
}

#[tokio::test]
async fn python_packages_are_installed_once() {
    // `queue` would stand in for pip's own import if the app's directory were on its path.
    let setup = Setup::new(&[("a.py", ""), ("queue.py", "raise SystemExit"), ("requirements.txt", "six==1.16.0\n")]);
    let (first, progress) = setup.install().await;
    let python = first.unwrap().python.unwrap();
    assert_eq!(started(&progress), ["Python packages of shop (requirements.txt)"]);
    assert!(progress.iter().any(|line| matches!(line, Progress::Line { text } if text.contains("six"))));
    assert!(matches!(progress.last(), Some(Progress::Finished { .. })));
    assert_eq!(run(&python, setup.root.path(), &["-c", "import six; print(six.__version__)"]), "1.16.0");

    let (second, progress) = setup.install().await;
    assert_eq!((second.unwrap().python.unwrap(), progress), (python.clone(), vec![]));

    setup.write("requirements.txt", "# nothing any more\n");
    let (plain, progress) = setup.install().await;
    assert_ne!(plain.unwrap().python.unwrap(), python);
    assert_eq!(progress, []);
}

#[tokio::test]
async fn project_dependencies_are_installed_without_the_project() {
    let project = "[project]\nname = 'shop'\nversion = '1'\ndependencies = ['six']\n\
                   [build-system]\nrequires = []\nbuild-backend = 'nobody'\n";
    let setup = Setup::new(&[("a.py", ""), ("pyproject.toml", project)]);
    let python = setup.install().await.0.unwrap().python.unwrap();
    assert_eq!(run(&python, setup.root.path(), &["-c", "import six; print(six.__name__)"]), "six");
}

#[tokio::test]
async fn two_installations_at_once_make_one() {
    let setup = Setup::new(&[("a.py", ""), ("requirements.txt", "six\n")]);
    let ((first, one), (second, other)) = tokio::join!(setup.install(), setup.install());
    assert_eq!(first.unwrap(), second.unwrap());
    assert_eq!(started(&one).len() + started(&other).len(), 1);
    assert_eq!(setup.cached("venvs").len(), 1);
}

#[tokio::test]
async fn failed_installation_leaves_nothing() {
    let setup = Setup::new(&[("a.py", ""), ("b.js", ""), ("requirements.txt", "six==0.0.0.nothing\n")]);
    let error = setup.install().await.0.unwrap_err();
    let InstallError::Tool { what, output, hint: Some(hint), .. } = &error else { panic!("{error}") };
    assert_eq!(what, "Python packages of shop (requirements.txt)");
    assert!(output.contains("six"), "{output}");
    assert!(hint.contains("install_scripts = true"), "{hint}");
    assert_eq!(setup.cached("venvs"), [""; 0]);

    fs::remove_file(setup.directory().join("requirements.txt")).unwrap();
    setup.write("package.json", r#"{"dependencies": {"is-number": "0.0.0-nothing"}}"#);
    let error = setup.install().await.0.unwrap_err();
    assert!(matches!(&error, InstallError::Tool { output, .. } if output.contains("is-number")), "{error}");
    assert_eq!(setup.cached("node_modules"), [""; 0]);
    assert!(fs::symlink_metadata(setup.directory().join("node_modules")).is_err());
}

#[tokio::test]
async fn own_environments_are_used_as_they_are() {
    let setup = Setup::new(&[
        ("a.py", ""),
        ("b.js", ""),
        ("requirements.txt", "no-such-package-at-all\n"),
        ("package.json", r#"{"dependencies": {"no-such-package-at-all": "1"}}"#),
        ("node_modules/x/index.js", ""),
    ]);
    let python = Path::new("python3");
    run(python, &setup.directory(), &["-m", "venv", "--without-pip", ".venv"]);
    let (dependencies, progress) = setup.install().await;
    assert_eq!(dependencies.unwrap().python.unwrap(), setup.directory().join(".venv/bin/python"));
    assert_eq!(progress, []);
    assert_eq!(setup.cached("venvs"), [""; 0]);

    fs::remove_file(setup.directory().join(".venv/bin/python")).unwrap();
    std::os::unix::fs::symlink("/no/python", setup.directory().join(".venv/bin/python")).unwrap();
    let error = setup.install().await.0.unwrap_err().to_string();
    assert!(error.ends_with("leads nowhere; make the virtual environment again or remove .venv"), "{error}");
}

#[tokio::test]
async fn node_packages_are_installed_once_and_linked() {
    let setup =
        Setup::new(&[("a.js", ""), ("package.json", r#"{"dependencies": {"is-number": "7.0.0"}, "scripts": 1}"#)]);
    let (first, progress) = setup.install().await;
    let node = first.unwrap().node.unwrap();
    assert_eq!(started(&progress), ["Node packages of shop (package.json)"]);
    let check = "console.log(require('is-number')(5), require('is-number/package.json').version)";
    assert_eq!(run(&node, &setup.directory(), &["-e", check]), "true 7.0.0");
    let (_, progress) = setup.install().await;
    assert_eq!(progress, []);

    // With a lock file the versions are its own: another set of packages, and the link follows.
    let lock = r#"{"lockfileVersion": 3, "packages": {
        "": {"dependencies": {"is-number": "*"}},
        "node_modules/is-number": {"version": "6.0.0"}
    }}"#;
    setup.write("package.json", r#"{"dependencies": {"is-number": "*"}}"#);
    setup.write("package-lock.json", lock);
    let (locked, progress) = setup.install().await;
    locked.unwrap();
    assert_eq!(started(&progress).len(), 1);
    assert_eq!(run(&node, &setup.directory(), &["-e", check]), "true 6.0.0");
    assert_eq!(setup.cached("node_modules").len(), 2);

    // A cache that was cleared is filled again.
    fs::remove_dir_all(&setup.tools.cache_dir).unwrap();
    setup.install().await.0.unwrap();
    assert_eq!(run(&node, &setup.directory(), &["-e", check]), "true 6.0.0");
}

#[tokio::test]
async fn install_scripts_run_only_when_allowed() {
    let setup = Setup::new(&[("a.js", "")]);
    let package = setup.root.path().join("scripted");
    fs::create_dir(&package).unwrap();
    let manifest = r#"{"name": "scripted", "version": "1.0.0", "scripts": {"install": "echo > ran"}}"#;
    fs::write(package.join("package.json"), manifest).unwrap();
    for arguments in [
        &["init", "--quiet"][..],
        &["add", "."],
        &["-c", "user.name=t", "-c", "user.email=t@example.org", "commit", "--quiet", "--message", "t"],
    ] {
        run(Path::new("git"), &package, arguments);
    }
    let wanted = format!(r#"{{"dependencies": {{"scripted": "git+file://{}"}}}}"#, package.display());
    setup.write("package.json", &wanted);

    let ran = setup.directory().join("node_modules/scripted/ran");
    setup.install().await.0.unwrap();
    assert!(ran.with_file_name("package.json").exists() && !ran.exists());
    setup.write("fnmesh.toml", "install_scripts = true");
    setup.install().await.0.unwrap();
    assert!(ran.exists());
}

#[tokio::test]
async fn second_start_without_packages_waits_for_nothing() {
    let setup = Setup::new(&[("a.py", ""), ("b.js", "")]);
    let (first, progress) = setup.install().await;
    assert_eq!(progress, []);
    let second = pin!(setup.install());
    let Poll::Ready((second, progress)) = second.poll(&mut Context::from_waker(Waker::noop())) else {
        panic!("it started a process");
    };
    let second = second.unwrap();
    assert_eq!((first.unwrap(), progress), (second.clone(), vec![]));
    assert!(second.python.unwrap().is_absolute() && second.node.unwrap().is_absolute());
}

#[tokio::test]
async fn only_languages_of_the_app_are_looked_for() {
    let mut setup = Setup::new(&[("a.py", "")]);
    setup.tools.node = Some("/no/node".into());
    assert_eq!(setup.install().await.0.unwrap().node, None);
    setup.write("b.js", "");
    let error = setup.install().await.0.unwrap_err().to_string();
    assert!(error.starts_with("/no/node: not found; Node.js 18 or newer is needed"), "{error}");
}
