//! What holds whatever happens, in whatever order.

use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug)]
enum Step {
    Ready(usize),
    FailStart(usize),
    Die(usize, Death),
    Condemn(usize),
    Offer(usize),
    Pass(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let death = (0_usize..3, any::<bool>(), 0_u16..3).prop_map(|(in_flight, answered, function)| Death {
        in_flight,
        answered,
        function,
    });
    prop_oneof![
        3 => (0_usize..8).prop_map(Step::Ready),
        1 => (0_usize..8).prop_map(Step::FailStart),
        1 => (0_usize..8, death).prop_map(|(which, death)| Step::Die(which, death)),
        1 => (0_usize..8).prop_map(Step::Condemn),
        3 => (0_usize..60).prop_map(Step::Offer),
        3 => (1_u64..5_000).prop_map(Step::Pass),
    ]
}

impl Pool {
    fn step(&mut self, step: &Step) {
        match *step {
            Step::Ready(which) => {
                if let Some((&id, &at)) = self.starting.iter().nth(which) {
                    self.now = self.now.max(at);
                    self.ready(id);
                }
            }
            Step::FailStart(which) => {
                if let Some((&id, &at)) = self.starting.iter().nth(which) {
                    self.now = self.now.max(at);
                    self.starting.remove(&id);
                    self.handle(Event::StartFailed(id));
                }
            }
            Step::Die(which, death) if which < self.ready.len() => {
                let id = self.ready.remove(which).id;
                self.handle(Event::Lost(id, death));
            }
            Step::Condemn(which) if which < self.ready.len() => {
                let id = self.ready.remove(which).id;
                self.handle(Event::Condemned(id));
            }
            Step::Die(..) | Step::Condemn(_) => {}
            Step::Offer(calls) => {
                self.offer(calls);
                self.look();
            }
            Step::Pass(ms) => self.pass(Duration::from_millis(ms)),
        }
    }
}

proptest! {
    #[test]
    fn size_stays_within_the_bounds(
        min in 0_usize..4, more in 0_usize..4, steps in prop::collection::vec(step(), 0..150),
    ) {
        let (min, max) = (min, (min + more).max(1));
        let mut pool = Pool::new(Bounds { min, max, ..BOUNDS });
        for step in &steps {
            pool.step(step);
            prop_assert!(pool.size() <= max, "{} of {max}", pool.size());
            prop_assert_eq!(pool.plan.instances.len(), pool.size(), "an instance is forgotten");
            prop_assert!(pool.size() >= min || pool.plan.health.is_failing(), "{} of {min}", pool.size());
            prop_assert!(pool.size() > 0 || pool.queued == 0, "nobody serves the queue");
        }
        // Whatever happened, it recovers, and shrinks once nobody calls.
        pool.offer(0);
        pool.all_ready();
        for it in &mut pool.ready {
            it.answered = true;
        }
        pool.look();
        pool.all_ready();
        pool.pass(Duration::from_secs(3600));
        prop_assert_eq!((pool.ready.len(), pool.starting.len()), (min, 0));
        prop_assert_eq!(pool.plan.next_look(pool.now), None);
    }
}

proptest! {
    #[test]
    fn deaths_that_calls_of_one_function_explain_never_open_the_circuit(
        deaths in prop::collection::vec((1_usize..4, any::<bool>()), 0..100),
    ) {
        let mut pool = Pool::opened(BOUNDS);
        for (in_flight, answered) in deaths {
            pool.die(Death { in_flight, answered, function: 1 });
            prop_assert_eq!(pool.plan.circuit(pool.now), Circuit::Closed);
            prop_assert!(pool.pause() <= Duration::from_millis(250));
            pool.now += pool.pause();
            pool.all_ready();
        }
    }

    #[test]
    fn open_circuit_ends_within_the_longest_pause(steps in prop::collection::vec(step(), 0..150)) {
        let mut pool = Pool::new(BOUNDS);
        for step in &steps {
            pool.step(step);
            if let Circuit::Open { until } = pool.plan.circuit(pool.now) {
                prop_assert!(pool.ready.is_empty() && until > pool.now);
                prop_assert!(until <= pool.now + Duration::from_secs(30));
                prop_assert_eq!(pool.plan.circuit(until), Circuit::HalfOpen);
            }
        }
    }
}

proptest! {
    // Each case takes a quarter of an hour, looked at five times a second.
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn steady_load_does_not_make_the_size_flap(
        calls in 0_usize..60, keep_alive in 1_u64..700, min in 0_usize..2, concurrency in 1_usize..20,
    ) {
        let keep_alive = Duration::from_secs(keep_alive);
        let mut pool = Pool::opened(Bounds { min, concurrency, keep_alive, max: 6, ..BOUNDS });
        let serve = |pool: &mut Pool, seconds: u64| {
            for _ in 0..seconds * 5 {
                pool.offer(calls);
                pool.pass(TICK);
                pool.all_ready();
            }
        };
        serve(&mut pool, 70);
        let (started, stopped) = (pool.started, pool.stopped.len());
        serve(&mut pool, 800);
        prop_assert_eq!(pool.started, started);
        // What the beginning had too many of may go, once.
        prop_assert!(pool.stopped.len() - stopped <= started);
    }
}
