//! What the program says when it is used wrongly, or on its own.

mod support;

use std::{fs, net::TcpListener};

use support::{Apps, run, stderr, stdout};

fn code(arguments: &[&str]) -> i32 {
    run(arguments).status.code().expect("it exits by itself")
}

#[test]
fn help_shows_commands_and_examples() {
    let output = run(&["--help"]);
    assert!(output.status.success());
    for part in ["serve", "dev", "call", "ls", "ps", "inspect", "Examples:", "fnmesh dev ./shop"] {
        assert!(stdout(&output).contains(part), "{part:?} in {}", stdout(&output));
    }
    for command in ["serve", "dev", "call", "ps", "inspect"] {
        let output = run(&[command, "--help"]);
        assert!(output.status.success() && stdout(&output).contains("Examples:"), "{command}: {}", stdout(&output));
    }
}

#[test]
fn version_is_printed_both_ways() {
    let expected = format!("fnmesh {}\n", env!("CARGO_PKG_VERSION"));
    assert_eq!(stdout(&run(&["version"])), expected);
    assert_eq!(stdout(&run(&["--version"])), expected);
    let json: serde_json::Value = serde_json::from_slice(&run(&["version", "--json"]).stdout).unwrap();
    assert_eq!(json["version"], env!("CARGO_PKG_VERSION"));
}

#[test]
fn wrong_usage_ends_with_code_2() {
    for arguments in [
        &["serv"][..],
        &[],
        &["serve", "--listen", "nowhere"],
        &["serve", "--log", "loud"],
        &["serve", "--drain-timeout", "soon"],
        &["call", "merge"],
        &["call", "text/merge", "hello"],
        &["call", "text/merge", "a:=x"],
        &["call", "text/merge", "-d", "{a"],
        &["call", "text/merge", "a=1", "-d", "{}"],
        &["ls", "--node", "ftp://host"],
    ] {
        assert_eq!(code(arguments), 2, "{arguments:?}");
    }
}

#[test]
fn output_has_no_colour_when_piped() {
    for arguments in [&["--help"][..], &["serve", "/nonexistent"], &["call", "merge"]] {
        let output = run(arguments);
        assert!(!stdout(&output).contains('\u{1b}') && !stderr(&output).contains('\u{1b}'), "{arguments:?}");
    }
}

#[test]
fn missing_directory_is_named() {
    let output = run(&["serve", "/nonexistent/shop", "--listen", "127.0.0.1:0"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("/nonexistent/shop"), "{}", stderr(&output));
}

#[test]
fn file_in_place_of_a_directory_is_named() {
    let apps = Apps::new(&[("shop/shop.py", "")]);
    let file = apps.path("shop/shop.py");
    let output = run(&["serve", file.to_str().unwrap(), "--listen", "127.0.0.1:0"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("shop.py"), "{}", stderr(&output));
}

#[test]
fn apps_of_one_name_are_refused() {
    let apps = Apps::new(&[("a/shop/shop.py", "def f(): pass"), ("b/shop/shop.py", "def f(): pass")]);
    let (a, b) = (apps.path("a/shop"), apps.path("b/shop"));
    let output = run(&["serve", a.to_str().unwrap(), b.to_str().unwrap(), "--listen", "127.0.0.1:0"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("a/shop") && stderr(&output).contains("b/shop"), "{}", stderr(&output));
}

#[test]
fn port_in_use_names_its_holder() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let output = run(&["serve", "--listen", &address]);
    assert_eq!(output.status.code(), Some(1));
    for part in [address.as_str(), "in use", &format!("pid {}", std::process::id()), "--listen"] {
        assert!(stderr(&output).contains(part), "{part:?} in {}", stderr(&output));
    }
}

#[test]
fn unreachable_node_ends_with_code_3() {
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let url = format!("http://{address}");
    for arguments in [&["call", "text/merge"][..], &["ls"], &["inspect"]] {
        let output = run(&[arguments, &["--node", &url]].concat());
        assert_eq!(output.status.code(), Some(3), "{arguments:?}");
        assert!(stderr(&output).contains(&url) && stderr(&output).contains("fnmesh serve"), "{}", stderr(&output));
    }
}

#[test]
fn unreadable_data_file_is_a_usage_error() {
    let apps = Apps::new(&[("bad.json", "{")]);
    let bad = format!("@{}", apps.path("bad.json").display());
    assert_eq!(code(&["call", "text/merge", "-d", &bad]), 2);
    fs::remove_file(apps.path("bad.json")).unwrap();
    assert_eq!(code(&["call", "text/merge", "-d", &bad]), 2);
}
