//! Where peers reach this node.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use crate::Config;

/// Whether the address is one of the machine's, which it may lose, and not given by the configuration.
pub(crate) fn is_found(config: &Config) -> bool {
    config.advertise.unwrap_or(config.address).ip().is_unspecified()
}

/// Where peers are told to reach a node that is bound to `bound`, and will first talk to one of `peers`.
pub(crate) fn first(config: &Config, bound: SocketAddr, peers: impl Iterator<Item = SocketAddr>) -> SocketAddr {
    let wanted = config.advertise.unwrap_or(bound);
    let port = if wanted.port() == 0 { bound.port() } else { wanted.port() };
    if !wanted.ip().is_unspecified() {
        return SocketAddr::new(wanted.ip(), port);
    }
    // An address for documentation (RFC 5737): the kernel looks up the way there and sends nothing.
    let default_route = SocketAddr::from(([192, 0, 2, 1], 9));
    let ip = peers.chain([default_route]).find_map(source_address);
    SocketAddr::new(ip.unwrap_or(Ipv4Addr::LOCALHOST.into()), port)
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
    use super::*;

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
