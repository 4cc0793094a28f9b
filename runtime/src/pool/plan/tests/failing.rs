//! Starts that fail, and instances that die.

use super::*;

#[test]
fn instance_killed_by_a_call_is_replaced_at_once() {
    let mut pool = Pool::opened(BOUNDS);
    for _ in 0..100 {
        pool.die(Death { answered: true, ..ON_A_CALL });
        assert_eq!((pool.pause(), pool.plan.circuit(pool.now)), (Duration::ZERO, Circuit::Closed));
        pool.all_ready();
    }
}

#[test]
fn calls_of_one_deadly_function_are_never_refused() {
    let mut pool = Pool::opened(BOUNDS);
    for _ in 0..1000 {
        pool.die(ON_A_CALL);
        assert!(pool.pause() <= Duration::from_millis(250));
        assert_eq!(pool.plan.circuit(pool.now), Circuit::Closed);
        pool.now += pool.pause();
        pool.all_ready();
    }
    assert!(pool.plan.on_probation());
    pool.offer(1);
    pool.look();
    assert!(!pool.plan.on_probation(), "it has answered");
}

#[test]
fn app_that_dies_on_every_call_opens_the_circuit() {
    let mut pool = Pool::opened(BOUNDS);
    let open = |pool: &Pool| matches!(pool.plan.circuit(pool.now), Circuit::Open { .. });
    for deaths in 0..50 {
        assert!(!open(&pool));
        pool.die(Death { function: deaths % 2, ..ON_A_CALL });
        if open(&pool) {
            assert_eq!(deaths, 9);
            assert_eq!(pool.pause(), Duration::from_millis(400));
            pool.now += pool.pause();
            assert_eq!(pool.plan.circuit(pool.now), Circuit::HalfOpen);
            pool.all_ready();
            assert_eq!(pool.plan.circuit(pool.now), Circuit::HalfOpen, "until it answers");
            pool.offer(1);
            pool.look();
            assert_eq!(pool.plan.circuit(pool.now), Circuit::Closed);
            return;
        }
        pool.now += pool.pause();
        pool.all_ready();
    }
    panic!("the circuit stays closed");
}

#[test]
fn failing_starts_back_off_up_to_the_limit() {
    let mut pool = Pool::new(BOUNDS);
    pool.fail_start();
    assert_eq!((pool.pause().as_millis(), pool.plan.circuit(pool.now)), (100, Circuit::Closed));
    let pauses = std::iter::repeat_with(|| {
        pool.fail_start();
        let pause = pool.pause();
        assert_eq!(pool.plan.circuit(pool.now), Circuit::Open { until: pool.now + pause });
        pool.now += pause;
        pause.as_millis()
    });
    let pauses: Vec<_> = pauses.take(12).collect();
    assert_eq!(pauses[..3], [200, 400, 800]);
    assert_eq!(pauses[11], 30_000);
}

#[test]
fn deaths_between_calls_back_off_and_open_the_circuit() {
    let mut pool = Pool::opened(BOUNDS);
    for (pause, open) in [(100, false), (200, false), (400, true), (800, true)] {
        pool.die(BETWEEN_CALLS);
        assert_eq!(pool.pause(), Duration::from_millis(pause));
        assert_eq!(matches!(pool.plan.circuit(pool.now), Circuit::Open { .. }), open);
        pool.now += pool.pause();
        pool.all_ready();
    }
    // Living proves it as well.
    pool.pass(Duration::from_secs(31));
    assert_eq!(pool.plan.circuit(pool.now), Circuit::Closed);
    pool.die(BETWEEN_CALLS);
    assert_eq!(pool.pause(), Duration::from_millis(100));
}

#[test]
fn good_instance_does_not_hide_that_starts_fail() {
    let mut pool = Pool::opened(Bounds { min: 2, ..BOUNDS });
    pool.offer(1);
    pool.pass(TICK);
    pool.die(Death { in_flight: 0, answered: true, function: 0 });
    pool.offer(1);
    let mut pauses = Vec::new();
    for _ in 0..5 {
        pool.now += pool.pause();
        pool.fail_start();
        // The first failure was a death.
        pauses.push(pool.pause().as_millis());
        assert_eq!(pool.plan.circuit(pool.now), Circuit::HalfOpen, "calls are served");
    }
    assert_eq!(pauses, [200, 400, 800, 1600, 3200]);
}

#[test]
fn one_start_at_a_time_while_they_fail() {
    let mut pool = Pool::new(Bounds { min: 4, ..BOUNDS });
    for left in [3, 2, 1, 1, 1] {
        pool.fail_start();
        assert_eq!(pool.starting.len(), left);
    }
    pool.now += pool.pause();
    pool.all_ready();
    assert_eq!(pool.size(), 4);
}
