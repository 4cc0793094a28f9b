use std::{
    fs,
    os::unix::fs::symlink,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    time::Duration,
};

use tempfile::TempDir;

use super::*;

fn directory(files: &[(&str, &str)]) -> TempDir {
    let root = tempfile::tempdir().unwrap();
    for (path, text) in files {
        let path = root.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    root
}

fn read(files: &[(&str, &str)]) -> Result<App, String> {
    let root = directory(files);
    let canonical = root.path().canonicalize().unwrap();
    let shorten = |error: AppError| error.to_string().replace(canonical.to_str().unwrap(), "APP");
    App::read(root.path(), Some("shop")).map_err(shorten)
}

fn files_of(app: &App) -> Vec<&str> {
    app.modules.iter().map(|module| module.file.as_str()).collect()
}

#[test]
fn version_is_the_start_of_the_hash() {
    let [one, other] = [read(&[("a.py", "x = 1")]).unwrap(), read(&[("a.py", "x = 2")]).unwrap()];
    let hex: String = one.hash.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(one.version, hex[..12]);
    assert_ne!(one.hash, other.hash);
}

#[test]
fn source_files_at_the_top_are_modules() {
    let app = read(&[
        ("text.py", ""),
        ("cart.js", ""),
        ("esm.mjs", ""),
        ("common.cjs", ""),
        ("price.ts", ""),
        ("m.mts", ""),
        ("c.cts", ""),
        ("README.md", ""),
        ("lib/helper.py", ""),
        ("odd.py/x", ""),
    ])
    .unwrap();
    assert_eq!(files_of(&app), ["c.cts", "cart.js", "common.cjs", "esm.mjs", "m.mts", "price.ts", "text.py"]);
    assert_eq!(app.languages(), [Language::Python, Language::Node].into());
    assert_eq!(app.modules[6].name, "text");
    assert_eq!(app.warnings, [""; 0]);
}

#[test]
fn tools_tests_and_private_files_are_no_modules() {
    let app = read(&[
        ("a.py", ""),
        ("setup.py", ""),
        ("conftest.py", ""),
        ("manage.py", ""),
        ("noxfile.py", ""),
        ("test_a.py", ""),
        ("a_test.py", ""),
        ("_private.py", ""),
        (".hidden.py", ""),
        ("_x.js", ""),
        ("a.test.js", ""),
        ("a.spec.ts", ""),
        ("vite.config.ts", ""),
        ("eslint.config.mjs", ""),
        ("types.d.ts", ""),
    ]);
    assert_eq!(files_of(&app.unwrap()), ["a.py"]);
    assert_eq!(files_of(&read(&[("test_a.js", ""), ("my-cart.js", ""), ("a.b.js", "")]).unwrap()).len(), 3);
}

#[test]
fn same_stem_in_two_languages_is_two_modules() {
    let app = read(&[("cart.py", ""), ("cart.js", "")]).unwrap();
    let names: Vec<_> = app.modules.iter().map(|module| (module.name.as_str(), module.language)).collect();
    assert_eq!(names, [("cart", Language::Python), ("cart", Language::Node)]);
}

#[test]
fn source_is_served_before_its_compilation() {
    let app = read(&[("cart.js", ""), ("cart.ts", ""), ("cart.mjs", "")]).unwrap();
    assert_eq!(files_of(&app), ["cart.ts"]);
    assert_eq!(app.warnings.len(), 2);
    assert!(app.warnings.iter().any(|warning| warning.starts_with("\"cart.js\" is left out: ")));
}

#[test]
fn unusable_files_are_left_out_with_a_warning() {
    let root = directory(&[("ok.py", ""), ("my-text.py", ""), ("1st.py", "")]);
    let outside = directory(&[("x.py", "")]);
    symlink(outside.path().join("x.py"), root.path().join("x.py")).unwrap();
    symlink("ok.py", root.path().join("also.py")).unwrap();
    symlink("gone.py", root.path().join("broken.py")).unwrap();
    let app = App::read(root.path(), Some("shop")).unwrap();
    assert_eq!(files_of(&app), ["also.py", "ok.py"]);
    assert_eq!(
        app.warnings,
        [
            "\"1st.py\" cannot be imported by Python: letters, digits and '_' can, not beginning with a digit",
            "\"my-text.py\" cannot be imported by Python: letters, digits and '_' can, not beginning with a digit",
            "\"x.py\" is a link that leads outside the app; put the file itself there",
        ]
    );
}

#[test]
fn nothing_to_serve_says_what_was_looked_for() {
    let endings = "*.py, *.js, *.mjs, *.cjs, *.ts, *.mts and *.cts";
    let expected = format!("APP: no functions found; looked for {endings} at the top level");
    assert_eq!(read(&[("README.md", ""), ("lib/a.py", "")]).unwrap_err(), expected);
    let error = read(&[("my-text.py", "")]).unwrap_err();
    assert!(error.starts_with(&format!("{expected} and left out: \"my-text.py\" cannot be")), "{error}");
}

#[test]
fn modules_of_the_manifest_are_named_by_path() {
    let app = read(&[
        ("fnmesh.toml", "modules = ['pkg/mod.py', 'pkg/__init__.py', 'src/price.js', './pkg/mod.py', '_x.py']"),
        ("pkg/__init__.py", ""),
        ("pkg/mod.py", ""),
        ("src/price.js", ""),
        ("_x.py", ""),
    ])
    .unwrap();
    let names: Vec<_> = app.modules.iter().map(|module| (module.name.as_str(), module.file.as_str())).collect();
    let expected =
        [("pkg.mod", "pkg/mod.py"), ("pkg", "pkg/__init__.py"), ("src.price", "src/price.js"), ("_x", "_x.py")];
    assert_eq!(names, expected);
}

#[test]
fn named_modules_that_clash_are_refused() {
    let error = read(&[("fnmesh.toml", "modules = ['a.js', 'a.ts']"), ("a.js", ""), ("a.ts", "")]).unwrap_err();
    assert_eq!(error, "APP/fnmesh.toml: a.js and a.ts are both the module \"a\"; serve one of them");
}

#[test]
fn settings_reach_their_module() {
    let app = read(&[
        ("fnmesh.toml", "[functions.add]\ntimeout = '1s'\n[functions.'cart.add']\ntimeout = '2s'"),
        ("cart.py", ""),
        ("other.py", ""),
    ])
    .unwrap();
    let timeouts: Vec<_> = app.modules.iter().map(|module| module.settings["add"].timeout.unwrap()).collect();
    assert_eq!(timeouts, [Duration::from_secs(2), Duration::from_secs(1)]);
}

#[test]
fn settings_of_an_unknown_module_are_refused() {
    let error = read(&[("fnmesh.toml", "[functions.'crt.add']"), ("cart.py", "")]).unwrap_err();
    assert_eq!(error, "APP/fnmesh.toml: functions.\"crt.add\": there is no module \"crt\"; did you mean \"cart\"?");
}

#[test]
fn manifest_variables_win_over_dotenv() {
    let app = read(&[
        ("a.py", ""),
        (".env", "B=2\nA='from dotenv'\nC=3\n"),
        ("fnmesh.toml", "[env]\nA = 'from manifest'\nD = '4'"),
    ])
    .unwrap();
    let expected = [("A", "from manifest"), ("B", "2"), ("C", "3"), ("D", "4")];
    assert_eq!(app.env, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
    assert!(std::env::var_os("D").is_none());
}

#[test]
fn dotenv_fault_names_file_and_line() {
    let error = read(&[("a.py", ""), (".env", "A=1\noops\n")]).unwrap_err();
    assert_eq!(error, "APP/.env:2: expected NAME=value");
}

#[test]
fn directory_called_dotenv_is_passed_over() {
    let app = read(&[("a.py", ""), (".env/pyvenv.cfg", ""), (".env/lib/x.py", "")]).unwrap();
    assert_eq!(app.env, []);
}

#[test]
fn name_is_the_given_one_then_the_manifest_s_then_the_directory_s() {
    let root = directory(&[("My Shop/a.py", ""), ("other/a.py", ""), ("other/fnmesh.toml", "name = 'named'")]);
    symlink("My Shop", root.path().join("current")).unwrap();
    let name = |of: &str, given| App::read(&root.path().join(of), given).map(|app| app.name);
    assert_eq!(name("other", Some("given")).unwrap(), "given");
    assert_eq!(name("other", None).unwrap(), "named");
    assert_eq!(name("My Shop", None).unwrap(), "my-shop");
    assert_eq!(name("current", None).unwrap(), "current");
    let error = name("other", Some("Bad Name")).unwrap_err().to_string();
    let expected = "\"Bad Name\" cannot be the name of an app: it must begin with a lowercase letter or digit; \
                    \"bad-name\" would do: set name in fnmesh.toml or rename";
    assert_eq!(error, expected);
}

#[test]
fn missing_directory_names_its_nearest_sibling() {
    let root = directory(&[("shop/a.py", ""), ("shopping.txt", "")]);
    let error = |name: &str| App::read(&root.path().join(name), None).unwrap_err().to_string();
    assert!(error("shpo").ends_with("shpo: no such directory; did you mean \"shop\"?"), "{}", error("shpo"));
    assert!(error("qqqq").ends_with("qqqq: no such directory"), "{}", error("qqqq"));
    let file = error("shop/a.py");
    assert!(file.ends_with("shop/a.py: is a file; give the directory that contains it"), "{file}");
}

#[test]
fn directory_is_canonical_and_version_follows_content() {
    let root = directory(&[("shop/a.py", "x = 1")]);
    symlink("shop", root.path().join("link")).unwrap();
    let app = App::read(&root.path().join("link"), None).unwrap();
    assert_eq!(app.directory, root.path().canonicalize().unwrap().join("shop"));
    assert_eq!(app.version, App::read(&root.path().join("shop"), None).unwrap().version);
    fs::write(root.path().join("shop/a.py"), "x = 2").unwrap();
    assert_ne!(app.version, App::read(&root.path().join("shop"), None).unwrap().version);
}

#[test]
fn typescript_files_include_what_modules_may_import() {
    let root = directory(&[
        ("a.ts", ""),
        ("lib/b.mts", ""),
        ("lib/deep/c.cts", ""),
        ("lib/types.d.ts", ""),
        ("node_modules/x/d.ts", ""),
        ("e.js", ""),
    ]);
    let app = App::read(root.path(), Some("shop")).unwrap();
    let expected = ["a.ts", "lib/b.mts", "lib/deep/c.cts"].map(|file| app.directory.join(file));
    assert_eq!(app.sources.keys().cloned().collect::<Vec<_>>(), expected);
}

#[test]
fn reading_survives_files_that_come_and_go() {
    let root = directory(&[("a.py", ""), ("lib/x.py", "")]);
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let [module, within, other] = ["b.py", "lib", "other"].map(|name| root.path().join(name));
            while !stop.load(Relaxed) {
                fs::write(&module, "x").unwrap();
                fs::rename(&within, &other).unwrap();
                fs::remove_file(&module).unwrap();
                fs::write(&within, "a file").unwrap();
                fs::remove_file(&within).unwrap();
                fs::rename(&other, &within).unwrap();
            }
        });
        let failed = (0..500).find_map(|_| App::read(root.path(), Some("shop")).err());
        stop.store(true, Relaxed);
        assert!(failed.is_none(), "{failed:?}");
    });
}
