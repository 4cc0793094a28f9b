//! Node workers that wait for no app in particular.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use std::{
    fs,
    path::{Path, PathBuf},
};

use fnmesh_runtime::{Config, sandbox::Mode};
use serde_json::{Value, json};
use support::{Fixture, PATIENCE, is_running, spare, text, until, with_app_in};

const SHOP: &str = "exports.secret = () => 'of the shop'; exports.die = () => process.exit(3);";

const OTHER: &str = "
    const fs = require('node:fs'), os = require('node:os'), path = require('node:path');
    const { execFileSync } = require('node:child_process');
    const { Worker } = require('node:worker_threads');
    const { total } = require('./lib/sums');
    exports.about = () => ({
        pid: process.pid, cwd: process.cwd(), argv: process.argv.length, main: require.main === module,
        word: process.env.WORD, words: execFileSync('/bin/sh', ['-c', 'echo $WORD $PWD'], { encoding: 'utf8' }),
        limit: require('node:v8').getHeapStatistics().heap_size_limit, sum: total([1, 2]), dir: __dirname,
    });
    const thread = (file) => new Promise((resolve, reject) => {
        const code = `require('node:worker_threads').parentPort.postMessage(require('node:fs').readFileSync(${JSON.stringify(file)}, 'utf8'))`;
        new Worker(code, { eval: true }).on('message', resolve).on('error', reject);
    });
    const ways = {
        sync: (file) => fs.readFileSync(file, 'utf8'),
        promise: (file) => fs.promises.readFile(file, 'utf8'),
        process: (file) => execFileSync('/bin/cat', [file], { encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'] }),
        thread,
    };
    exports.read = async (file) => {
        const found = {};
        for (const [name, way] of Object.entries(ways)) {
            found[name] = await Promise.resolve().then(() => way(file)).then((text) => text.trim(), (error) =>
                /EACCES|Permission denied/.test(error.message) ? 'refused' : `${error}`);
        }
        return found;
    };
    exports.signal = (pid) => {
        try { return process.kill(pid, 0); } catch (error) { return error.code; }
    };
    exports.write = (file) => { fs.writeFileSync(file, 'text'); return fs.readFileSync(file, 'utf8'); };
    exports.temporary = () => exports.write(path.join(os.tmpdir(), 'file'));
    exports.descriptors = () => fs.readdirSync('/proc/self/fd').map((fd) => {
        try { return fs.readlinkSync(`/proc/self/fd/${fd}`); } catch { return 'closed'; }
    });";

fn module() -> PathBuf {
    let module = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/debug/libfnmesh_nodejs.so");
    let module = std::env::var_os("FNMESH_NODE_MODULE").map_or(module, PathBuf::from);
    assert!(module.is_file(), "{} is missing: cargo build -p fnmesh-nodejs", module.display());
    module
}

fn with_module<F: Future<Output = ()>>(test: impl FnOnce(Fixture) -> F) {
    with_app_in(|config| config.node_module = Some(module()), test);
}

/// A directory with an app that tells what it finds.
fn other(files: &[(&str, &str)]) -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    fs::create_dir(directory.path().join("lib")).unwrap();
    let own = [("app.js", OTHER), ("lib/sums.js", "exports.total = (all) => all.reduce((a, b) => a + b);")];
    for (name, text) in own.iter().chain(files) {
        fs::write(directory.path().join(name), text).unwrap();
    }
    directory
}

async fn ask(app: &Fixture, function: &str, arguments: Value) -> Value {
    let reply = app.call_of("other", function, &arguments.to_string(), PATIENCE).await;
    serde_json::from_str(&text(reply.unwrap())).unwrap()
}

#[test]
fn first_instance_of_another_app_is_the_worker_that_waits_and_like_any() {
    with_module(async |app| {
        app.deploy(&[("shop.js", SHOP)]).await.unwrap();
        let waiting = spare(&app).await;
        let directory = other(&[(".env", "WORD=pssst\n")]);
        app.deploy_as("other", directory.path()).await.unwrap();
        let first = ask(&app, "about", json!([])).await;
        let path = directory.path().canonicalize().unwrap();
        let wanted = json!({
            "pid": waiting, "cwd": path, "argv": 1, "main": false, "word": "pssst",
            "words": format!("pssst {}\n", path.display()), "limit": first["limit"], "sum": 3, "dir": path,
        });
        assert_eq!(first, wanted);
        // The next one waits for whichever app.
        let next = spare(&app).await;
        app.call("die", "[]").await.unwrap_err();
        until("the shop has it", || app.pids().contains(&next.cast_unsigned())).await;
    });
}

#[test]
fn it_reaches_what_its_app_may_and_nothing_else() {
    with_module(async |app| {
        app.deploy(&[("shop.js", SHOP)]).await.unwrap();
        let waiting = spare(&app).await;
        let directory = other(&[("own.txt", "own")]);
        app.deploy_as("other", directory.path()).await.unwrap();
        assert_eq!(ask(&app, "about", json!([])).await["pid"], waiting);
        let everywhere = |what: &str| json!({"sync": what, "promise": what, "process": what, "thread": what});
        assert_eq!(ask(&app, "read", json!([directory.path().join("own.txt")])).await, everywhere("own"));
        let foreign = app.directory.path().join("shop.js");
        assert_eq!(ask(&app, "read", json!([foreign])).await, everywhere("refused"));
        let own = directory.path().join("new.txt").to_str().unwrap().to_owned();
        let refused = app.call_of("other", "write", &json!([own]).to_string(), PATIENCE).await.unwrap_err();
        assert!(refused.to_string().contains("EACCES"), "{refused}");
        assert_eq!(ask(&app, "temporary", json!([])).await, "text");
        assert_eq!(ask(&app, "signal", json!([std::process::id()])).await, "EPERM");
        let open = ask(&app, "descriptors", json!([])).await.to_string();
        assert!(!open.contains("landlock"), "{open}");
    });
}

#[test]
fn app_that_differs_from_the_start_on_has_workers_of_its_own() {
    for (file, content) in [("fnmesh.toml", "memory = \"256MiB\"\n"), (".env", "NODE_OPTIONS=--no-warnings\n")] {
        with_module(async |app| {
            app.deploy(&[("shop.js", SHOP)]).await.unwrap();
            let waiting = spare(&app).await;
            let directory = other(&[(file, content)]);
            app.deploy_as("other", directory.path()).await.unwrap();
            assert_ne!(ask(&app, "about", json!([])).await["pid"], waiting, "{content}");
            assert!(is_running(waiting.cast_unsigned()), "{content}");
        });
    }
}

#[test]
fn every_thread_of_a_strict_node_enters_the_rules() {
    let strict = |config: &mut Config| (config.node_module, config.sandbox) = (Some(module()), Mode::Strict);
    with_app_in(strict, async |app| {
        app.deploy(&[("shop.js", SHOP)]).await.unwrap();
        let waiting = spare(&app).await;
        let directory = other(&[]);
        app.deploy_as("other", directory.path()).await.unwrap();
        assert_ne!(ask(&app, "about", json!([])).await["pid"], waiting);
        app.call("die", "[]").await.unwrap_err();
        until("the shop has its own", || app.pids().contains(&waiting.cast_unsigned())).await;
    });
}

#[test]
fn worker_that_cannot_be_confined_is_not_used_and_not_missed() {
    let text = tempfile::NamedTempFile::new().unwrap();
    let module = text.path().to_owned();
    with_app_in(
        |config| config.node_module = Some(module),
        async |app| {
            app.deploy(&[("shop.js", SHOP)]).await.unwrap();
            let waiting = spare(&app).await;
            // It has hardly begun to start: whether it is taken or has ended by then, the app gets an instance.
            let directory = other(&[]);
            app.deploy_as("other", directory.path()).await.unwrap();
            assert_ne!(ask(&app, "about", json!([])).await["pid"], waiting);
            until("it ends", || !is_running(waiting.cast_unsigned())).await;
            app.call("die", "[]").await.unwrap_err();
            assert_eq!(app.json("secret", "[]").await, "\"of the shop\"");
        },
    );
}
