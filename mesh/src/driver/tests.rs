use std::{net::Ipv4Addr, path::Path, time::SystemTime};

use tokio::task::LocalSet;

use super::*;
use crate::{
    membership::{self, Profile},
    nothing::Nothing,
    transport::quic,
};

const PEER: NodeId = NodeId::from_bytes([7; 16]);

/// The driver of a node without links.
fn driver(directory: &Path) -> Driver<Nothing> {
    let identity = Identity::found(&directory.join("identity"), SystemTime::now()).unwrap();
    let denied = DenyList::load(directory).unwrap();
    let endpoint = quic::bind((Ipv4Addr::LOCALHOST, 0).into(), quic::endpoint_config(&identity), None).unwrap();
    let dialler = identity.client_config();
    let handler = |_: NodeId| -> PeerHandler<Nothing> { panic!("there are no links") };
    let links = Links::new(identity.clone(), denied.clone(), endpoint, dialler, handler, |_| {});
    Driver::new(
        Rc::new(RefCell::new(membership_of(identity.id()))),
        RoutingTable::default(),
        links,
        mpsc::unbounded_channel().0,
        (identity, denied, Deployments::load(directory).unwrap()),
        View { members: Arc::default(), changed: watch::Sender::new(()) },
        directory.to_owned(),
    )
}

fn membership_of(node: NodeId) -> Membership {
    let identity = membership::Identity::new(node, (Ipv4Addr::LOCALHOST, 9).into(), 1);
    Membership::new(membership::Config::default(), identity, Profile::default(), 1, Instant::now(), &mut Vec::new())
}

/// What the peer sends when `event` happens to it.
fn said(peer: &mut Membership, event: Event) -> Vec<Event> {
    let mut actions = Vec::new();
    peer.handle(event, Instant::now(), &mut actions);
    let sent = actions.into_iter().filter_map(|action| match action {
        Action::Send { bytes, .. } => Some(Event::Received { from: PEER, bytes }),
        _ => None,
    });
    sent.collect()
}

#[tokio::test]
async fn what_a_peer_does_not_know_is_remembered_until_it_is_gone() {
    let directory = tempfile::tempdir().unwrap();
    let test = async {
        let (mut driver, mut peer) = (driver(directory.path()), membership_of(PEER));
        let here = *driver.membership.borrow().identity();
        for message in said(&mut peer, Event::Join(vec![(here.node, here.address)])) {
            driver.handle(message);
        }
        assert!(driver.membership.borrow().member(PEER).is_some());
        driver.note_deploys(PEER, false);
        driver.lose_link(PEER);
        assert!(driver.members().iter().any(|member| member.node == PEER && !member.deploys), "it is still a member");

        // It has to know that somebody is there to whom it can say that it leaves.
        let snapshot = Box::new(driver.membership.borrow().snapshot(true));
        said(&mut peer, Event::Snapshot { from: here.node, snapshot });
        for message in said(&mut peer, Event::Leave) {
            driver.handle(message);
        }
        assert!(driver.membership.borrow().member(PEER).is_none());
        assert!(driver.unknowing.is_empty(), "it has left");
        driver.note_deploys(PEER, false);
        assert!(driver.unknowing.is_empty(), "an answer that comes late is of no use");
    };
    LocalSet::new().run_until(test).await;
}
