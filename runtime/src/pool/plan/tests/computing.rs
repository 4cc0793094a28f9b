//! Instances that use whole cores.

use super::*;

#[test]
fn instances_that_compute_all_the_time_get_others_while_there_are_cores() {
    let mut pool = Pool::opened(BOUNDS);
    pool.compute(2, 1.0, 6.0);
    assert_eq!((pool.size(), pool.plan.is_spread()), (1, false), "a moment says nothing");
    pool.compute(2, 1.0, 6.0);
    assert_eq!((pool.size(), pool.plan.is_spread()), (2, true));
    pool.compute(2, 1.0, 6.0);
    assert_eq!(pool.size(), 2, "the one that starts counts");
    pool.all_ready();
    pool.note_effort(&Effort { cores: vec![Some(1.0), None], idle: Some(5.0) });
    assert_eq!(pool.size(), 2, "the new one shall show what it is good for");
    assert!(!pool.plan.is_exhausted(), "there may be more");
    pool.compute(2, 0.95, 2.0);
    pool.compute(2, 0.95, 2.0);
    pool.all_ready();
    assert_eq!(pool.size(), 4, "as many as there are");
    for _ in 0..3 {
        pool.compute(4, 0.95, 2.0);
    }
    assert_eq!((pool.size(), pool.plan.is_exhausted()), (4, true), "no more than there may be");
    pool.compute(4, 0.8, 2.0);
    assert!(pool.plan.is_exhausted(), "that is still much");
    pool.compute(4, 0.6, 2.0);
    assert_eq!((pool.plan.is_exhausted(), pool.plan.is_spread()), (false, true), "one could not do it");
    pool.compute(4, 0.1, 2.0);
    assert!(!pool.plan.is_spread());
}

#[test]
fn no_instance_starts_where_no_core_is_left() {
    let mut pool = Pool::opened(BOUNDS);
    for _ in 0..5 {
        pool.compute(2, 0.95, 0.4);
    }
    assert_eq!((pool.size(), pool.plan.is_exhausted()), (1, true));
    pool.offer(0);
    pool.pass(Duration::from_secs(1));
    assert_eq!((pool.plan.is_spread(), pool.plan.is_exhausted()), (false, false), "there are no calls");
    let unknown = Effort { cores: vec![Some(1.0)], idle: None };
    for _ in 0..5 {
        pool.offer(2);
        pool.note_effort(&unknown);
    }
    assert_eq!((pool.size(), pool.plan.is_exhausted()), (1, false), "nobody knows");
}

#[test]
fn instance_that_computes_and_answers_nothing_gets_no_company() {
    let mut pool = Pool::opened(BOUNDS);
    pool.offer(1);
    for _ in 0..10 {
        pool.pass(Duration::from_secs(1));
        pool.plan.note_effort(&Effort { cores: vec![Some(1.0)], idle: Some(7.0) }, &pool.ready);
        pool.look();
    }
    assert_eq!((pool.size(), pool.plan.is_spread()), (1, false));
}
