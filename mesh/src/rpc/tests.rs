use std::time::SystemTime;

use super::*;
use crate::nothing::Nothing;

#[test]
fn gossip_that_waits_is_bounded() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    let (inputs, mut waiting) = mpsc::unbounded_channel();
    let service = Service {
        local: Nothing,
        membership: Weak::new(),
        identity: Identity::found(&path("identity"), SystemTime::now()).unwrap(),
        denied: DenyList::load(directory.path()).unwrap(),
        deployments: Deployments::load(directory.path()).unwrap(),
        bundles: Bundles::open(path("bundles")).unwrap(),
        asks: mpsc::channel(1).0,
        inputs,
        gossip: Arc::new(Semaphore::new(10)),
    };
    let handler = PeerHandler { peer: NodeId::from_bytes([7; 16]), service: Rc::new(service) };
    let hear = |count: usize| {
        (0..count).for_each(|_| handler.notified(Request { method: GOSSIP, params: None, body: Bytes::new() }));
    };
    hear(25);
    assert_eq!(waiting.len(), 10);
    // Who has been heard makes room.
    (0..3).for_each(|_| drop(waiting.try_recv().unwrap()));
    hear(25);
    assert_eq!(waiting.len(), 10);
}
