//! Node workers that are started before there is an instance for them to be.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use std::{fs, time::Duration};

use rustix::process::{Pid, Signal, kill_process};
use support::{Fixture, PATIENCE, is_running, spare, until, with_app};

const APP: &str = "
    const { total } = require('./lib/sums');
    exports.about = () => ({
        pid: process.pid, cwd: process.cwd(), argv: process.argv.length, secret: process.env.SECRET,
        limit: require('node:v8').getHeapStatistics().heap_size_limit, sum: total([1, 2]), main: require.main === module,
    });
    exports.die = () => process.exit(3);";

#[derive(Debug, serde::Deserialize, PartialEq)]
struct About {
    pid: i32,
    cwd: String,
    argv: usize,
    secret: String,
    limit: u64,
    sum: u32,
    main: bool,
}

async fn deploy(app: &Fixture, source: &str) {
    fs::create_dir_all(app.directory.path().join("lib")).unwrap();
    fs::write(app.directory.path().join("lib/sums.js"), "exports.total = (all) => all.reduce((a, b) => a + b);")
        .unwrap();
    app.deploy(&[("shop.js", source), (".env", "SECRET=pssst\n"), ("fnmesh.toml", "memory = \"256MiB\"\n")])
        .await
        .unwrap();
}

async fn about(app: &Fixture) -> About {
    serde_json::from_str(&app.json("about", "[]").await).unwrap()
}

#[test]
fn next_instance_is_the_spare_worker_and_like_the_first() {
    with_app(async |app| {
        deploy(&app, APP).await;
        let first = about(&app).await;
        assert_eq!((&*first.secret, first.argv, first.sum), ("pssst", 1, 3));
        assert_eq!(first.cwd, app.directory.path().canonicalize().unwrap().to_str().unwrap());
        let waiting = spare(&app).await;
        app.call("die", "[]").await.unwrap_err();
        let second = about(&app).await;
        for limit in [first.limit, second.limit] {
            // 256 MiB of old space, and what V8 adds for the young generation: less if it is in its cgroup by then.
            assert!((256 << 20..400 << 20).contains(&limit), "{limit}");
        }
        assert_eq!(second, About { pid: waiting, limit: second.limit, ..first });
    });
}

#[test]
fn new_version_gets_the_spare_worker_and_fails_as_ever() {
    with_app(async |app| {
        deploy(&app, APP).await;
        let waiting = spare(&app).await;
        let failure = app.deploy(&[("shop.js", "exports.about = (a b) => 1;")]).await.unwrap_err();
        assert_eq!(failure.kind, "SyntaxError");
        assert!(failure.stack.contains("shop.js:1"), "{}", failure.stack);
        until("the worker ends", || !is_running(waiting.cast_unsigned())).await;

        let waiting = spare(&app).await;
        deploy(&app, &format!("{APP}\nexports.more = 1;")).await;
        assert_eq!(about(&app).await.pid, waiting);
    });
}

#[test]
fn spare_worker_that_dies_is_not_missed() {
    with_app(async |app| {
        deploy(&app, APP).await;
        let waiting = spare(&app).await;
        kill_process(Pid::from_raw(waiting).unwrap(), Signal::KILL).unwrap();
        until("it is waited for", || !is_running(waiting.cast_unsigned())).await;
        app.call("die", "[]").await.unwrap_err();
        assert_ne!(about(&app).await.pid, waiting);
    });
}

#[test]
fn spare_worker_is_not_for_another_directory_at_the_same_path() {
    with_app(async |app| {
        deploy(&app, APP).await;
        let waiting = spare(&app).await;
        // The sandbox of the spare worker holds what was there before.
        fs::remove_dir_all(app.directory.path()).unwrap();
        fs::create_dir(app.directory.path()).unwrap();
        deploy(&app, &format!("{APP}\nexports.more = 1;")).await;
        assert_ne!(about(&app).await.pid, waiting);
    });
}

#[test]
fn spare_worker_ends_with_the_node() {
    with_app(async |app| {
        deploy(&app, APP).await;
        let waiting = spare(&app).await;
        tokio::time::timeout(PATIENCE, app.runtime.drain(Duration::ZERO)).await.unwrap();
        assert!(!is_running(waiting.cast_unsigned()));
    });
}
