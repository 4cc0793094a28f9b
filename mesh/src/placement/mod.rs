//! Which nodes host an app. Pure: each node decides for itself, from what it knows of all.
//!
//! Nobody is in charge, so all rules follow from one order of the nodes, which differs from app to app and is the same
//! for all who look: rendezvous hashing ([Thaler and Ravishankar][hrw]). Where a host is missing, the first nodes in
//! that order that do not host the app begin to; where there are too many, the last hosts stop. Hosts stay hosts while
//! they serve: a node that comes back takes nothing away from who stood in for it.
//!
//! Nothing happens at the first sight of a cause: it must last for [`Config::patience`], so that a restart or a moment's
//! cut moves no app, and what is under way is waited for. Only an app that nobody serves begins elsewhere soon.
//!
//! [hrw]: https://www.eecs.umich.edu/techreports/cse/96/CSE-TR-316-96.pdf

mod growth;
#[cfg(test)]
mod tests;
mod view;

use std::{
    hash::BuildHasher,
    time::{Duration, Instant},
};

use growth::Growth;
use rustc_hash::FxBuildHasher;
pub use view::{View, has_room, load, sum};

use crate::{NodeId, deployments::Replicas, membership::Load};

/// When apps move.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// How long a host must be missing, or one too many. Default 10 s.
    pub patience: Duration,
    /// How long an app must be without any host. Default 1 s.
    pub outage: Duration,
    /// How long a pool must be saturated before its node asks a peer to host the app too. Default 500 ms.
    pub saturation: Duration,
    /// How long a peer that was asked may take until it says that it starts the app; who asked it asks no other
    /// meanwhile, nor while it starts. Default 5 s.
    pub start: Duration,
    /// How long new hosts have to take their share of the calls, before it is judged whether they are enough. Default
    /// 1 s.
    pub share: Duration,
    /// How long an app with [`Replicas::Auto`] must be without a call before a host gives it up. Default 10 min.
    pub keep_alive: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            patience: Duration::from_secs(10),
            outage: Duration::from_secs(1),
            saturation: Duration::from_millis(500),
            start: Duration::from_secs(5),
            share: Duration::from_secs(1),
            keep_alive: Duration::from_secs(600),
        }
    }
}

/// What is known of one node with regard to an app.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Site {
    /// Which node.
    pub node: NodeId,
    /// It takes calls, and may take another app.
    pub has_room: bool,
    /// It serves the app, or is about to: it was asked, or the app was just deployed there.
    pub hosts: bool,
    /// It serves the app already.
    pub serves: bool,
    /// How busy it is with all its apps.
    pub load: Load,
}

/// What a node does about an app.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Nothing.
    Stay,
    /// Fetch its bundle and host it.
    Host,
    /// Stop to announce it, drain it, and drop it.
    Retire,
    /// Ask this peer to host it.
    Ask(NodeId),
}

/// What this node itself knows of the app's load here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Demand {
    /// Its pool is as large as it may be, and calls wait.
    pub is_saturated: bool,
    /// How long no call has reached it here.
    pub idle: Duration,
    /// Its calls that run and wait.
    pub calls: usize,
    /// Its calls that can run at a time.
    pub capacity: usize,
    /// Grows with each call that begins to run.
    pub begun: u64,
}

/// One app on one node.
#[derive(Debug, Default)]
pub struct Placement {
    /// Since when there has been reason to host it or to retire it.
    wanted: Option<(Decision, Instant)>,
    growth: Growth,
}

impl Placement {
    /// What node `me` does about `app`, given all nodes that are members and serve (`me` among them). Call it whenever
    /// something changed, and each some 100 ms while `demand` is saturated; it decides once and waits for the effect.
    pub fn decide(
        &mut self,
        config: &Config,
        (me, app): (NodeId, &str),
        replicas: Replicas,
        sites: &[Site],
        demand: Demand,
        now: Instant,
    ) -> Decision {
        let Some(own) = sites.iter().find(|site| site.node == me) else {
            *self = Self::default();
            return Decision::Stay;
        };
        let wanted = match replicas {
            Replicas::All => {
                if own.hosts {
                    Decision::Stay
                } else {
                    Decision::Host
                }
            }
            Replicas::Count(count) => by_count(own, app, count.get(), sites),
            Replicas::Auto => by_demand(config, own, app, sites, demand),
        };
        let patience = match wanted {
            Decision::Host if replicas == Replicas::All => Duration::ZERO,
            Decision::Host if !sites.iter().any(|site| site.hosts) => config.outage,
            _ => config.patience,
        };
        let lasting = self.lasting(wanted, patience, now);
        if lasting == Decision::Stay && own.hosts && replicas == Replicas::Auto {
            return self.growth.ask(config, (own, app), sites, demand, now);
        }
        lasting
    }

    /// `wanted`, once it has been wanted for long enough; then it must be wanted for as long again.
    fn lasting(&mut self, wanted: Decision, patience: Duration, now: Instant) -> Decision {
        if wanted == Decision::Stay {
            self.wanted = None;
            return Decision::Stay;
        }
        let since = match self.wanted {
            Some((decision, since)) if decision == wanted => since,
            _ => now,
        };
        let is_due = now.saturating_duration_since(since) >= patience;
        self.wanted = Some((wanted, if is_due { now } else { since }));
        if is_due { wanted } else { Decision::Stay }
    }
}

fn by_count(own: &Site, app: &str, count: usize, sites: &[Site]) -> Decision {
    let hosts = sites.iter().filter(|site| site.hosts).count();
    if own.hosts {
        // The last of the hosts go.
        let better = sites.iter().filter(|site| site.hosts && comes_before(site, own, app)).count();
        return if better >= count { Decision::Retire } else { Decision::Stay };
    }
    let missing = count.saturating_sub(hosts);
    let before_me = sites.iter().filter(|site| !site.hosts && site.has_room && comes_before(site, own, app)).count();
    if own.has_room && before_me < missing { Decision::Host } else { Decision::Stay }
}

fn by_demand(config: &Config, own: &Site, app: &str, sites: &[Site], demand: Demand) -> Decision {
    if !own.hosts {
        // Somebody must serve it.
        return by_count(own, app, 1, sites);
    }
    // One at a time, and never the first: all hosts may be idle in the same moment.
    let is_last = !sites.iter().any(|site| site.hosts && comes_before(own, site, app));
    let is_only = !sites.iter().any(|site| site.hosts && site.node != own.node);
    if demand.idle >= config.keep_alive && is_last && !is_only { Decision::Retire } else { Decision::Stay }
}

fn comes_before(site: &Site, other: &Site, app: &str) -> bool {
    (rank(app, site.node), site.node) < (rank(app, other.node), other.node)
}

/// The first `count` of these nodes in the order of `app`: those that are to keep its bundle, whoever serves it.
pub fn first(app: &str, nodes: impl IntoIterator<Item = NodeId>, count: usize) -> Vec<NodeId> {
    let mut nodes: Vec<_> = nodes.into_iter().collect();
    nodes.sort_unstable_by_key(|node| (rank(app, *node), *node));
    nodes.truncate(count);
    nodes
}

/// The place of `node` in the order of `app`.
fn rank(app: &str, node: NodeId) -> u64 {
    FxBuildHasher.hash_one((app, node.to_bytes()))
}
