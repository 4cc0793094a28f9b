use fnmesh_invoke::Language;

use super::*;
use crate::{
    manifest::Manifest,
    pool::plan::{Bounds, Effort, Event, Load, Plan, Use},
};

/// A pool with so many instances of 10 places each.
fn pool(instances: u32) -> LocalPool {
    let mut bounds = Manifest::default().bounds(Language::Python);
    bounds.concurrency = 10;
    let pool = Arc::new(Pool::new(0, "shop".into(), Language::Python, bounds, 1 << 20));
    let channel = |pid| Channel::new(Arc::new(Instance::new(Arc::clone(&pool), pid)));
    let channels = RefCell::new((0..instances).map(channel).collect());
    LocalPool { pool, channels, share: 7, closed: Cell::new(false) }
}

fn picks(pool: &LocalPool, count: usize) -> Vec<u32> {
    (0..count).filter_map(|_| pool.pick(0)).map(|channel| channel.instance().pid()).collect()
}

#[test]
fn load_that_one_instance_can_carry_stays_there() {
    let pool = pool(3);
    assert_eq!(picks(&pool, 7), [0; 7]);
    let channel = Rc::clone(&pool.channels.borrow()[0]);
    channel.instance().end(false);
    assert_eq!(picks(&pool, 1), [0]);
}

#[test]
fn beyond_its_share_the_next_one_is_filled() {
    let pool = pool(2);
    assert_eq!(picks(&pool, 15)[7..], [0, 1, 1, 1, 1, 1, 1, 1]);
}

#[test]
fn every_place_is_used_before_a_call_waits() {
    let pool = pool(2);
    let picks = picks(&pool, 25);
    let on = |pid| picks.iter().filter(|it| **it == pid).count();
    assert_eq!((on(0), on(1), pool.room()), (10, 10, 0));
}

#[test]
fn slow_instance_is_left_out_while_another_has_room() {
    let pool = pool(2);
    pool.channels.borrow()[0].tick(1);
    assert_eq!(picks(&pool, 12), [[1; 10].as_slice(), &[0; 2]].concat());
}

#[test]
fn slow_calls_are_spread() {
    let pool = pool(2);
    pool.channels.borrow().iter().for_each(|channel| channel.tick(1));
    assert_eq!(picks(&pool, 4), [0, 1, 0, 1]);
}

#[test]
fn calls_of_instances_that_compute_without_a_pause_are_spread() {
    let local = pool(2);
    let (pool, now) = (&local.pool, Instant::now());
    local.channels.borrow().iter().for_each(|channel| pool.note_ready(Arc::clone(channel.instance())));
    assert_eq!((pool.is_saturated(), pool.occupancy()), (false, (0, 20)));
    let mut plan = Plan::new(Bounds { max: 1, ..pool.bounds });
    plan.open(now);
    let mut used = Use { id: 0, in_flight: 2, calls: 2, answered: true };
    let load = Load { queued: 0, head_since: None, instances: &[used] };
    plan.handle(Event::Ready(0), &load, now);
    for _ in 0..2 {
        used.calls += 1;
        plan.note_effort(&Effort { cores: vec![Some(1.0)], idle: Some(1.0) }, &[used]);
    }
    pool.publish(&plan, None, now);
    assert_eq!(picks(&local, 4), [0, 1, 0, 1]);
    assert_eq!((pool.is_saturated(), pool.occupancy()), (true, (4, 2)), "one computes at a time");
}
