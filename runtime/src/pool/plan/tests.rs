mod computing;
mod failing;
mod random;

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
