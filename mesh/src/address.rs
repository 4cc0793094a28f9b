//! Where peers reach this node.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use crate::Config;

/// Whether the address is one of the machine's, which it may lose, and not given by the configuration.
pub(crate) fn is_found(config: &Config) -> bool {
    config.advertise.unwrap_or(config.address).ip().is_unspecified()
}

/// Where peers are told to reach a node that is bound to `bound`, and will first talk to one of `peers`.
pub(crate) fn first(config: &Config, bound: SocketAddr, peers: impl Iterator<Item = SocketAddr>) -> SocketAddr {
    first_by(source_address, config, bound, peers)
}

/// The same on a machine that sends from where `source` says.
fn first_by(
    source: impl FnMut(SocketAddr) -> Option<IpAddr>,
    config: &Config,
    bound: SocketAddr,
    peers: impl Iterator<Item = SocketAddr>,
) -> SocketAddr {
    let wanted = config.advertise.unwrap_or(bound);
    let port = if wanted.port() == 0 { bound.port() } else { wanted.port() };
    if !wanted.ip().is_unspecified() {
        return SocketAddr::new(wanted.ip(), port);
    }
    // An address for documentation (RFC 5737): the kernel looks up the way there and sends nothing.
    let default_route = SocketAddr::from(([192, 0, 2, 1], 9));
    let ip = peers.chain([default_route]).find_map(source);
    let address = SocketAddr::new(ip.unwrap_or(Ipv4Addr::LOCALHOST.into()), port);
    if ip.is_none() {
        tracing::warn!(
            target: "fnmesh::mesh",
            %address,
            "this machine has no default route: other nodes are told an address at which only this machine reaches this \
             one; say with --advertise where they reach it"
        );
    }
    address
}

/// Where peers reach this node from now on, if the machine no longer has the address it was reached at.
pub(crate) fn moved(present: SocketAddr, mut peers: impl Iterator<Item = SocketAddr>) -> Option<SocketAddr> {
    let is_here = UdpSocket::bind((present.ip(), 0)).is_ok();
    let found = if is_here { None } else { peers.find_map(source_address) };
    found.map(|ip| SocketAddr::new(ip, present.port()))
}

/// The address this machine sends from towards `destination`.
fn source_address(destination: SocketAddr) -> Option<IpAddr> {
    let any: IpAddr = if destination.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0)).ok()?;
    socket.connect(destination).ok()?;
    socket.local_addr().ok().map(|address| address.ip())
}

#[cfg(test)]
mod tests {
    use std::{
        io::{self, Write},
        sync::{Arc, Mutex},
    };

    use super::*;
    use crate::{membership, transport::quic::Congestion};

    #[derive(Clone, Default)]
    struct Log(Arc<Mutex<Vec<u8>>>);

    impl Write for Log {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// What a first node tells others on a machine that sends from `source`, and what it logs.
    fn first_of(advertise: Option<&str>, source: Option<IpAddr>) -> (String, String) {
        let config = Config {
            address: (Ipv4Addr::UNSPECIFIED, 7100).into(),
            advertise: advertise.map(|address| address.parse().unwrap()),
            name: String::new(),
            zone: String::new(),
            directory: "n1".into(),
            join: None,
            congestion: Congestion::Cubic,
            membership: membership::Config::default(),
        };
        let (log, bound) = (Log::default(), config.address);
        let written = log.clone();
        let subscriber = tracing_subscriber::fmt().with_writer(move || written.clone()).finish();
        let address =
            tracing::subscriber::with_default(subscriber, || first_by(|_| source, &config, bound, std::iter::empty()));
        let log = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
        (address.to_string(), log)
    }

    #[test]
    fn address_that_nobody_else_can_use_is_not_told_in_silence() {
        let (address, log) = first_of(None, None);
        assert_eq!(address, "127.0.0.1:7100");
        assert!(log.contains("WARN") && log.contains("--advertise") && log.contains("127.0.0.1:7100"), "{log}");
        let (address, log) = first_of(None, Some([10, 0, 0, 1].into()));
        assert_eq!((&*address, &*log), ("10.0.0.1:7100", ""));
        let (address, log) = first_of(Some("10.0.0.9:0"), None);
        assert_eq!((&*address, &*log), ("10.0.0.9:7100", ""));
    }

    #[test]
    fn address_is_kept_while_the_machine_has_it() {
        let present = SocketAddr::from(([127, 0, 0, 1], 7100));
        assert_eq!(moved(present, [SocketAddr::from(([127, 0, 0, 2], 1))].into_iter()), None);
    }

    #[test]
    fn lost_address_gives_way_to_the_one_towards_a_peer() {
        // Of a network for documentation (RFC 5737), which no machine is in.
        let lost = SocketAddr::from(([203, 0, 113, 1], 7100));
        let peer = SocketAddr::from(([127, 0, 0, 2], 1));
        assert_eq!(moved(lost, [peer].into_iter()), Some(SocketAddr::from(([127, 0, 0, 1], 7100))));
        assert_eq!(moved(lost, std::iter::empty()), None);
    }
}
