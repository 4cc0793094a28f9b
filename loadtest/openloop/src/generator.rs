//! One thread's loop: sends each call when it is due, notes each answer when it comes.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::thread;
use std::time::{Duration, Instant};

use rustix::buffer::spare_capacity;
use rustix::event::{PollFd, PollFlags, Timespec, epoll, poll};

use crate::connection::{Call, Connection, End};
use crate::schedule::Schedule;
use crate::tally::Tally;

/// What to send, where to, and how long to wait for it.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    /// The server.
    pub(crate) to: SocketAddr,
    /// The whole request.
    pub(crate) request: Vec<u8>,
    /// Connections of this thread; at least one.
    pub(crate) connections: usize,
    /// From when a call is sent until it is given up.
    pub(crate) timeout: Duration,
    /// To sleep whatever is due or has come; zero to wake for each call and each answer.
    pub(crate) grain: Duration,
    /// Calls due before this moment warm up and are not counted.
    pub(crate) counted_from: Instant,
    /// When the last call is due.
    pub(crate) over: Instant,
    /// How long after that answers are waited for, and late calls sent.
    pub(crate) drain: Duration,
}

/// How often calls are checked for their timeout.
const SWEEP: Duration = Duration::from_millis(50);

/// Runs a schedule to its end.
///
/// # Errors
/// When the system refuses to watch sockets. What a server does is no error but counted.
pub(crate) fn run(plan: &Plan, schedule: Schedule) -> io::Result<Tally> {
    let mut generator = Generator {
        plan,
        schedule,
        poll: epoll::create(epoll::CreateFlags::CLOEXEC)?,
        connections: (0..plan.connections).map(|_| Connection::default()).collect(),
        idle: (0..plan.connections).map(|key| (key, plan.counted_from)).collect(),
        in_flight: 0,
        waiting: false,
        next_sweep: Instant::now() + SWEEP,
        tally: Tally::new(plan.over - plan.counted_from),
    };
    generator.run()?;
    Ok(generator.tally)
}

struct Generator<'a> {
    plan: &'a Plan,
    schedule: Schedule,
    poll: OwnedFd,
    connections: Vec<Connection>,
    /// Those without a call and since when, the longest idle first: all of them stay in use.
    idle: VecDeque<(usize, Instant)>,
    in_flight: usize,
    /// A call has been due while no connection was idle.
    waiting: bool,
    next_sweep: Instant,
    tally: Tally,
}

impl Generator<'_> {
    fn run(&mut self) -> io::Result<()> {
        let end = self.plan.over + self.plan.drain;
        let mut buffer = vec![0; 64 * 1024];
        let mut events = Vec::with_capacity(1024);
        loop {
            self.send_due();
            let now = Instant::now();
            if now >= self.next_sweep {
                self.sweep(now);
            }
            if now >= end || (self.in_flight == 0 && self.schedule.next_due().is_none()) {
                break;
            }
            self.wait(now, end)?;
            events.clear();
            epoll::wait(&self.poll, spare_capacity(&mut events), Some(&Timespec::default()))?;
            for event in &events {
                self.advance(event.data.u64() as usize, &mut buffer);
            }
        }
        self.give_up(end.min(Instant::now()));
        Ok(())
    }

    /// Sends all calls that are due, as far as there are idle connections.
    fn send_due(&mut self) {
        loop {
            let now = Instant::now();
            let Some(&(key, idle_since)) = self.idle.front() else {
                self.waiting |= self.schedule.next_due().is_some_and(|due| due <= now);
                return;
            };
            let Some(due) = self.schedule.take(now) else {
                self.waiting = false;
                return;
            };
            self.idle.pop_front();
            let counted = due >= self.plan.counted_from;
            if counted {
                self.tally.sent += 1;
                self.tally.waited += u64::from(self.waiting);
                self.tally.lag(now - due.max(idle_since).min(now));
            }
            let (plan, connection) = (self.plan, &mut self.connections[key]);
            match connection.send(Call::new(due, now), &plan.request, plan.to, &self.poll, key as u64) {
                Ok(()) => self.in_flight += 1,
                Err(_) => {
                    self.tally.errors += u64::from(counted);
                    self.idle.push_back((key, now));
                }
            }
        }
    }

    /// Sleeps until something is to be read or done; to the microsecond, which `epoll_wait` cannot on older kernels.
    fn wait(&self, now: Instant, end: Instant) -> io::Result<()> {
        if !self.plan.grain.is_zero() {
            thread::sleep(self.plan.grain);
            return Ok(());
        }
        let due = self.schedule.next_due().filter(|_| !self.idle.is_empty()).unwrap_or(end);
        let time = due.min(self.next_sweep).min(end).saturating_duration_since(now);
        let time = Timespec { tv_sec: time.as_secs() as _, tv_nsec: time.subsec_nanos() as _ };
        match poll(&mut [PollFd::new(&self.poll, PollFlags::IN)], Some(&time)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn advance(&mut self, key: usize, buffer: &mut [u8]) {
        let due = self.connections[key].call().map(|call| call.due);
        let Some(end) = self.connections[key].advance(&self.plan.request, buffer) else { return };
        let now = Instant::now();
        self.in_flight -= 1;
        self.idle.push_back((key, now));
        if due.is_none_or(|due| due < self.plan.counted_from) {
            return;
        }
        match end {
            End::Answered(call, answer) => {
                let at = now - self.plan.counted_from;
                self.tally.answer(answer.status, at, now - call.due, now - call.sent);
            }
            End::Broken => self.tally.errors += 1,
        }
    }

    /// Gives up calls that have had their time.
    fn sweep(&mut self, now: Instant) {
        self.next_sweep = now + SWEEP;
        for (key, connection) in self.connections.iter_mut().enumerate() {
            let Some(call) = connection.call().filter(|call| now - call.sent >= self.plan.timeout) else { continue };
            if call.due >= self.plan.counted_from {
                self.tally.timeouts += 1;
                self.tally.no_answer(now - call.due);
            }
            connection.close();
            self.in_flight -= 1;
            self.idle.push_back((key, now));
        }
    }

    /// Counts what is still under way, and what could not even be sent.
    fn give_up(&mut self, now: Instant) {
        let under_way = self.connections.iter().filter_map(|connection| connection.call().map(|call| call.due));
        let unsent = std::iter::from_fn(|| self.schedule.take(now));
        for due in under_way.chain(unsent).filter(|due| *due >= self.plan.counted_from) {
            self.tally.unanswered += 1;
            self.tally.no_answer(now - due);
        }
    }
}
