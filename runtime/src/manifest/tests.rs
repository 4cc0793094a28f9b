use std::fs;

use fnmesh_invoke::Language;
use tempfile::TempDir;

use super::*;

fn app(files: &[(&str, &str)]) -> (TempDir, PathBuf) {
    let root = tempfile::tempdir().unwrap();
    let directory = root.path().canonicalize().unwrap();
    for (path, text) in files {
        let path = directory.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    (root, directory)
}

fn read(files: &[(&str, &str)]) -> Result<Manifest, String> {
    let (_root, directory) = app(files);
    let shorten = |error: FileError| error.to_string().replace(&format!("{}/", directory.display()), "");
    Manifest::read(&directory).map_err(shorten)
}

fn parse(text: &str) -> Result<Manifest, String> {
    Manifest::parse(Path::new(FILE), text).map_err(|error| error.to_string())
}

#[test]
fn absent_manifest_gives_the_defaults() {
    let manifest = read(&[("a.py", "")]).unwrap();
    assert_eq!(manifest, Manifest::default());
    assert_eq!(manifest.timeout, Duration::from_secs(30));
    assert_eq!((manifest.concurrency.get(), manifest.min_instances, manifest.max_instances), (100, 1, None));
    assert_eq!((manifest.keep_alive, manifest.queue), (Duration::from_secs(600), None));
    assert!(manifest.public && manifest.fork && !manifest.install_scripts);
    assert_eq!(read(&[(FILE, "")]).unwrap(), Manifest::default());
}

#[test]
fn every_key_is_read() {
    let manifest = read(&[
        ("cart.py", ""),
        ("lib/price.ts", ""),
        (
            FILE,
            r#"
            name = "shop"
            modules = ["cart.py", "./lib/price.ts"]
            timeout = "1m 30s"
            concurrency = 10000
            memory = "256MiB"
            processes = 64
            tmp = "2GiB"
            readable = ["/srv/models"]
            writable = ["data", "../shared"]
            min_instances = 0
            max_instances = 256
            keep_alive = "24h"
            queue = 100000
            fork = false
            install_scripts = true
            public = false
            [env]
            MODE = "test"
            [python]
            min_instances = 3
            max_instances = 4
            concurrency = 5
            keep_alive = "1s"
            queue = 6
            [node]
            max_instances = 7
            [functions.add]
            timeout = "1ms"
            concurrency = 1
            public = true
            [functions."lib.price.total"]
            callback = true
            http = true
            "#,
        ),
    ])
    .unwrap();
    let add = FunctionSettings {
        timeout: Some(Duration::from_millis(1)),
        concurrency: Some(NonZeroU32::MIN),
        public: Some(true),
        ..FunctionSettings::default()
    };
    let total = FunctionSettings { callback: true, http: true, ..FunctionSettings::default() };
    let expected = Manifest {
        name: Some("shop".into()),
        modules: Some(vec!["cart.py".into(), "lib/price.ts".into()]),
        timeout: Duration::from_secs(90),
        concurrency: NonZeroU32::new(10_000).unwrap(),
        memory: Some(ByteSize::mib(256)),
        processes: NonZeroU32::new(64),
        tmp: ByteSize::gib(2),
        readable: vec!["/srv/models".into()],
        writable: vec!["data".into(), "../shared".into()],
        min_instances: 0,
        max_instances: NonZeroU32::new(256),
        keep_alive: Duration::from_secs(24 * 60 * 60),
        queue: NonZeroU32::new(100_000),
        python: PoolSettings {
            min_instances: Some(3),
            max_instances: NonZeroU32::new(4),
            concurrency: NonZeroU32::new(5),
            keep_alive: Some(Duration::from_secs(1)),
            queue: NonZeroU32::new(6),
        },
        node: PoolSettings { max_instances: NonZeroU32::new(7), ..PoolSettings::default() },
        fork: false,
        install_scripts: true,
        public: false,
        env: [("MODE".into(), "test".into())].into(),
        functions: [("add".into(), add), ("lib.price.total".into(), total)].into(),
    };
    assert_eq!(manifest, expected);
}

#[test]
fn unknown_key_is_named_with_what_was_meant() {
    for (text, expected) in [
        ("name = \"x\"\ntimout = \"1s\"", "fnmesh.toml:2: unknown key \"timout\"; did you mean \"timeout\"?"),
        ("[functions.add]\n\ncalback = true", "fnmesh.toml:3: unknown key \"calback\"; did you mean \"callback\"?"),
        (
            "[functions.cart.zzz]\npublic = true",
            "fnmesh.toml:1: unknown key \"zzz\"; there are timeout, concurrency, public, callback, http \
             (a module's function is written [functions.\"module.function\"])",
        ),
    ] {
        assert_eq!(parse(text).unwrap_err(), expected);
    }
    for text in ["instances = 2", "[python]\ninstances = 2"] {
        let error = parse(text).unwrap_err();
        assert!(error.contains("unknown key \"instances\"; write min_instances and max_instances"), "{error}");
    }
    let error = parse("qqq = 1").unwrap_err();
    assert!(error.starts_with("fnmesh.toml:1: unknown key \"qqq\"; there are name, modules, timeout,"), "{error}");
}

#[test]
fn value_out_of_range_is_refused_with_the_range() {
    let timeout = "expected a duration of 1ms to 24h, such as \"30s\"";
    let keep_alive = "expected a duration of 1s to 24h, such as \"10m\"";
    let memory = "expected a size of 16MiB or more, such as \"256MiB\"";
    for (text, expected) in [
        ("timeout = \"0s\"", format!("invalid value: string \"0s\", {timeout}")),
        ("timeout = \"25h\"", format!("invalid value: string \"25h\", {timeout}")),
        ("timeout = \"soon\"", format!("invalid value: string \"soon\", {timeout}")),
        ("timeout = 30", format!("invalid type: integer `30`, {timeout}")),
        ("concurrency = 0", "invalid value: integer `0`, expected a whole number of 1 to 10000".into()),
        ("concurrency = 10001", "invalid value: integer `10001`, expected a whole number of 1 to 10000".into()),
        ("concurrency = -1", "invalid value: integer `-1`, expected a whole number of 1 to 10000".into()),
        ("concurrency = \"5\"", "invalid type: string \"5\", expected a whole number of 1 to 10000".into()),
        ("max_instances = 257", "invalid value: integer `257`, expected a whole number of 1 to 256".into()),
        ("max_instances = 0", "invalid value: integer `0`, expected a whole number of 1 to 256".into()),
        ("min_instances = 257", "invalid value: integer `257`, expected a whole number of 0 to 256".into()),
        ("keep_alive = \"999ms\"", format!("invalid value: string \"999ms\", {keep_alive}")),
        ("queue = 0", "invalid value: integer `0`, expected a whole number of 1 to 100000".into()),
        ("memory = \"15MiB\"", format!("invalid value: string \"15MiB\", {memory}")),
        ("memory = \"much\"", format!("invalid value: string \"much\", {memory}")),
        ("processes = 15", "invalid value: integer `15`, expected a whole number of 16 to 100000".into()),
        ("public = \"yes\"", "invalid type: string \"yes\", expected a boolean".into()),
    ] {
        assert_eq!(parse(&format!("# 1\n{text}")).unwrap_err(), format!("fnmesh.toml:2: {expected}"));
        if !text.starts_with(['m', 'k', 'q']) && !text.starts_with("processes") {
            assert_eq!(parse(&format!("[functions.f]\n{text}")).unwrap_err(), format!("fnmesh.toml:2: {expected}"));
        }
    }
    assert!(parse("timeout = \"24h\"\nmemory = \"16MiB\"").is_ok());
}

#[test]
fn syntax_error_names_its_line() {
    let error = parse("name = \"x\"\n\n[env\n").unwrap_err();
    assert!(error.starts_with("fnmesh.toml:3: "), "{error}");
    let error = parse("name = \"a\"\nname = \"b\"").unwrap_err();
    assert!(error.starts_with("fnmesh.toml:2: duplicate key"), "{error}");
}

#[test]
fn impossible_variables_are_refused() {
    for text in ["[env]\n\"A=B\" = \"x\"", "[env]\n\"\" = \"x\"", "[env]\nA = \"x\\u0000\"", "[env]\nA = 1"] {
        assert!(parse(text).unwrap_err().starts_with("fnmesh.toml:"), "{text}");
    }
}

#[test]
fn unreadable_manifest_says_why() {
    let (_root, directory) = app(&[("fnmesh.toml/x", "")]);
    let error = Manifest::read(&directory).unwrap_err().to_string();
    assert!(error.contains("fnmesh.toml: cannot be read: "), "{error}");
    fs::remove_dir_all(directory.join(FILE)).unwrap();
    fs::write(directory.join(FILE), b"# 1\n# \xff").unwrap();
    assert!(Manifest::read(&directory).unwrap_err().to_string().ends_with("fnmesh.toml:2: not UTF-8 text"));
    fs::write(directory.join(FILE), " ".repeat((1 << 20) + 1)).unwrap();
    let error = Manifest::read(&directory).unwrap_err().to_string();
    assert!(error.ends_with("larger than the limit of 1048576 bytes"), "{error}");
}

#[test]
fn module_that_cannot_be_served_is_refused() {
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("x.py"), "").unwrap();
    for (module, expected) in [
        ("crt.py", "there is no file \"crt.py\"; did you mean \"cart.py\"?"),
        ("lib/prise.js", "there is no file \"lib/prise.js\"; did you mean \"lib/price.js\"?"),
        ("../cart.py", "\"../cart.py\" leads outside the app; give a path relative to the app's directory"),
        ("/cart.py", "\"/cart.py\" leads outside the app; give a path relative to the app's directory"),
        ("link.py", "\"link.py\" is a link that leads outside the app; put the file itself there"),
        ("out/x.py", "\"out/x.py\" is a link that leads outside the app; put the file itself there"),
        ("lib", "\"lib\" is not a file; name the files to serve"),
        ("", "\"\" is not a file; name the files to serve"),
        ("notes.txt", "\"notes.txt\" has none of the endings *.py, *.js, *.mjs, *.cjs, *.ts, *.mts and *.cts"),
        (
            "my-cart.py",
            "\"my-cart.py\" cannot be imported by Python: letters, digits and '_' can, not beginning with a digit",
        ),
    ] {
        let (_root, directory) = app(&[
            ("cart.py", ""),
            ("my-cart.py", ""),
            ("lib/price.js", ""),
            ("notes.txt", ""),
            (FILE, &format!("modules = [{module:?}]")),
        ]);
        std::os::unix::fs::symlink(outside.path().join("x.py"), directory.join("link.py")).unwrap();
        std::os::unix::fs::symlink(outside.path(), directory.join("out")).unwrap();
        let error = Manifest::read(&directory).unwrap_err();
        assert_eq!(error.message, expected);
        assert_eq!(error.file, directory.join(FILE));
    }
    assert!(read(&[(FILE, "modules = []")]).unwrap_err().contains("modules is empty; name at least one file"));
}

#[test]
fn longer_key_counts_alone() {
    let manifest = parse(
        "[functions.add]\ntimeout = \"1s\"\ncallback = true\n[functions.\"cart.add\"]\npublic = false\n\
         [functions.\"a.b.add\"]\nhttp = true",
    )
    .unwrap();
    let cart = &manifest.settings("cart")["add"];
    assert_eq!((cart.timeout, cart.callback, cart.public), (None, false, Some(false)));
    let other = &manifest.settings("other")["add"];
    assert_eq!((other.timeout, other.callback, other.public), (Some(Duration::from_secs(1)), true, None));
    assert!(manifest.settings("a.b")["add"].http);
}

#[test]
fn settings_without_a_function_are_listed() {
    let manifest = parse("[functions]\nadd = {}\nsub = {}\n\"cart.add\" = {}\n\"cart.mul\" = {}").unwrap();
    assert_eq!(manifest.unmatched([("cart", "add"), ("other", "mul")]), ["cart.mul", "sub"]);
    assert_eq!(manifest.unmatched([]).len(), 4);
}

#[test]
fn metacall_files_name_the_modules() {
    let manifest = read(&[
        ("metacall.json", r#"{"language_id": "py", "path": ".", "scripts": ["a.py"]}"#),
        ("metacall-node.json", r#"{"language_id": "node", "path": "src", "scripts": ["b.js", "c.mjs"], "other": 1}"#),
        ("metacall-ts.json", r#"{"language_id": "ts", "scripts": ["d.ts"]}"#),
        ("metacall_old.json", "{"),
        ("a.py", ""),
        ("src/b.js", ""),
        ("src/c.mjs", ""),
        ("d.ts", ""),
        ("unnamed.py", ""),
    ]);
    assert_eq!(manifest.unwrap().modules.unwrap(), ["src/b.js", "src/c.mjs", "d.ts", "a.py"]);
}

#[test]
fn modules_of_the_manifest_win_over_metacall() {
    let files = |manifest| {
        [
            (FILE, manifest),
            ("metacall.json", r#"{"language_id": "py", "scripts": ["a.py"]}"#),
            ("a.py", ""),
            ("b.py", ""),
        ]
    };
    assert_eq!(read(&files("modules = [\"b.py\"]")).unwrap().modules.unwrap(), ["b.py"]);
    let manifest = read(&files("timeout = \"1s\"")).unwrap();
    assert_eq!((manifest.modules.unwrap(), manifest.timeout), (vec!["a.py".into()], Duration::from_secs(1)));
}

#[test]
fn metacall_faults_are_named() {
    for (text, expected) in [
        ("{\n\"language_id\": \"py\",\n}", "metacall.json:3: trailing comma at line 3 column 1"),
        ("{\"language_id\": \"py\"}", "metacall.json:1: missing field `scripts` at line 1 column 21"),
        (
            r#"{"language_id": "nod", "scripts": ["a.js"]}"#,
            "metacall.json: language_id \"nod\" is not supported; there are py, node, ts; did you mean \"node\"?",
        ),
        (
            r#"{"language_id": "rb", "scripts": ["a.rb"]}"#,
            "metacall.json: language_id \"rb\" is not supported; there are py, node, ts",
        ),
        (r#"{"language_id": "py", "scripts": []}"#, "metacall.json: scripts is empty; name at least one file"),
        (
            r#"{"language_id": "node", "scripts": ["a.py"]}"#,
            "metacall.json: \"a.py\" is no script of language_id \"node\"",
        ),
        (
            r#"{"language_id": "py", "path": "..", "scripts": ["a.py"]}"#,
            "metacall.json: \"../a.py\" leads outside the app; give a path relative to the app's directory",
        ),
        (
            r#"{"language_id": "py", "path": "src", "scripts": ["/a.py"]}"#,
            "metacall.json: \"/a.py\" leads outside the app; give a path relative to the app's directory",
        ),
        (
            r#"{"language_id": "py", "scripts": ["b.py"]}"#,
            "metacall.json: there is no file \"b.py\"; did you mean \"a.py\"?",
        ),
    ] {
        assert_eq!(read(&[("metacall.json", text), ("a.py", "")]).unwrap_err(), expected);
    }
}

#[test]
fn language_wins_over_the_app() {
    let manifest =
        parse("min_instances = 2\nmax_instances = 9\nqueue = 10\n[node]\nmin_instances = 0\nqueue = 3").unwrap();
    let (python, node) = (manifest.bounds(Language::Python), manifest.bounds(Language::Node));
    assert_eq!((python.min, python.max, python.queue, python.quick_queue), (2, 9, 10, 10));
    assert_eq!((node.min, node.max, node.queue, node.quick_queue), (0, 9, 3, 3));
}

#[test]
fn maximum_follows_a_larger_minimum() {
    let bounds = parse("min_instances = 256").unwrap().bounds(Language::Node);
    assert_eq!((bounds.min, bounds.max), (256, 256));
    let bounds = Manifest::default().bounds(Language::Python);
    assert!(bounds.max >= 2);
    assert_eq!((bounds.queue, bounds.quick_queue), (1024, 16_384));
}

#[test]
fn minimum_above_the_maximum_is_refused() {
    let error = parse("max_instances = 2\n[python]\nmin_instances = 3").unwrap_err();
    assert!(error.contains("min_instances = 3 is more than max_instances = 2 for python"), "{error}");
}
