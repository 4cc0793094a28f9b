use std::{fs, os::unix::fs::PermissionsExt, time::Duration};

use super::*;
use crate::identity::LEAF_LIFE;

const DAY: Duration = Duration::from_secs(24 * 3600);

fn found(root: &Path) -> Identity {
    Identity::found(&root.join("identity"), SystemTime::now()).unwrap()
}

fn load(root: &Path) -> Result<Option<Identity>, Error> {
    Identity::load(&root.join("identity"))
}

#[test]
fn loads_what_was_founded() {
    let root = tempfile::tempdir().unwrap();
    assert!(load(root.path()).unwrap().is_none());
    let made = found(root.path());
    let loaded = load(root.path()).unwrap().unwrap();
    assert_eq!((made.id(), made.mesh(), made.expires()), (loaded.id(), loaded.mesh(), loaded.expires()));
    assert_eq!(made.derived_key("reset"), loaded.derived_key("reset"));
    assert_ne!(made.derived_key("reset"), made.derived_key("connection ids"));
    assert!(loaded.authority().is_some());
    for entry in fs::read_dir(root.path().join("identity")).unwrap() {
        assert_eq!(entry.unwrap().metadata().unwrap().permissions().mode() & 0o777, 0o600);
    }
}

#[test]
fn empty_directory_is_no_identity_and_may_become_one() {
    let root = tempfile::tempdir().unwrap();
    fs::create_dir(root.path().join("identity")).unwrap();
    assert!(load(root.path()).unwrap().is_none());
    let node = found(root.path()).id();
    assert_eq!(load(root.path()).unwrap().unwrap().id(), node);
}

#[test]
fn identity_is_not_overwritten() {
    let root = tempfile::tempdir().unwrap();
    let node = found(root.path()).id();
    let again = Identity::found(&root.path().join("identity"), SystemTime::now());
    assert!(matches!(again, Err(Error::Exists { .. })));
    assert_eq!(load(root.path()).unwrap().unwrap().id(), node);
}

#[test]
fn missing_file_is_named() {
    for file in [files::CA_CERTIFICATE, files::NODE_CERTIFICATE, files::NODE_KEY] {
        let root = tempfile::tempdir().unwrap();
        found(root.path());
        fs::remove_file(root.path().join("identity").join(file)).unwrap();
        assert!(matches!(load(root.path()), Err(Error::Incomplete { file: named, .. }) if named == file));
    }
}

#[test]
fn files_of_two_identities_do_not_mix() {
    for file in [files::CA_CERTIFICATE, files::CA_KEY, files::NODE_CERTIFICATE, files::NODE_KEY] {
        let roots = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        let [to, from] = roots.each_ref().map(|root| {
            found(root.path());
            root.path().join("identity").join(file)
        });
        fs::copy(from, to).unwrap();
        assert!(matches!(load(roots[0].path()), Err(Error::Damaged { .. })), "{file}");
    }
}

#[test]
fn key_that_others_can_read_is_not_used() {
    for file in [files::CA_KEY, files::NODE_KEY] {
        let root = tempfile::tempdir().unwrap();
        found(root.path());
        let path = root.path().join("identity").join(file);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(matches!(load(root.path()), Err(Error::Exposed { path: named, mode: 0o644 }) if named == path));
    }
}

#[test]
fn node_without_the_authority_key_loads() {
    let root = tempfile::tempdir().unwrap();
    found(root.path());
    fs::remove_file(root.path().join("identity").join(files::CA_KEY)).unwrap();
    assert!(load(root.path()).unwrap().unwrap().authority().is_none());
}

#[test]
fn renewal_is_due_after_two_thirds() {
    let root = tempfile::tempdir().unwrap();
    let identity = found(root.path());
    let now = SystemTime::now();
    assert!(!identity.needs_renewal(now - DAY));
    assert!(!identity.needs_renewal(now + 19 * DAY));
    assert!(identity.needs_renewal(now + 20 * DAY));
    assert!(identity.needs_renewal(now + 40 * DAY));
}

#[test]
fn renewed_certificate_is_used_and_kept() {
    let root = tempfile::tempdir().unwrap();
    let identity = found(root.path());
    let clone = identity.clone();
    let later = SystemTime::now() + 20 * DAY;
    let leaf = identity.authority().unwrap().sign(&identity.request().unwrap(), identity.id(), later).unwrap();
    identity.renewed(&leaf, later).unwrap();
    let rest = clone.expires().duration_since(later).unwrap();
    assert!(rest > LEAF_LIFE - DAY && rest <= LEAF_LIFE, "{rest:?}");
    assert_eq!(load(root.path()).unwrap().unwrap().expires(), clone.expires());
}

#[test]
fn wrong_renewal_changes_nothing() {
    let roots = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let [ours, theirs] = roots.each_ref().map(|root| found(root.path()));
    let before = ours.expires();
    let now = SystemTime::now();
    let sign = |signer: &Identity, subject: &Identity, now| {
        signer.authority().unwrap().sign(&subject.request().unwrap(), subject.id(), now).unwrap()
    };
    let cases = [
        (sign(&theirs, &ours, now), Invalid::OtherMesh),
        (sign(&ours, &theirs, now), Invalid::WrongNode { expected: ours.id().to_string(), found: theirs.id() }),
    ];
    for (leaf, expected) in cases {
        assert!(matches!(ours.renewed(&leaf, now), Err(Error::Certificate(found)) if found == expected));
    }
    let old = sign(&ours, &ours, now - 40 * DAY);
    assert!(matches!(ours.renewed(&old, now), Err(Error::Certificate(Invalid::Expired { .. }))));
    assert!(matches!(ours.renewed(b"garbage", now), Err(Error::Certificate(Invalid::Malformed(_)))));
    assert_eq!(ours.expires(), before);
    assert_eq!(load(roots[0].path()).unwrap().unwrap().expires(), before);
}
