use std::{num::NonZero, time::Duration};

/// How a node watches its peers and spreads news. All members of a mesh should have the same.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Each period one member is probed. Default 250 ms.
    pub probe_period: Duration,
    /// How long a probe waits before others are asked to probe too; less than the period. Default 100 ms.
    pub probe_rtt: Duration,
    /// How many others are asked. Default 3.
    pub indirect_probes: NonZero<usize>,
    /// How long a mesh of up to 10 nodes waits for a suspect to show that it lives; a larger one waits
    /// `log10(nodes)` times as long. Default 0.9 s.
    pub suspicion: Duration,
    /// How often news is passed on while there is any. Default 200 ms.
    pub gossip_period: Duration,
    /// To how many members. Default 3.
    pub gossip_members: NonZero<usize>,
    /// How long a dead member is remembered, and tried again now and then. Default 24 h.
    pub forget: Duration,
    /// How often a node compares what it knows with another, give or take a fifth. Default 10 s.
    pub sync_period: Duration,
    /// How often up to two dead members are tried again. Default 5 s; 1 s while no member is there.
    pub heal_period: Duration,
    /// The shortest time between two versions of the own record. Default 250 ms.
    pub announce_period: Duration,
    /// The shortest time between two versions that differ in load alone: 5 s, or 0.2 s for each member if that is more.
    pub load_period: Duration,
    /// The longest message. Default 1,100 bytes, what fits a QUIC datagram on any path.
    pub max_message_bytes: NonZero<usize>,
}

impl Default for Config {
    fn default() -> Self {
        const THREE: NonZero<usize> = NonZero::new(3).expect("3 is not 0");
        const BYTES: NonZero<usize> = NonZero::new(1_100).expect("1,100 is not 0");
        Self {
            probe_period: Duration::from_millis(250),
            probe_rtt: Duration::from_millis(100),
            indirect_probes: THREE,
            suspicion: Duration::from_millis(900),
            gossip_period: Duration::from_millis(200),
            gossip_members: THREE,
            forget: Duration::from_secs(24 * 60 * 60),
            sync_period: Duration::from_secs(10),
            heal_period: Duration::from_secs(5),
            announce_period: Duration::from_millis(250),
            load_period: Duration::from_secs(5),
            max_message_bytes: BYTES,
        }
    }
}

impl Config {
    /// What SWIM needs to know when there are `nodes` nodes.
    pub(super) fn swim(&self, nodes: usize) -> foca::Config {
        foca::Config {
            probe_period: self.probe_period,
            probe_rtt: self.probe_rtt,
            num_indirect_probes: self.indirect_probes,
            max_transmissions: transmissions(nodes),
            suspect_to_down_after: self.suspicion.mul_f64(magnitude(nodes)),
            remove_down_after: Some(self.forget),
            max_packet_size: self.max_message_bytes,
            notify_down_members: true,
            // `Membership` compares whole views and revives the dead itself: foca does neither while no member is left.
            periodic_announce: None,
            periodic_announce_to_down_members: None,
            periodic_gossip: Some(foca::PeriodicParams {
                frequency: self.gossip_period,
                num_members: self.gossip_members,
            }),
        }
    }

    /// The shortest time between two versions that differ in load alone, among `nodes` nodes: all of them together
    /// make at most five such versions a second.
    pub(super) fn load_pause(&self, nodes: usize) -> Duration {
        self.load_period.max(Duration::from_millis(200) * u32::try_from(nodes).unwrap_or(u32::MAX))
    }
}

fn magnitude(nodes: usize) -> f64 {
    (nodes as f64).log10().max(1.0)
}

/// How often a node passes on one piece of news. A member misses it with a probability of about `e^-this`; memberlist's
/// `4 log10(n + 1)` would leave somebody out of date each few changes until the next comparison of views.
fn transmissions(nodes: usize) -> NonZero<u8> {
    NonZero::new((8.0 * magnitude(nodes)).ceil().clamp(8.0, 80.0) as u8).expect("at least 8")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patience_grows_with_the_logarithm_of_the_mesh() {
        let config = Config::default();
        for (nodes, suspicion, transmissions) in [(1, 900, 8), (10, 900, 8), (100, 1_800, 16), (1_000, 2_700, 24)] {
            let swim = config.swim(nodes);
            assert_eq!(swim.suspect_to_down_after.as_millis(), suspicion, "{nodes}");
            assert_eq!(swim.max_transmissions.get(), transmissions, "{nodes}");
        }
    }

    #[test]
    fn all_nodes_together_make_few_versions_for_load() {
        let config = Config::default();
        assert_eq!(config.load_pause(3), Duration::from_secs(5));
        assert_eq!(config.load_pause(1_000), Duration::from_secs(200));
    }
}
