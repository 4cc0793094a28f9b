use std::{
    ffi::OsString,
    fs,
    os::unix::{
        ffi::OsStringExt,
        fs::{PermissionsExt, symlink},
    },
};

use proptest::{collection::vec, prelude::*};
use tar::{EntryType, Header};
use tempfile::TempDir;

use super::{
    record::{Content, Record},
    *,
};
use crate::{App, fuzz};

fn app_of(files: &[(&str, &str)]) -> TempDir {
    let root = tempfile::tempdir().unwrap();
    for (path, text) in files {
        let path = root.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    root
}

fn read(directory: &Path) -> App {
    App::read(directory, Some("shop")).unwrap()
}

fn packed(directory: &Path) -> Result<Vec<u8>, BundleError> {
    let mut bytes = Vec::new();
    pack(&read(directory), &mut bytes).map(|()| bytes)
}

fn file(path: &str, text: &[u8]) -> Vec<u8> {
    let content = Content::File { bytes: text.len() as u64, executable: false };
    let mut bytes = Vec::new();
    record::write(&mut bytes, &Record { path: path.into(), content }).unwrap();
    bytes.extend_from_slice(text);
    bytes.extend_from_slice(record::padding(text.len() as u64));
    bytes
}

fn link(path: &str, says: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    record::write(&mut bytes, &Record { path: path.into(), content: Content::Link(says.into()) }).unwrap();
    bytes
}

fn other(kind: EntryType, path: &[u8]) -> Vec<u8> {
    let mut header = Header::new_gnu();
    header.as_old_mut().name[..path.len()].copy_from_slice(path);
    header.as_old_mut().linkname[..4].copy_from_slice(b"a.py");
    header.set_entry_type(kind);
    header.set_mode(0o644);
    header.set_size(0);
    header.set_cksum();
    header.as_bytes().to_vec()
}

/// What unpacking says to these records; nothing may be left then.
fn refusal(records: &[Vec<u8>], limits: Limits) -> String {
    refusal_of(&[records.concat(), record::END.to_vec()].concat(), limits)
}

fn refusal_of(bundle: &[u8], limits: Limits) -> String {
    let scratch = tempfile::tempdir().unwrap();
    let error = unpack(bundle, &scratch.path().join("app"), limits).unwrap_err();
    assert_eq!(fs::read_dir(scratch.path()).unwrap().count(), 0, "left after {error}");
    error.to_string()
}

fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).unwrap().permissions().mode() & 0o7777
}

#[test]
fn unpacks_what_was_packed() {
    let app = app_of(&[
        ("a.py", "def f(): pass"),
        ("lib/b.sh", "#!/bin/sh"),
        (".env", "A=1"),
        ("empty", ""),
        ("data/state", "1"),
        ("fnmesh.toml", "writable = ['data']"),
        ("node_modules/p/index.js", ""),
        (".git/HEAD", ""),
    ]);
    fs::set_permissions(app.path().join("lib/b.sh"), fs::Permissions::from_mode(0o4711)).unwrap();
    fs::set_permissions(app.path().join("a.py"), fs::Permissions::from_mode(0o600)).unwrap();
    symlink("lib/b.sh", app.path().join("to_file")).unwrap();
    symlink(app.path().join("lib"), app.path().join("to_directory")).unwrap();
    symlink("data/state", app.path().join("to_data")).unwrap();
    symlink(".git/HEAD", app.path().join("to_what_stays")).unwrap();

    let scratch = tempfile::tempdir().unwrap();
    let to = scratch.path().join("v1");
    unpack(&packed(app.path()).unwrap()[..], &to, Limits::default()).unwrap();

    assert_eq!(read(&to).hash, read(app.path()).hash);
    let mut names: Vec<_> = fs::read_dir(&to).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    let expected =
        [".env", "a.py", "empty", "fnmesh.toml", "lib", "to_data", "to_directory", "to_file", "to_what_stays"];
    assert_eq!(names, expected);
    assert_eq!(fs::read_to_string(to.join("a.py")).unwrap(), "def f(): pass");
    let modes = ["", "lib", "a.py", "lib/b.sh", ".env"].map(|path| mode(&to.join(path)));
    assert_eq!(modes, [0o755, 0o755, 0o644, 0o755, 0o644]);
    let says = ["to_file", "to_directory", "to_data"].map(|path| fs::read_link(to.join(path)).unwrap());
    assert_eq!(says, ["lib/b.sh", "lib", "data/state"].map(PathBuf::from));
    assert!(fs::symlink_metadata(to.join("to_what_stays")).unwrap().is_file());
    assert_eq!(fs::read_dir(scratch.path()).unwrap().count(), 1);
}

#[test]
fn other_programs_can_list_it() {
    let long = "d".repeat(120);
    let app = app_of(&[("a.py", ""), (&format!("{long}/b.txt"), "text")]);
    symlink(format!("{long}/b.txt"), app.path().join("z")).unwrap();
    let bytes = packed(app.path()).unwrap();
    let mut archive = tar::Archive::new(&bytes[..]);
    let listed: Vec<_> = archive
        .entries()
        .unwrap()
        .map(|entry| {
            let entry = entry.unwrap();
            let header = entry.header();
            assert_eq!((header.uid().unwrap(), header.gid().unwrap(), header.mtime().unwrap()), (0, 0, 0));
            (entry.path().unwrap().into_owned(), entry.link_name().unwrap().map(std::borrow::Cow::into_owned))
        })
        .collect();
    let deep = PathBuf::from(format!("{long}/b.txt"));
    assert_eq!(listed, [("a.py".into(), None), (deep.clone(), None), ("z".into(), Some(deep))]);
}

#[test]
fn link_out_of_the_app_is_named() {
    for (says, at) in [("/etc/passwd", "x"), ("../gone", "x"), ("nowhere/../../gone", "x"), ("../../..", "lib/x")] {
        let app = app_of(&[("a.py", ""), ("lib/b.py", "")]);
        symlink(says, app.path().join(at)).unwrap();
        let error = packed(app.path()).unwrap_err().to_string();
        assert!(error.contains(&format!("/{at}: links to {says}, outside of the app, and")), "{error}");
    }
}

#[test]
fn app_that_changed_is_not_packed() {
    type Change = fn(&Path);
    let changes: [Change; 5] = [
        |root| fs::write(root.join("a.py"), "y = 2").unwrap(),
        |root| fs::write(root.join("a.py"), "x = 1 and more").unwrap(),
        |root| fs::write(root.join("new.py"), "").unwrap(),
        |root| fs::remove_file(root.join("b.py")).unwrap(),
        |root| {
            fs::remove_file(root.join("b.py")).unwrap();
            symlink("a.py", root.join("b.py")).unwrap();
        },
    ];
    for change in changes {
        let directory = app_of(&[("a.py", "x = 1"), ("b.py", "")]);
        let app = read(directory.path());
        change(directory.path());
        let error = pack(&app, io::sink()).unwrap_err();
        assert!(matches!(error, BundleError::Changed { .. }), "{error}");
        assert!(error.to_string().contains("the app changed while it was packed; deploy"), "{error}");
    }
}

#[test]
fn file_that_shrinks_is_a_change() {
    struct Shrink<'a>(&'a Path);
    impl io::Write for Shrink<'_> {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            fs::write(self.0, "")?;
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let directory = app_of(&[("a.py", ""), ("b.bin", &"x".repeat(1 << 20))]);
    let error = pack(&read(directory.path()), Shrink(&directory.path().join("b.bin"))).unwrap_err().to_string();
    assert!(error.contains("b.bin changed while the app was packed"), "{error}");
}

#[test]
fn output_that_fails_is_told_apart() {
    let directory = app_of(&[("a.py", &"x".repeat(1 << 20))]);
    let error = pack(&read(directory.path()), &mut [0_u8; 1000][..]).unwrap_err();
    assert!(matches!(error, BundleError::Stream(_)), "{error}");
}

#[test]
fn strange_entries_are_refused() {
    let app = || file("a.py", b"");
    let long = "x".repeat(5000);
    let cases = [
        (vec![file("/tmp/x", b"")], "/tmp/x: is no plain path"),
        (vec![file("../x", b"")], "../x: is no plain path"),
        (vec![file("lib/../x", b"")], "lib/../x: is no plain path"),
        (vec![file("./x", b"")], "./x: is no plain path"),
        (vec![file("x/", b"")], "x/: is no plain path"),
        (vec![file("", b"")], "\"\" is no name"),
        (vec![file(&long, b"")], "a name of 5001 bytes; the limit is 4095"),
        (vec![file(&"x".repeat(300), b"")], "cannot be made"),
        (vec![file(&format!("{}\0y", "x".repeat(150)), b"")], "is no name"),
        (vec![app(), app()], "a.py: comes twice, or not in order"),
        (vec![file("b.py", b""), app()], "a.py: comes twice, or not in order"),
        (vec![app(), file("a.py/b", b"")], "cannot be made"),
        (vec![app(), link("lib", "."), file("lib/b", b"")], "lib: cannot be made"),
        (vec![app(), link("lib", "/tmp"), link("lib/b", "c")], "lib"),
        (vec![app(), link("x", "/etc/passwd")], "x: links to /etc/passwd, outside of the app"),
        (vec![app(), link("x", "../y")], "x: links to ../y, outside"),
        (vec![app(), link("d/x", "../e/y/.."), link("e/y", ".."), link("z", "d/x/..")], "outside of the app"),
        (vec![app(), link("x", "y/z"), link("y", "../..")], "outside"),
        (vec![app(), link("x", "")], "\"\" is no name"),
        (vec![app(), other(EntryType::Link, b"b.py")], "b.py: is neither a file nor a symbolic link"),
        (vec![app(), other(EntryType::Directory, b"b")], "b: is neither"),
        (vec![app(), other(EntryType::Char, b"b")], "b: is neither"),
        (vec![app(), other(EntryType::Block, b"b")], "b: is neither"),
        (vec![app(), other(EntryType::Fifo, b"b")], "b: is neither"),
        (vec![app(), other(EntryType::XHeader, b"b")], "b: is neither"),
        (vec![app(), other(EntryType::GNUSparse, b"b")], "b: is neither"),
        (vec![file(".hidden", b""), app()], ".hidden: is no part of an app's content"),
        (vec![file("__pycache__/a.pyc", b""), app()], "__pycache__/a.pyc: is no part"),
        (vec![app(), file("node_modules/p/index.js", b"")], "node_modules/p/index.js: is no part"),
        (vec![app(), file("env/lib/x.py", b""), file("env/pyvenv.cfg", b"")], "env/lib/x.py: is no part"),
        (vec![app(), file("data/x", b""), file("fnmesh.toml", b"writable=['data']")], "data/x: is no part"),
        (vec![app(), file("fnmesh.toml", b"timeuot = 1")], "/app/fnmesh.toml:1: "),
        (vec![app(), vec![0; 1024], app()], "something follows after its end"),
        (vec![vec![1; 512]], "is damaged, or no bundle at all"),
    ];
    for (records, expected) in cases {
        let error = refusal(&records, Limits::default());
        assert!(error.contains(expected), "{error} instead of {expected}");
    }
}

#[test]
fn limits_end_it_early() {
    let files: Vec<_> = ["a.py", "b/c", "b/d"].iter().map(|path| file(path, &[b'x'; 600])).collect();
    let limits = |entries, bytes| Limits { entries, size: ByteSize::b(bytes) };
    let bundle = [files.concat(), record::END.to_vec()].concat();
    let scratch = tempfile::tempdir().unwrap();
    unpack(&bundle[..], &scratch.path().join("app"), limits(4, 1800)).unwrap();
    assert!(bundle.len() as u64 <= limits(4, 1800).bundle_size().as_u64());
    for limits in [limits(3, 1800), limits(4, 1799)] {
        let error = refusal_of(&bundle, limits);
        assert!(error.contains(&format!("more than the limit of {}", limits.entries)), "{error}");
    }
    // What it states is refused before it is read.
    let mut bomb = Vec::new();
    let content = Content::File { bytes: 1 << 50, executable: false };
    record::write(&mut bomb, &Record { path: "a.py".into(), content }).unwrap();
    assert!(refusal_of(&bomb, limits(4, 1800)).contains("or 1.8 KiB of files"));
}

#[test]
fn bundle_cut_anywhere_is_refused() {
    let app = app_of(&[("a.py", "x = 1"), (&format!("{}/b", "d".repeat(150)), "")]);
    let bytes = packed(app.path()).unwrap();
    for end in (0..bytes.len()).step_by(128) {
        let error = refusal_of(&bytes[..end], Limits::default());
        assert!(error.contains("it ends early; fetch it again"), "{error}");
    }
}

#[test]
fn existing_directory_is_left_alone() {
    let app = app_of(&[("a.py", "")]);
    let error = unpack(&packed(app.path()).unwrap()[..], app.path(), Limits::default()).unwrap_err().to_string();
    assert!(error.contains("exists"), "{error}");
    assert_eq!(fs::read_dir(app.path()).unwrap().count(), 1);
}

/// What a generated app has at some path.
#[derive(Clone, Debug)]
enum Made {
    File(Vec<u8>, bool),
    /// To the so-manyth path, its directory instead of itself, said absolutely.
    Link(prop::sample::Index, bool, bool),
    Says(&'static str),
}

fn names() -> impl Strategy<Value = OsString> {
    let odd: [&[u8]; 16] = [
        b"a",
        b"b",
        b"c",
        b"A",
        "\u{e4}\u{1f980}".as_bytes(),
        b"e\xcc\x81",
        b"\xff\xfe",
        b" ",
        b"-rf",
        b"new\nline",
        b"back\\slash",
        b"*",
        b"data",
        b".hidden",
        b"node_modules",
        &[b'l'; 200],
    ];
    prop::sample::select(odd.map(|name| OsString::from_vec(name.to_vec())).to_vec())
}

fn made() -> impl Strategy<Value = Made> {
    prop_oneof![
        3 => (vec(any::<u8>(), 0..1500), any::<bool>()).prop_map(|(content, exec)| Made::File(content, exec)),
        2 => any::<(prop::sample::Index, bool, bool)>().prop_map(|(to, up, absolute)| Made::Link(to, up, absolute)),
        1 => prop::sample::select(vec!["nowhere", "./nowhere//x/", "x/../y", "a/b/c", "."]).prop_map(Made::Says),
    ]
}

/// What can be made is made: a path may be in another's way.
fn make(root: &Path, entries: &[(Vec<OsString>, Made)]) {
    let paths: Vec<PathBuf> = entries.iter().map(|(path, _)| root.join(path.iter().collect::<PathBuf>())).collect();
    let all = || paths.iter().zip(entries.iter().map(|(_, made)| made));
    for (path, made) in all() {
        let Made::File(content, executable) = made else { continue };
        if fs::create_dir_all(path.parent().unwrap()).is_ok() && fs::write(path, content).is_ok() {
            let mode = if *executable { 0o755 } else { 0o640 };
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        }
    }
    for (path, made) in all() {
        let says = match made {
            Made::File(..) => continue,
            Made::Says(says) => PathBuf::from(says),
            Made::Link(to, up, absolute) => {
                let to = to.get(&paths);
                let to = if *up { to.parent().unwrap() } else { to };
                let Ok(real) = fs::canonicalize(to) else { continue };
                if *absolute { real } else { crate::app::version::relative(path, to) }
            }
        };
        let made = fs::create_dir_all(path.parent().unwrap()).and_then(|()| symlink(says, path));
        drop(made);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_app_arrives_as_it_was(entries in vec((vec(names(), 1..4), made()), 0..12)) {
        let app = app_of(&[("main.py", "x = 1"), (".env", "A=1"), ("fnmesh.toml", "writable = ['data']")]);
        let root = app.path().canonicalize().unwrap();
        make(&root, &entries);
        let before = read(&root);
        let bytes = match packed(&root) {
            // A link made through another one, which lies deeper, may lead out.
            Err(BundleError::Link { .. }) => return Ok(()),
            other => other.unwrap(),
        };
        let scratch = tempfile::tempdir().unwrap();
        let to = scratch.path().join("v1");
        unpack(&bytes[..], &to, Limits::default()).unwrap();
        prop_assert_eq!(read(&to).hash, before.hash);
        prop_assert_eq!(packed(&to).unwrap(), bytes);
    }

    #[test]
    fn damaged_bundles_stay_where_they_are(changes in vec((any::<prop::sample::Index>(), any::<u8>()), 1..6)) {
        let mut bytes = small();
        for (at, byte) in changes {
            // Into headers and names mostly: they are what is read.
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        fuzz::bundle(&bytes, tempfile::tempdir().unwrap().path());
    }
}

fn small() -> Vec<u8> {
    let app = app_of(&[("a.py", "x = 1"), ("lib/b", ""), (&format!("lib/{}", "l".repeat(120)), "")]);
    symlink("lib", app.path().join("z")).unwrap();
    packed(app.path()).unwrap()
}

#[test]
fn each_damaged_byte_of_a_header_stays_where_it_is() {
    let scratch = tempfile::tempdir().unwrap();
    let bytes = small();
    assert!(fuzz::bundle(&bytes, scratch.path()));
    let fields = [0, 1, 100, 104, 106, 124, 125, 134, 148, 156, 157, 158, 257, 263];
    for (block, field) in (0..bytes.len() / 512).flat_map(|block| fields.map(move |field| (block, field))) {
        for byte in [0, b'.', b'/', 0xff] {
            let mut bytes = bytes.clone();
            bytes[block * 512 + field] = byte;
            fuzz::bundle(&bytes, scratch.path());
        }
    }
}
