//! What a node does with the calls that it runs, its own and those of peers.

use std::{collections::VecDeque, time::Duration};

use fnmesh_invoke::Error;
use fnmesh_mesh::membership::Load;

use super::{
    Item, World, announce,
    entry::{RESEND, late, unreachable},
    pool::{Job, Pool, Step},
    work::{Call, End, Task},
};

/// How long a further instance takes to start.
const INSTANCE: Duration = Duration::from_millis(60);

impl World {
    /// A call came over the network, to a node as it was in that life.
    pub(super) fn requested(&mut self, node: usize, job: Job, life: u32) {
        let Call { app, entry, deadline, .. } = self.work.calls[job.call];
        if self.network.cuts.contains(&(entry, node)) {
            // QUIC sends it again for as long as there is a link.
            if self.is_in_flight(job) {
                self.push(RESEND, Item::Task { node, life: None, task: Task::Request { job, life } });
            }
            return;
        }
        if self.nodes[node].membership.is_none() || self.nodes[node].life != life {
            return;
        }
        let refused = if self.nodes[node].hosting.as_ref().and_then(|hosting| hosting.pool(app)).is_none() {
            Some(unreachable("it does not serve it any more"))
        } else if self.now >= deadline {
            Some(late(self.function(app)))
        } else {
            self.admit(node, app, job).err()
        };
        if let Some(error) = refused {
            self.reply(node, job, Err(error));
        }
    }

    /// Gives a job to the pool of a node that serves the app.
    pub(super) fn admit(&mut self, node: usize, app: usize, job: Job) -> Result<(), Error> {
        let pool = self.nodes[node].hosting.as_mut().and_then(|hosting| hosting.pool_mut(app));
        let Some(pool) = pool else { return Err(unreachable("it does not serve it any more")) };
        let (number, mut steps) = (pool.number, Vec::new());
        let is_admitted = pool.admit(job, &mut steps);
        self.take(node, app, number, steps);
        let full = || Error::Throttled { reason: "queue".to_owned(), retry_after: Duration::from_secs(1), rate: false };
        if is_admitted { Ok(()) } else { Err(full()) }
    }

    pub(super) fn step(&mut self, node: usize, app: usize, number: u64, step: impl FnOnce(&mut Pool, &mut Vec<Step>)) {
        let mut steps = Vec::new();
        if let Some(pool) = self.nodes[node].hosting.as_mut().and_then(|hosting| hosting.numbered(app, number)) {
            step(pool, &mut steps);
        }
        self.take(node, app, number, steps);
    }

    fn take(&mut self, node: usize, app: usize, pool: u64, steps: Vec<Step>) {
        let life = Some(self.nodes[node].life);
        let mut steps = VecDeque::from(steps);
        while let Some(step) = steps.pop_front() {
            match step {
                Step::StartInstance => {
                    self.push(INSTANCE, Item::Task { node, life, task: Task::Instance { app, pool } })
                }
                // It has waited for too long.
                Step::Run(job) if self.now >= self.work.calls[job.call].deadline => {
                    let mut more = Vec::new();
                    if let Some(pool) =
                        self.nodes[node].hosting.as_mut().and_then(|hosting| hosting.numbered(app, pool))
                    {
                        pool.finished(&mut more);
                    }
                    steps.extend(more);
                }
                Step::Run(job) => {
                    self.work.calls[job.call].executions += 1;
                    let takes = self.work.specs[app].service.mul_f64((0.5 + self.rng.f64()) * self.nodes[node].pace);
                    self.push(takes, Item::Task { node, life, task: Task::Finished { app, pool, job } });
                }
            }
        }
    }

    /// A job has run on a node.
    pub(super) fn ran(&mut self, node: usize, job: Job) {
        let Call { app, entry, attempt, at, ref end, .. } = self.work.calls[job.call];
        if entry != node {
            let pool = self.nodes[node].hosting.as_ref().and_then(|hosting| hosting.pool(app));
            let load = pool.filter(|pool| pool.is_saturated()).map(announce::load);
            self.reply(node, job, Ok(load));
        } else if attempt == job.attempt && at.is_none() && end.is_none() {
            self.end(job.call, End::Answered(node));
        }
    }

    fn reply(&mut self, from: usize, job: Job, answer: Result<Option<Load>, Error>) {
        let to = self.work.calls[job.call].entry;
        let after = self.latency(from, to) + self.repeats();
        self.push(after, Item::Task { node: to, life: None, task: Task::Reply { from, job, answer } });
    }
}
