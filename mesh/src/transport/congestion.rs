//! Cubic, and BBR from when a long way turns out to lose packets.

use std::{any::Any, sync::Arc, time::Instant};

use quinn::congestion::{BbrConfig, Controller, ControllerFactory, ControllerMetrics, CubicConfig};
use quinn_proto::RttEstimator;

use super::quic::LONG_ROUND_TRIP;

/// Makes controllers that begin with cubic.
#[derive(Debug, Default)]
pub(super) struct AutoConfig {
    cubic: Arc<CubicConfig>,
    bbr: Arc<BbrConfig>,
}

/// The controller of one path.
struct Auto {
    config: Arc<AutoConfig>,
    controller: Box<dyn Controller>,
    mtu: u16,
    seen: Seen,
}

/// What is known of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Seen {
    NoLoss,
    Loss,
    /// Losses on a long way.
    LongAndLossy,
}

impl ControllerFactory for AutoConfig {
    fn build(self: Arc<Self>, now: Instant, current_mtu: u16) -> Box<dyn Controller> {
        let controller = Arc::clone(&self.cubic).build(now, current_mtu);
        Box::new(Auto { config: self, controller, mtu: current_mtu, seen: Seen::NoLoss })
    }
}

impl Controller for Auto {
    fn on_sent(&mut self, now: Instant, bytes: u64, last_packet_number: u64) {
        self.controller.on_sent(now, bytes, last_packet_number);
    }

    fn on_ack(&mut self, now: Instant, sent: Instant, bytes: u64, app_limited: bool, rtt: &RttEstimator) {
        // Not at the loss itself: the round trip is not told there. Here it has been measured, as a packet counts as
        // lost when a later one was acknowledged.
        if self.seen == Seen::Loss && rtt.min() > LONG_ROUND_TRIP {
            self.seen = Seen::LongAndLossy;
            self.controller = Arc::clone(&self.config.bbr).build(now, self.mtu);
        }
        self.controller.on_ack(now, sent, bytes, app_limited, rtt);
    }

    fn on_end_acks(&mut self, now: Instant, in_flight: u64, app_limited: bool, largest: Option<u64>) {
        self.controller.on_end_acks(now, in_flight, app_limited, largest);
    }

    fn on_congestion_event(&mut self, now: Instant, sent: Instant, is_persistent_congestion: bool, lost_bytes: u64) {
        if self.seen == Seen::NoLoss {
            self.seen = Seen::Loss;
        }
        self.controller.on_congestion_event(now, sent, is_persistent_congestion, lost_bytes);
    }

    fn on_mtu_update(&mut self, new_mtu: u16) {
        self.mtu = new_mtu;
        self.controller.on_mtu_update(new_mtu);
    }

    fn window(&self) -> u64 {
        self.controller.window()
    }

    fn metrics(&self) -> ControllerMetrics {
        self.controller.metrics()
    }

    fn clone_box(&self) -> Box<dyn Controller> {
        let (config, controller) = (Arc::clone(&self.config), self.controller.clone_box());
        Box::new(Self { config, controller, mtu: self.mtu, seen: self.seen })
    }

    fn initial_window(&self) -> u64 {
        self.controller.initial_window()
    }

    /// The controller in use, not this one.
    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self.controller.into_any()
    }
}
