use std::time::{Duration, SystemTime};

use proptest::{collection::vec, prelude::*};

use super::*;

const HERE: NodeId = NodeId::from_bytes([7; 16]);
const NOW: Duration = Duration::from_secs(1_790_000_000);

fn now() -> SystemTime {
    UNIX_EPOCH + NOW
}

fn content(number: u8) -> Content {
    Content { hash: [number; 32], bundle: [number; 32], bundle_bytes: 10 }
}

fn deploy(registry: &mut Registry, number: u8, replicas: Replicas) -> Arc<Deployment> {
    let next = registry.next("shop", Change { content: Some(content(number)), replicas }, HERE, now()).unwrap();
    registry.merge([Arc::clone(&next)], now());
    next
}

fn remove(registry: &mut Registry) -> Arc<Deployment> {
    let next = registry.next("shop", Change { content: None, replicas: Replicas::Auto }, HERE, now()).unwrap();
    registry.merge([Arc::clone(&next)], now());
    next
}

#[test]
fn versions_count_contents_and_go_on_after_a_removal() {
    let mut registry = Registry::default();
    let numbers = |it: &Deployment| (it.version, it.revision);
    assert_eq!(numbers(&deploy(&mut registry, 1, Replicas::Auto)), (1, 1));
    assert_eq!(numbers(&deploy(&mut registry, 1, Replicas::Auto)), (1, 1));
    assert_eq!(numbers(&deploy(&mut registry, 1, Replicas::All)), (1, 2));
    assert_eq!(numbers(&deploy(&mut registry, 2, Replicas::All)), (2, 3));
    assert_eq!(numbers(&remove(&mut registry)), (2, 4));
    assert_eq!(registry.deployed().count(), 0);
    assert_eq!(numbers(&remove(&mut registry)), (2, 4));
    assert_eq!(numbers(&deploy(&mut registry, 2, Replicas::All)), (3, 5));
}

#[test]
fn removals_are_forgotten_after_a_while_and_deployments_are_not() {
    let mut registry = Registry::default();
    deploy(&mut registry, 1, Replicas::Auto);
    let later = now() + 2 * REMOVALS_KEPT;
    registry.merge([], later);
    assert_eq!(registry.deployed().count(), 1);
    let removal = remove(&mut registry);
    registry.merge([], later);
    assert_eq!(registry.all().count(), 0);
    assert!(registry.merge([removal], later).is_empty());
}

#[test]
fn records_that_no_node_makes_are_left_out() {
    let mut registry = Registry::default();
    let sound = Deployment {
        app: "shop".into(),
        revision: 1,
        changed_ms: 1,
        node: HERE,
        version: 1,
        replicas: Replicas::Auto,
        content: Some(content(1)),
    };
    for app in ["..", "../shop", "/etc", "", ".", "a/b"] {
        let record = Deployment { app: app.into(), ..sound.clone() };
        assert!(registry.merge([Arc::new(record)], now()).is_empty(), "{app:?} is no name of an app");
    }
    let long = Content { bundle_bytes: MAX_BUNDLE_BYTES + 1, ..content(1) };
    assert!(registry.merge([Arc::new(Deployment { content: Some(long), ..sound.clone() })], now()).is_empty());
    assert_eq!(registry.merge([Arc::new(sound)], now()).len(), 1);
}

#[test]
fn number_of_apps_is_bounded() {
    let mut registry = Registry::default();
    let change = || Change { content: Some(content(1)), replicas: Replicas::Auto };
    for number in 0..MAX_APPS {
        let next = registry.next(&format!("app-{number}"), change(), HERE, now()).unwrap();
        registry.by_app.insert(Arc::clone(&next.app), next);
    }
    assert_eq!(registry.next("one-more", change(), HERE, now()), Err(TooMany));
    assert!(registry.next("app-1", Change { content: None, ..change() }, HERE, now()).is_ok());
    let foreign = Deployment { app: "one-more".into(), ..(**registry.get("app-1").unwrap()).clone() };
    assert!(registry.merge([Arc::new(foreign)], now()).is_empty());
}

#[test]
fn replicas_are_read_as_written() {
    for text in ["auto", "all", "1", "12"] {
        assert_eq!(text.parse::<Replicas>().unwrap().to_string(), text);
    }
    for text in ["0", "-1", "two", ""] {
        let error = text.parse::<Replicas>().unwrap_err().to_string();
        assert!(error.contains("write a number from 1"), "{error}");
    }
}

#[test]
fn registry_outlives_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let deployments = Deployments::load(directory.path()).unwrap();
    let change = || Change { content: Some(content(1)), replicas: Replicas::All };
    let (record, is_news) = deployments.change("shop", change(), HERE, now()).unwrap();
    assert!(is_news && !deployments.change("shop", change(), HERE, now()).unwrap().1);
    let again = Deployments::load(directory.path()).unwrap().snapshot();
    assert_eq!(again.get("shop"), Some(&record));
}

#[test]
fn what_cannot_be_kept_does_not_change() {
    let directory = tempfile::tempdir().unwrap();
    let deployments = Deployments::load(directory.path()).unwrap();
    std::fs::create_dir(directory.path().join(".deployments.json.new")).unwrap();
    let change = Change { content: Some(content(1)), replicas: Replicas::All };
    let error = deployments.change("shop", change, HERE, now()).unwrap_err().to_string();
    assert!(error.contains("deployments.json"), "{error}");
    assert_eq!(deployments.snapshot().all().count(), 0);
}

#[test]
fn damaged_file_is_named() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("deployments.json"), "{}").unwrap();
    let error = Deployments::load(directory.path()).unwrap_err().to_string();
    assert!(error.contains("deployments.json: it does not list deployments"), "{error}");
}

fn record() -> impl Strategy<Value = Arc<Deployment>> {
    let app = prop_oneof![Just("shop"), Just("text")];
    let content = proptest::option::of((0..3_u8).prop_map(content));
    (app, 1..4_u64, 0..2_u64, 0..2_u8, 1..3_u64, content).prop_map(|(app, revision, age, node, version, content)| {
        Arc::new(Deployment {
            app: app.into(),
            revision,
            changed_ms: NOW.as_millis() as u64 - age,
            node: NodeId::from_bytes([node; 16]),
            version,
            replicas: Replicas::Auto,
            content,
        })
    })
}

proptest! {
    /// Whatever the order in which nodes hear of records, and however often, they end with the same ones.
    #[test]
    fn order_and_repetition_do_not_matter(records in vec(record(), 0..12), seed: u64) {
        let mut mixed = [records.clone(), records.clone()].concat();
        fastrand::Rng::with_seed(seed).shuffle(&mut mixed);
        let (mut one, mut other) = (Registry::default(), Registry::default());
        one.merge(records.clone(), now());
        for record in mixed {
            other.merge([record], now());
        }
        prop_assert_eq!(&one, &other);
        prop_assert!(one.merge(records, now()).is_empty());
    }
}
