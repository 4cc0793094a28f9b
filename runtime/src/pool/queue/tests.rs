use std::{
    collections::VecDeque,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    task::Wake,
    thread,
};

use super::*;

const LIMITS: Limits = Limits { calls: 3, quick_calls: 3, bytes: 100 };

fn queue() -> Queue {
    Queue::new(LIMITS)
}

fn later() -> Deadline {
    Deadline::after(Instant::now(), Duration::from_secs(60))
}

struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, SeqCst);
    }
}

/// A turn whose wake-ups can be seen.
struct Watched<'a> {
    turn: Turn<'a>,
    woken: Arc<Woken>,
}

impl<'a> Watched<'a> {
    fn new(place: &Place<'a>) -> Self {
        let woken = Arc::new(Woken(AtomicBool::new(false)));
        Self { turn: place.line_up(later(), Instant::now()).unwrap(), woken }
    }

    /// Looks for room; says whether it was allowed to and found some.
    fn poll(&mut self, room: &mut usize) -> bool {
        self.poll_with(room, false)
    }

    /// Likewise, with room `elsewhere` or not.
    fn poll_with(&mut self, room: &mut usize, elsewhere: bool) -> bool {
        let waker = Waker::from(Arc::clone(&self.woken));
        let look = || match room.checked_sub(1) {
            Some(left) => {
                *room = left;
                Look::Found { what: (), room: left }
            }
            None => Look::Nothing { elsewhere },
        };
        self.turn.poll(&Context::from_waker(&waker), look).is_ready()
    }

    /// Looks, and finds that nobody is to wait any more; says whether it was allowed to.
    fn refuse(&mut self) -> bool {
        let waker = Waker::from(Arc::clone(&self.woken));
        self.turn.poll(&Context::from_waker(&waker), || Look::FoundByAll(())).is_ready()
    }

    fn take_woken(&self) -> bool {
        self.woken.0.swap(false, SeqCst)
    }
}

#[test]
fn limits_hold_and_places_are_given_back() {
    let queue = queue();
    let places: Vec<_> = (0..3).map(|_| queue.enter(30, Instant::now()).unwrap()).collect();
    assert_eq!(queue.enter(0, Instant::now()).unwrap_err(), Full::Calls(3));
    assert_eq!(queue.length(), Length { calls: 3, bytes: 90 });
    drop(places);
    assert_eq!(queue.length(), Length::default());
    let _place = queue.enter(90, Instant::now()).unwrap();
    assert_eq!(queue.enter(11, Instant::now()).unwrap_err(), Full::Bytes);
    assert!(queue.enter(10, Instant::now()).is_ok());
}

#[test]
fn single_large_call_may_wait() {
    let queue = queue();
    let _place = queue.enter(1 << 30, Instant::now()).unwrap();
    assert_eq!(queue.enter(1, Instant::now()).unwrap_err(), Full::Bytes);
}

#[test]
fn each_free_place_wakes_one_in_order() {
    let queue = queue();
    let places: Vec<_> = (0..3).map(|_| queue.enter(0, Instant::now()).unwrap()).collect();
    let mut turns: Vec<_> = places.iter().map(Watched::new).collect();
    let mut room = 0;
    assert!(turns.iter_mut().all(|turn| !turn.poll(&mut room)));
    queue.wake_one();
    assert_eq!(turns.iter().map(Watched::take_woken).collect::<Vec<_>>(), [true, false, false]);
    queue.wake_one();
    assert_eq!(turns.iter().map(Watched::take_woken).collect::<Vec<_>>(), [false, true, false]);
    room = 2;
    assert!(!turns[2].poll(&mut room), "nobody overtakes");
    assert!(turns[1].poll(&mut room) && turns[0].poll(&mut room));
}

#[test]
fn one_that_leaves_wakes_the_next_for_what_it_does_not_need() {
    let queue = queue();
    let places: Vec<_> = (0..3).map(|_| queue.enter(0, Instant::now()).unwrap()).collect();
    let mut turns: VecDeque<_> = places.iter().map(Watched::new).collect();
    let mut room = 0;
    turns.iter_mut().for_each(|turn| assert!(!turn.poll(&mut room)));
    queue.wake_one();
    drop(turns.pop_front());
    assert!(turns[0].take_woken(), "a wake-up is passed on");
    room = 2;
    assert!(turns[0].poll(&mut room));
    assert!(turns[1].take_woken(), "there was more room");
    assert!(turns[1].poll(&mut room));
    drop(turns);
    assert!(!queue.has_line());
}

#[test]
fn room_that_one_cannot_use_is_offered_to_the_next() {
    let queue = queue();
    let places: Vec<_> = (0..2).map(|_| queue.enter(0, Instant::now()).unwrap()).collect();
    let mut turns: Vec<_> = places.iter().map(Watched::new).collect();
    turns.iter_mut().for_each(|turn| assert!(!turn.poll(&mut 0)));
    queue.wake_one();
    assert!(!turns[0].poll_with(&mut 0, true), "its thread does not know the instance yet");
    assert!(turns[1].take_woken() && turns[1].poll(&mut 1));
    queue.wake_one();
    assert!(turns[0].take_woken() && turns[0].poll(&mut 1));
}

#[test]
fn reason_not_to_wait_reaches_those_that_joined_meanwhile() {
    let queue = queue();
    let places: Vec<_> = (0..3).map(|_| queue.enter(0, Instant::now()).unwrap()).collect();
    let mut turns: Vec<_> = places.iter().map(Watched::new).collect();
    for turn in &mut turns[1..] {
        assert!(!turn.poll(&mut 1), "it is not the first");
    }
    for index in 0..3 {
        assert!(turns[index].refuse());
        assert!(turns[index + 1..].first().is_none_or(Watched::take_woken));
    }
    assert!(!queue.has_line());
}

#[test]
fn room_that_is_taken_is_offered_to_nobody() {
    let queue = queue();
    let places: Vec<_> = (0..2).map(|_| queue.enter(0, Instant::now()).unwrap()).collect();
    let mut turns: Vec<_> = places.iter().map(Watched::new).collect();
    turns.iter_mut().for_each(|turn| assert!(!turn.poll(&mut 0)));
    queue.wake_one();
    assert!(turns[0].take_woken() && !turns[0].poll(&mut 0));
    assert!(!turns[1].take_woken(), "it would look in vain");
    queue.wake_one();
    assert!(turns[0].take_woken() && turns[0].poll(&mut 1), "it is still the first");
}

#[test]
fn room_that_others_were_woken_for_wakes_nobody_else() {
    let queue = queue();
    let places: Vec<_> = (0..3).map(|_| queue.enter(0, Instant::now()).unwrap()).collect();
    let mut turns: Vec<_> = places.iter().map(Watched::new).collect();
    turns.iter_mut().for_each(|turn| assert!(!turn.poll(&mut 0)));
    queue.wake_many(2);
    let mut room = 2;
    assert!(turns[0].poll(&mut room));
    assert!(!turns[2].take_woken(), "what is left is the second one's");
    assert!(turns[1].poll(&mut room));
}

#[test]
fn more_may_wait_while_they_are_served_quickly() {
    let since = Instant::now();
    let then = since + Duration::from_millis(500);
    // Nothing has left the line in half a second, but what is in flight may all be done.
    for (capacity, most) in [(1, 3), (2, 4), (100, 6)] {
        let queue = Queue::new(Limits { quick_calls: 6, ..LIMITS });
        queue.set_capacity(capacity, since);
        let places: Vec<_> = (0..3).map(|_| queue.enter(0, then).unwrap()).collect();
        assert_eq!(queue.enter(0, then).unwrap_err(), Full::Calls(3));
        let _turn = places[0].line_up(later(), since).unwrap();
        assert_eq!(queue.most_calls(then), most);
        let _more: Vec<_> = (3..most).map(|_| queue.enter(0, then).unwrap()).collect();
        assert_eq!(queue.enter(0, then).unwrap_err(), Full::Calls(most));
    }
}

#[test]
fn call_that_would_wait_past_its_deadline_is_refused() {
    let queue = Queue::new(Limits { calls: 100, ..LIMITS });
    let now = Instant::now();
    queue.set_capacity(1, now);
    let first = queue.enter(0, Instant::now()).unwrap();
    let _turn = first.line_up(later(), now).unwrap();
    let second = queue.enter(0, Instant::now()).unwrap();
    // In 2 s nothing left the line, so the second one waits 4 s at least.
    let then = now + Duration::from_secs(2);
    let deadline = |seconds| Deadline::after(then, Duration::from_secs(seconds));
    assert_eq!(second.line_up(deadline(3), then).unwrap_err(), Full::TooLong(Duration::from_secs(4)));
    assert!(second.line_up(deadline(5), then).is_ok());
}

/// Threads take turns at few places; every one gets its own, and none sleeps while there is room.
#[test]
fn no_wake_up_is_lost_between_threads() {
    const ROOM: usize = 3;
    let queue = Queue::new(Limits { calls: 64, ..LIMITS });
    let (used, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let take = || {
        let Ok(before) = used.fetch_update(SeqCst, SeqCst, |used| (used < ROOM).then_some(used + 1)) else {
            return Look::Nothing { elsewhere: false };
        };
        most.fetch_max(before + 1, Relaxed);
        Look::Found { what: (), room: ROOM - before - 1 }
    };
    let call = async || {
        if queue.has_line() || matches!(take(), Look::Nothing { .. }) {
            let place = queue.enter(1, Instant::now()).unwrap();
            let mut turn = place.line_up(later(), Instant::now()).unwrap();
            std::future::poll_fn(|cx| turn.poll(cx, take)).await;
        }
        tokio::task::yield_now().await;
        used.fetch_sub(1, SeqCst);
        queue.wake_one();
    };
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                let calls = async {
                    for _ in 0..500 {
                        let mut calls = (pin!(call()), pin!(call()), pin!(call()));
                        tokio::join!(calls.0.as_mut(), calls.1.as_mut(), calls.2.as_mut());
                    }
                };
                let all = runtime.block_on(async { tokio::time::timeout(Duration::from_secs(60), calls).await });
                all.expect("a call was never woken");
            });
        }
    });
    assert_eq!((used.load(SeqCst), queue.length()), (0, Length::default()));
    assert!(most.load(SeqCst) <= ROOM);
}
