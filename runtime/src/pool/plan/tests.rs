use proptest::prelude::*;

use super::*;

const BOUNDS: Bounds =
    Bounds { min: 1, max: 4, concurrency: 10, keep_alive: Duration::from_secs(600), queue: 1000, quick_queue: 1000 };
const ON_A_CALL: Death = Death { in_flight: 1, answered: false, function: 0 };
const BETWEEN_CALLS: Death = Death { in_flight: 0, answered: false, function: 0 };

/// A pool whose instances do as the plan says, with a clock of its own.
struct Pool {
    plan: Plan,
    now: Instant,
    starting: BTreeMap<Id, Instant>,
    ready: Vec<Use>,
    queued: usize,
    head_since: Option<Instant>,
    started: usize,
    stopped: Vec<Id>,
}

impl Pool {
    fn new(bounds: Bounds) -> Self {
        let now = Instant::now();
        let mut plan = Plan::new(bounds);
        let actions = plan.open(now);
        let (starting, ready, stopped) = (BTreeMap::new(), Vec::new(), Vec::new());
        let mut pool = Self { plan, now, starting, ready, queued: 0, head_since: None, started: 0, stopped };
        pool.carry_out(actions);
        pool
    }

    /// With its first instance ready, whose start took 50 ms.
    fn opened(bounds: Bounds) -> Self {
        let mut pool = Self::new(bounds);
        pool.now += Duration::from_millis(50);
        pool.all_ready();
        pool
    }

    fn carry_out(&mut self, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::Start(id, at) => {
                    self.started += 1;
                    assert!(self.starting.insert(id, at).is_none(), "{id} is started twice");
                }
                Action::Stop(id) => {
                    let place = self.ready.iter().position(|it| it.id == id).expect("a ready one is stopped");
                    self.ready.remove(place);
                    self.stopped.push(id);
                }
            }
        }
    }

    fn handle(&mut self, event: Event) {
        let load = Load { queued: self.queued, head_since: self.head_since, instances: &self.ready };
        let actions = self.plan.handle(event, &load, self.now);
        self.carry_out(actions);
    }

    fn look(&mut self) {
        let load = Load { queued: self.queued, head_since: self.head_since, instances: &self.ready };
        let actions = self.plan.look(&load, self.now);
        self.carry_out(actions);
    }

    /// Lets time pass, looking when the plan wants to.
    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(at) = self.plan.next_look(self.now).filter(|at| *at <= end) {
            assert!(at > self.now, "it looks without pause");
            self.now = at;
            self.look();
        }
        self.now = end;
    }

    fn ready(&mut self, id: Id) {
        self.starting.remove(&id).unwrap();
        self.ready.push(Use { id, in_flight: 0, calls: 0, answered: false });
        self.handle(Event::Ready(id));
    }

    fn all_ready(&mut self) {
        while let Some(id) = self.starting.keys().next().copied() {
            self.ready(id);
        }
    }

    fn die(&mut self, death: Death) {
        let id = self.ready.remove(0).id;
        self.handle(Event::Lost(id, death));
    }

    fn fail_start(&mut self) {
        let id = self.starting.pop_first().unwrap().0;
        self.handle(Event::StartFailed(id));
    }

    /// Time until the next start.
    fn pause(&self) -> Duration {
        self.starting.values().min().unwrap().saturating_duration_since(self.now)
    }

    /// Gives the first instances as many calls as they take; the rest waits. A pool that does not look hears of it.
    fn offer(&mut self, mut calls: usize) {
        for it in &mut self.ready {
            it.in_flight = calls.min(self.plan.bounds.concurrency);
            it.calls += it.in_flight as u64;
            it.answered |= it.in_flight > 0;
            calls -= it.in_flight;
        }
        self.head_since = (calls > 0).then(|| self.head_since.unwrap_or(self.now));
        let rings = !self.plan.is_active() || (calls > 0 && self.queued == 0);
        self.queued = calls;
        if rings {
            self.look();
        }
    }

    /// A second of `calls` in flight in which each instance uses so many cores, and so many are left.
    fn compute(&mut self, calls: usize, cores: f64, idle: f64) {
        self.offer(calls);
        self.pass(Duration::from_secs(1));
        let effort = Effort { cores: vec![Some(cores); self.ready.len()], idle: Some(idle) };
        self.note_effort(&effort);
    }

    fn note_effort(&mut self, effort: &Effort) {
        // What it has in flight is answered in each second.
        self.ready.iter_mut().for_each(|it| it.calls += it.in_flight as u64);
        self.plan.note_effort(effort, &self.ready);
        self.look();
    }

    fn size(&self) -> usize {
        self.ready.len() + self.starting.len()
    }
}

#[test]
fn opens_with_the_minimum_at_once() {
    assert_eq!(Pool::new(Bounds { min: 3, ..BOUNDS }).started, 3);
    // One is needed to learn the functions.
    assert_eq!(Pool::new(Bounds { min: 0, ..BOUNDS }).started, 1);
}

#[test]
fn grows_at_once_when_the_queue_waits_longer_than_a_start() {
    let mut pool = Pool::opened(BOUNDS);
    pool.offer(35);
    assert_eq!(pool.size(), 1, "a short queue may be gone before an instance is there");
    pool.pass(Duration::from_millis(51));
    assert_eq!(pool.size(), 4, "as many as there are calls for");
    pool.pass(Duration::from_secs(1));
    assert_eq!(pool.size(), 4, "those that start count");
}

#[test]
fn grows_by_average_before_calls_wait() {
    let mut pool = Pool::opened(BOUNDS);
    pool.offer(6);
    pool.pass(Duration::from_secs(120));
    assert_eq!(pool.size(), 1);
    pool.offer(8);
    pool.pass(Duration::from_secs(7));
    assert_eq!(pool.size(), 2, "8 of 10 is more than 70 %");
}

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

#[test]
fn unused_instances_stop_after_keep_alive() {
    let mut pool = Pool::opened(BOUNDS);
    pool.offer(35);
    pool.pass(Duration::from_millis(51));
    pool.all_ready();
    pool.offer(3);
    pool.pass(Duration::from_secs(599));
    assert_eq!((pool.size(), pool.stopped.len()), (4, 0));
    pool.pass(Duration::from_secs(2));
    assert_eq!((pool.size(), pool.stopped.as_slice()), (1, [3, 2, 1].as_slice()), "all but the one that is used");
}

#[test]
fn idle_pool_does_not_look() {
    let mut pool = Pool::opened(BOUNDS);
    pool.offer(1);
    pool.pass(Duration::from_secs(5));
    pool.offer(0);
    pool.pass(Duration::from_secs(1));
    assert_eq!(pool.plan.next_look(pool.now), None);
}

#[test]
fn pool_without_minimum_stops_and_starts_on_demand() {
    let mut pool = Pool::opened(Bounds { min: 0, keep_alive: Duration::from_secs(1), ..BOUNDS });
    pool.offer(1);
    pool.pass(Duration::from_secs(5));
    assert_eq!(pool.size(), 1);
    pool.offer(0);
    pool.pass(Duration::from_secs(3));
    assert_eq!((pool.size(), pool.plan.next_look(pool.now)), (0, None));
    pool.offer(1);
    assert_eq!((pool.size(), pool.pause()), (1, Duration::ZERO));
}

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
