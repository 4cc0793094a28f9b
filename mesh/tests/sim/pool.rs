//! The instances of one app on one node: how many calls they run at a time, and which wait.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use fnmesh_mesh::deployments::Replicas;

/// An app that is deployed on the whole mesh.
#[derive(Clone, Debug)]
pub(crate) struct Spec {
    pub(crate) name: Arc<str>,
    pub(crate) replicas: Replicas,
    /// Instances on one node at most.
    pub(crate) max_instances: usize,
    /// Calls in one instance at a time.
    pub(crate) concurrency: usize,
    /// Calls that may wait.
    pub(crate) queue: usize,
    /// How long a call takes: from half of it to half as much again.
    pub(crate) service: Duration,
}

/// One attempt to run a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Job {
    pub(super) call: usize,
    pub(super) attempt: u32,
}

/// What a pool asks for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    Run(Job),
    StartInstance,
}

#[derive(Debug)]
pub(super) struct Pool {
    spec: Arc<Spec>,
    /// Tells it from the one that was here before.
    pub(super) number: u64,
    instances: usize,
    starting: usize,
    running: usize,
    waiting: VecDeque<Job>,
    /// Calls that have begun to run.
    pub(super) counter: u64,
}

impl Pool {
    /// With one instance that is ready.
    pub(super) fn new(spec: Arc<Spec>, number: u64) -> Self {
        Self { spec, number, instances: 1, starting: 0, running: 0, waiting: VecDeque::new(), counter: 0 }
    }

    /// Takes a job; `false` if no more may wait.
    pub(super) fn admit(&mut self, job: Job, steps: &mut Vec<Step>) -> bool {
        if self.running >= self.capacity() && self.waiting.len() >= self.spec.queue {
            return false;
        }
        self.waiting.push_back(job);
        self.fill(steps);
        if !self.waiting.is_empty() && self.instances + self.starting < self.spec.max_instances {
            self.starting += 1;
            steps.push(Step::StartInstance);
        }
        true
    }

    pub(super) fn instance_started(&mut self, steps: &mut Vec<Step>) {
        self.starting -= 1;
        self.instances += 1;
        self.fill(steps);
    }

    /// What it was to run has ended.
    pub(super) fn finished(&mut self, steps: &mut Vec<Step>) {
        self.running -= 1;
        self.fill(steps);
    }

    /// A job that waits is wanted no more.
    pub(super) fn cancel(&mut self, job: Job) {
        self.waiting.retain(|other| *other != job);
    }

    /// Calls that run and wait.
    pub(super) fn calls(&self) -> usize {
        self.running + self.waiting.len()
    }

    /// Calls that can run at a time.
    pub(super) fn capacity(&self) -> usize {
        self.instances * self.spec.concurrency
    }

    /// Calls wait and no more instances can start.
    pub(super) fn is_saturated(&self) -> bool {
        !self.waiting.is_empty() && self.instances >= self.spec.max_instances
    }

    fn fill(&mut self, steps: &mut Vec<Step>) {
        while self.running < self.capacity()
            && let Some(job) = self.waiting.pop_front()
        {
            self.running += 1;
            self.counter += 1;
            steps.push(Step::Run(job));
        }
    }
}
