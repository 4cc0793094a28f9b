//! How QUIC is set up for links.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use super::congestion::AutoConfig;
use crate::identity::Identity;
use quinn::{
    AckFrequencyConfig, Endpoint, EndpointConfig, IdleTimeout, TokioRuntime, TransportConfig, VarInt,
    congestion::{BbrConfig, ControllerFactory, CubicConfig},
};
use quinn_proto::HashedConnectionIdGenerator;
use socket2::{Domain, Protocol, Socket, Type};

/// A peer that is silent for this long is lost.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(3);
/// How often a silent link is shown to be alive.
const KEEP_ALIVE: Duration = Duration::from_secs(1);
/// Wanted for each direction of the UDP socket; the kernel may grant less.
const SOCKET_BUFFER_BYTES: usize = 2 * 1024 * 1024;
/// Streams a peer may have open in each direction at once.
const STREAMS: u32 = 1024;

/// Where the round trip takes longer, losses take long to repair.
pub(super) const LONG_ROUND_TRIP: Duration = Duration::from_millis(5);

/// Packets a peer may receive before it acknowledges them; answers carry most acknowledgements anyway. What comes out of
/// order is acknowledged at once.
const ACK_EVERY: VarInt = VarInt::from_u32(10);

/// How fast a link sends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Congestion {
    /// Cubic, and BBR from the first loss on where the round trip takes more than 5 ms. The default.
    #[default]
    Auto,
    /// For networks that lose little, or only what does not fit.
    Cubic,
    /// For long ways that lose packets without being full.
    Bbr,
}

/// The transport parameters of every link.
pub fn transport(congestion: Congestion) -> Arc<TransportConfig> {
    let mut config = TransportConfig::default();
    let idle = IdleTimeout::try_from(IDLE_TIMEOUT).expect("3 s are within QUIC's range");
    let congestion: Arc<dyn ControllerFactory + Send + Sync> = match congestion {
        Congestion::Auto => Arc::new(AutoConfig::default()),
        Congestion::Cubic => Arc::new(CubicConfig::default()),
        Congestion::Bbr => Arc::new(BbrConfig::default()),
    };
    let mut acknowledgements = AckFrequencyConfig::default();
    acknowledgements.ack_eliciting_threshold(ACK_EVERY);
    config
        .ack_frequency_config(Some(acknowledgements))
        .max_idle_timeout(Some(idle))
        .keep_alive_interval(Some(KEEP_ALIVE))
        .max_concurrent_bidi_streams(VarInt::from_u32(STREAMS))
        .max_concurrent_uni_streams(VarInt::from_u32(STREAMS))
        .congestion_controller_factory(congestion);
    Arc::new(config)
}

/// The endpoint of a node. Its keys for resets and connection ids are the same after a restart, so that peers learn at
/// once that their connections are gone.
pub fn endpoint_config(identity: &Identity) -> EndpointConfig {
    let reset = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, &identity.derived_key("quic reset"));
    let mut config = EndpointConfig::new(Arc::new(reset));
    let ids = identity.derived_key("quic connection ids");
    let ids = u64::from_le_bytes(std::array::from_fn(|index| ids[index]));
    config.cid_generator(move || Box::new(HashedConnectionIdGenerator::from_key(ids)));
    config
}

/// Binds the UDP socket of a node. Call it within a tokio runtime, which then drives the endpoint.
///
/// # Errors
/// When the address cannot be bound.
pub fn bind(address: SocketAddr, config: EndpointConfig, server: Option<quinn::ServerConfig>) -> io::Result<Endpoint> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    // The kernel cuts them to its own limits, and small ones only cost speed.
    let _ = socket.set_recv_buffer_size(SOCKET_BUFFER_BYTES);
    let _ = socket.set_send_buffer_size(SOCKET_BUFFER_BYTES);
    socket.bind(&address.into())?;
    Endpoint::new(config, server, socket.into(), Arc::new(TokioRuntime))
}
