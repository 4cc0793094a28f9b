use bytes::Bytes;
use proptest::prelude::*;

use super::*;

/// Two or three nodes on a network without delay; timers are fired by the tests.
struct Mesh {
    nodes: Vec<Membership>,
    /// What each node was asked to do besides sending and fetching.
    done: Vec<Vec<Action>>,
    now: Instant,
}

fn id(node: usize) -> NodeId {
    NodeId::from_bytes([node as u8 + 1; 16])
}

fn address(node: usize) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, node as u8 + 1], 7100))
}

fn serving(version: u64, load: u16) -> Profile {
    let app = App { name: "shop".into(), version, hash: [1; 32], functions: vec!["add".into()], load: Load(load) };
    Profile { apps: vec![app], ..Profile::default() }
}

impl Mesh {
    fn new(count: usize) -> Self {
        let mut mesh = Self { nodes: Vec::new(), done: Vec::new(), now: Instant::now() };
        for node in 0..count {
            let (membership, actions) = mesh.started(node, 1_000);
            mesh.nodes.push(membership);
            mesh.done.push(actions);
        }
        for node in 1..count {
            mesh.handle(node, Event::Join(vec![(id(0), address(0))]));
        }
        mesh
    }

    fn started(&self, node: usize, generation: u64) -> (Membership, Vec<Action>) {
        let mut actions = Vec::new();
        let identity = Identity::new(id(node), address(node), generation);
        let membership =
            Membership::new(Config::default(), identity, serving(1, 0), node as u64, self.now, &mut actions);
        (membership, actions)
    }

    /// Has a node handle `event`, and all nodes whatever follows from it at once.
    fn handle(&mut self, node: usize, event: Event) {
        let mut queue = std::collections::VecDeque::from([(node, event)]);
        while let Some((node, event)) = queue.pop_front() {
            let mut actions = Vec::new();
            self.nodes[node].handle(event, self.now, &mut actions);
            for action in actions {
                let from = id(node);
                match action {
                    Action::Send { to, bytes, .. } => queue.push_back((index(to), Event::Received { from, bytes })),
                    Action::Fetch { of, from, .. } => {
                        queue.push_back((
                            node,
                            match self.nodes[index(from)].record(of) {
                                Some(record) => Event::Record { from, record: record.clone() },
                                None => Event::FetchFailed { of, from },
                            },
                        ));
                    }
                    Action::FetchSnapshot { from, with_records, .. } => {
                        let snapshot = Box::new(self.nodes[index(from)].snapshot(with_records));
                        queue.push_back((node, Event::Snapshot { from, snapshot }));
                    }
                    other => self.done[node].push(other),
                }
            }
        }
    }

    /// Fires all timers of `node` of one kind that were set so far.
    fn fire(&mut self, node: usize, is_wanted: impl Fn(&Kind) -> bool) -> Duration {
        let (due, kept): (Vec<_>, Vec<_>) = std::mem::take(&mut self.done[node])
            .into_iter()
            .partition(|action| matches!(action, Action::Schedule { timer, .. } if is_wanted(&timer.0)));
        self.done[node] = kept;
        let mut longest = Duration::ZERO;
        for action in due {
            let Action::Schedule { timer, after } = action else { unreachable!() };
            longest = longest.max(after);
            self.handle(node, Event::Timer(timer));
        }
        longest
    }

    fn take_done(&mut self, node: usize) -> Vec<Action> {
        std::mem::take(&mut self.done[node])
    }

    fn version(&self, node: usize, of: usize) -> Option<u64> {
        self.nodes[node].routable(id(of)).map(|record| record.version)
    }
}

fn index(id: NodeId) -> usize {
    id.to_bytes()[0] as usize - 1
}

fn changed(actions: &[Action], node: usize) -> bool {
    actions.iter().any(|action| matches!(action, Action::Changed(of) if *of == id(node)))
}

#[test]
fn a_task_may_move_between_threads() {
    fn is_send<T: Send + 'static>(_: &T) {}
    is_send(&Mesh::new(1).nodes[0]);
}

#[test]
fn joining_brings_all_members_and_records() {
    let mesh = Mesh::new(3);
    for (node, of) in [(0, 1), (1, 0), (2, 0), (2, 1)] {
        assert_eq!(mesh.version(node, of), Some(1), "{node} of {of}");
    }
}

#[test]
fn messages_in_anothers_name_are_ignored() {
    let mut mesh = Mesh::new(3);
    let (mut joiner, _) = mesh.started(3, 1_000);
    let mut actions = Vec::new();
    joiner.handle(Event::Join(vec![(id(0), address(0))]), mesh.now, &mut actions);
    let Some(Action::Send { bytes, .. }) = actions.pop() else { panic!("it announces itself: {actions:?}") };
    mesh.handle(0, Event::Received { from: id(2), bytes });
    let leave = Frame::Leave(*mesh.nodes[1].identity()).encode();
    mesh.handle(0, Event::Received { from: id(2), bytes: leave });
    assert_eq!(mesh.nodes[0].members().map(|member| member.node).collect::<Vec<_>>(), [id(1), id(2)]);
}

#[test]
fn a_member_without_link_is_not_routable() {
    let mut mesh = Mesh::new(3);
    mesh.take_done(0);
    mesh.handle(0, Event::LinkLost(id(1)));
    assert!(changed(&mesh.take_done(0), 1));
    assert_eq!((mesh.version(0, 1), mesh.version(2, 1)), (None, Some(1)));
    assert!(mesh.nodes[0].member(id(1)).is_some(), "the others decide whether it is dead");
    mesh.handle(0, Event::LinkBack(id(1)));
    assert!(changed(&mesh.take_done(0), 1));
    assert_eq!(mesh.version(0, 1), Some(1));
}

#[test]
fn a_lost_link_starts_suspicion_that_a_living_peer_denies() {
    let mut mesh = Mesh::new(3);
    let verdict = |kind: &Kind| matches!(kind, Kind::Swim(foca::Timer::ChangeSuspectToDown { .. }));
    mesh.handle(0, Event::LinkLost(id(1)));
    for node in [0, 2] {
        mesh.fire(node, |kind| matches!(kind, Kind::Swim(foca::Timer::PeriodicGossip(_))));
    }
    assert_eq!(mesh.fire(0, verdict), Duration::from_millis(900));
    assert!(mesh.nodes[0].member(id(1)).is_some());
}

#[test]
fn a_lost_link_ends_a_peer_that_is_silent() {
    let mut mesh = Mesh::new(2);
    let mut actions = Vec::new();
    mesh.nodes[0].handle(Event::LinkLost(id(1)), mesh.now, &mut actions);
    let verdict = actions.into_iter().find_map(|action| match action {
        Action::Schedule { timer, .. } => Some(timer),
        _ => None,
    });
    let mut actions = Vec::new();
    mesh.nodes[0].handle(Event::Timer(verdict.unwrap()), mesh.now, &mut actions);
    assert!(actions.iter().any(|action| matches!(action, Action::Down(node) if *node == id(1))), "{actions:?}");
}

#[test]
fn a_new_life_serves_nothing_until_it_says_so() {
    let mut mesh = Mesh::new(2);
    mesh.take_done(0);
    let (mut reborn, _) = mesh.started(1, 2_000);
    let mut actions = Vec::new();
    reborn.handle(Event::Join(vec![(id(0), address(0))]), mesh.now, &mut actions);
    let Some(Action::Send { bytes, .. }) = actions.pop() else { panic!("it announces itself: {actions:?}") };
    let mut actions = Vec::new();
    mesh.nodes[0].handle(Event::Received { from: id(1), bytes }, mesh.now, &mut actions);
    assert!(changed(&actions, 1));
    assert_eq!(mesh.nodes[0].member(id(1)).unwrap().generation, 2_000);
    assert_eq!(mesh.version(0, 1), None);
    let late = Event::Record { from: id(1), record: mesh.nodes[1].record(id(1)).unwrap().clone() };
    mesh.nodes[0].handle(late, mesh.now, &mut Vec::new());
    assert_eq!(mesh.version(0, 1), None, "what its old self served");
    mesh.nodes[1] = reborn;
    mesh.handle(0, Event::LinkBack(id(1)));
    mesh.handle(1, Event::Join(vec![(id(0), address(0))]));
    mesh.fire(1, |kind| matches!(kind, Kind::Swim(foca::Timer::PeriodicGossip(_))));
    assert_eq!(mesh.nodes[0].routable(id(1)).map(|record| record.generation), Some(2_000));
}

#[test]
fn a_node_whose_clock_went_back_gets_ahead_of_its_old_self() {
    let mut mesh = Mesh::new(3);
    let (reborn, actions) = mesh.started(1, 500);
    mesh.nodes[1] = reborn;
    mesh.done[1] = actions;
    mesh.handle(1, Event::Join(vec![(id(0), address(0))]));
    assert!(mesh.nodes[1].identity().generation > 1_000);
    assert_eq!(mesh.nodes[0].member(id(1)), Some(mesh.nodes[1].identity()));
    let record = mesh.nodes[1].record(id(1)).unwrap();
    assert!(record.generation > 1_000, "or nobody would take its record for new");
}

#[test]
fn a_peer_that_says_there_can_be_no_later_life_is_survived() {
    let mut mesh = Mesh::new(2);
    let (node, address) = (id(1), address(1));
    let last = Entry { node, address, generation: u64::MAX, renewals: u16::MAX, incarnation: 0, stamp: None };
    let snapshot = Box::new(Snapshot { members: vec![last], records: Vec::new() });
    mesh.handle(1, Event::Snapshot { from: id(0), snapshot });
    assert_eq!(mesh.nodes[1].identity().generation, u64::MAX);
    assert_eq!(Identity { renewals: u16::MAX, ..*mesh.nodes[1].identity() }.renewed().generation, u64::MAX);
}

#[test]
fn a_node_that_used_up_its_renewals_stays_known() {
    let mut mesh = Mesh::new(2);
    let worn = Identity { renewals: u16::MAX, ..*mesh.nodes[1].identity() };
    let mesh_actions = &mut Vec::new();
    mesh.nodes[1].become_identity(worn, mesh_actions);
    // Somebody says that it is dead.
    let down = std::iter::once(foca::Member::down(worn));
    mesh.nodes[1].swim(mesh_actions, |foca, sink| foca.apply_many(down, true, sink));
    assert_eq!(mesh.nodes[1].identity().age(), (1_001, 0));
    mesh.handle(1, Event::Join(vec![(id(0), address(0))]));
    mesh.fire(1, |kind| matches!(kind, Kind::Sync));
    assert_eq!(mesh.nodes[0].routable(id(1)).map(|record| record.generation), Some(1_001));
}

#[test]
fn routes_are_told_at_once_and_load_later() {
    let mut mesh = Mesh::new(2);
    let own = |mesh: &Mesh| mesh.version(0, 0).unwrap();
    mesh.handle(0, Event::Local(Box::new(serving(2, 0))));
    assert_eq!((own(&mesh), mesh.version(1, 0)), (2, Some(2)));
    mesh.handle(0, Event::Local(Box::new(serving(3, 0))));
    assert_eq!(own(&mesh), 2, "within 250 ms of the last");
    mesh.now += Duration::from_millis(250);
    assert_eq!(mesh.fire(0, |kind| matches!(kind, Kind::Publish)), Duration::from_millis(250));
    assert_eq!((own(&mesh), mesh.version(1, 0)), (3, Some(3)));

    for load in 1..=20 {
        mesh.now += Duration::from_millis(100);
        mesh.handle(0, Event::Local(Box::new(serving(3, load))));
    }
    assert_eq!(own(&mesh), 3, "load changes faster than it is told");
    mesh.now += Duration::from_secs(5);
    mesh.fire(0, |kind| matches!(kind, Kind::Publish));
    assert_eq!(own(&mesh), 4);
    assert_eq!(mesh.nodes[1].record(id(0)).unwrap().profile.apps[0].load, Load(20));
}

#[test]
fn the_owner_is_asked_when_the_teller_cannot_help() {
    let mut mesh = Mesh::new(3);
    let news = News { node: id(1), stamp: Stamp { generation: 1_000, version: 5 } };
    let mut actions = Vec::new();
    mesh.nodes[0].want(news, id(2), &mut actions);
    mesh.nodes[0].want(news, id(1), &mut actions);
    assert!(matches!(actions[..], [Action::Fetch { from, .. }] if from == id(2)), "{actions:?}");

    let mut actions = Vec::new();
    let old = mesh.nodes[2].record(id(1)).unwrap().clone();
    mesh.nodes[0].handle(Event::Record { from: id(2), record: old }, mesh.now, &mut actions);
    assert!(matches!(actions[..], [Action::Fetch { from, .. }] if from == id(1)), "{actions:?}");

    let mut actions = Vec::new();
    mesh.nodes[0].handle(Event::FetchFailed { of: id(1), from: id(1) }, mesh.now, &mut actions);
    assert!(actions.is_empty(), "{actions:?}");
    mesh.nodes[0].want(news, id(2), &mut actions);
    assert_eq!(actions.len(), 1, "the next news of it tries again");
}

#[test]
fn differing_digests_make_both_sides_ask() {
    let mut mesh = Mesh::new(2);
    let quiet = mesh.nodes[0].digest();
    assert_eq!(quiet, mesh.nodes[1].digest());
    let mut actions = Vec::new();
    mesh.nodes[0].handle(Event::Local(Box::new(serving(2, 0))), mesh.now, &mut actions);
    assert_eq!(mesh.version(1, 0), Some(1), "gossip got lost");
    mesh.fire(1, |kind| matches!(kind, Kind::Sync));
    assert_eq!(mesh.version(1, 0), Some(2));
    assert_eq!(mesh.nodes[0].digest(), mesh.nodes[1].digest());
}

#[test]
fn a_moved_node_is_reached_at_its_new_address() {
    let mut mesh = Mesh::new(2);
    mesh.take_done(0);
    mesh.handle(1, Event::Moved("10.9.9.9:1".parse().unwrap()));
    assert!(mesh.take_done(0).iter().any(|action| matches!(action, Action::Moved(node, _) if *node == id(1))));
    assert_eq!(mesh.nodes[0].member(id(1)).unwrap().address, "10.9.9.9:1".parse().unwrap());
    assert_eq!(mesh.version(0, 1), Some(1), "its routes stay");
}

#[test]
fn after_leaving_nothing_is_done_any_more() {
    let mut mesh = Mesh::new(2);
    mesh.take_done(0);
    mesh.handle(1, Event::Leave);
    assert!(mesh.take_done(0).iter().any(|action| matches!(action, Action::Left(node) if *node == id(1))));
    let mut actions = Vec::new();
    mesh.nodes[1].handle(Event::Join(vec![(id(0), address(0))]), mesh.now, &mut actions);
    assert!(actions.is_empty());
}

proptest! {
    #[test]
    fn any_message_is_survived(messages in proptest::collection::vec(any::<Vec<u8>>(), 0..20)) {
        let mut mesh = Mesh::new(2);
        for mut bytes in messages {
            // Half of them get past the check of the sender.
            if bytes.len() % 2 == 0 {
                bytes.splice(0..0, std::iter::once(0).chain([2; 16]));
            }
            let mut actions = Vec::new();
            mesh.nodes[0].handle(Event::Received { from: id(1), bytes: Bytes::from(bytes) }, mesh.now, &mut actions);
        }
        prop_assert!(mesh.nodes[0].routable(id(0)).is_some());
    }
}
