//! Members and headers as bytes. Numbers are LEB128 but for ports, which are big endian.
//!
//! ```text
//! identity = node (16) | 4 or 6 (1) | IP (4 or 16) | port (2) | generation | renewals
//! member   = identity | incarnation | state (1)
//! header   = sender's identity | its incarnation | receiver's identity | message (1) | [probe number (1)] | [identity]
//! ```

use std::net::{IpAddr, SocketAddr};

use bytes::{Buf, BufMut};
use foca::{Header, Member, Message, State};

use super::identity::Identity;
use crate::NodeId;

/// Why bytes are no message of a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Error {
    #[error("the message ends too early")]
    Truncated,
    #[error("the message has {value} for its {what}, which means nothing")]
    Unknown { what: &'static str, value: u64 },
    #[error("the message is full")]
    Full,
}

/// The codec; it keeps a buffer between messages.
#[derive(Debug, Default)]
pub(super) struct Codec {
    scratch: Vec<u8>,
}

impl Codec {
    /// foca forbids half an item in a buffer without room for all of it.
    fn flush(&self, mut buf: impl BufMut) -> Result<(), Error> {
        if buf.remaining_mut() < self.scratch.len() {
            return Err(Error::Full);
        }
        buf.put_slice(&self.scratch);
        Ok(())
    }
}

impl foca::Codec<Identity> for Codec {
    type Error = Error;

    fn encode_header(&mut self, header: &Header<Identity>, buf: impl BufMut) -> Result<(), Error> {
        self.scratch.clear();
        let out = &mut self.scratch;
        put_identity(out, &header.src);
        put_number(out, header.src_incarnation.into());
        put_identity(out, &header.dst);
        put_message(out, &header.message);
        self.flush(buf)
    }

    fn decode_header(&mut self, mut buf: impl Buf) -> Result<Header<Identity>, Error> {
        let src = identity(&mut buf)?;
        let src_incarnation = small_number(&mut buf, "incarnation")?;
        let dst = identity(&mut buf)?;
        Ok(Header { src, src_incarnation, dst, message: message(&mut buf)? })
    }

    fn encode_member(&mut self, member: &Member<Identity>, buf: impl BufMut) -> Result<(), Error> {
        self.scratch.clear();
        put_identity(&mut self.scratch, member.id());
        put_number(&mut self.scratch, member.incarnation().into());
        self.scratch.push(match member.state() {
            State::Alive => 0,
            State::Suspect => 1,
            State::Down => 2,
        });
        self.flush(buf)
    }

    fn decode_member(&mut self, mut buf: impl Buf) -> Result<Member<Identity>, Error> {
        let id = identity(&mut buf)?;
        let incarnation = small_number(&mut buf, "incarnation")?;
        let state = match byte(&mut buf)? {
            0 => State::Alive,
            1 => State::Suspect,
            2 => State::Down,
            other => return Err(Error::Unknown { what: "state", value: other.into() }),
        };
        Ok(Member::new(id, incarnation, state))
    }
}

pub(super) fn put_identity(out: &mut Vec<u8>, identity: &Identity) {
    out.extend_from_slice(&identity.node.to_bytes());
    match identity.address.ip() {
        IpAddr::V4(ip) => {
            out.push(4);
            out.extend_from_slice(&ip.octets());
        }
        IpAddr::V6(ip) => {
            out.push(6);
            out.extend_from_slice(&ip.octets());
        }
    }
    out.extend_from_slice(&identity.address.port().to_be_bytes());
    put_number(out, identity.generation);
    put_number(out, identity.renewals.into());
}

pub(super) fn identity(buf: &mut impl Buf) -> Result<Identity, Error> {
    let node = NodeId::from_bytes(array(buf)?);
    let ip = match byte(buf)? {
        4 => IpAddr::from(array::<4>(buf)?),
        6 => IpAddr::from(array::<16>(buf)?),
        other => return Err(Error::Unknown { what: "kind of address", value: other.into() }),
    };
    let port = u16::from_be_bytes(array(buf)?);
    let generation = number(buf)?;
    let renewals = small_number(buf, "count of renewals")?;
    Ok(Identity { node, address: SocketAddr::new(ip, port), generation, renewals })
}

pub(super) fn put_number(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

pub(super) fn number(buf: &mut impl Buf) -> Result<u64, Error> {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let byte = byte(buf)?;
        // The tenth byte has room for one more bit.
        if shift == 63 && byte > 1 {
            break;
        }
        number |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Ok(number);
        }
    }
    Err(Error::Unknown { what: "number, of more than 64 bits,", value: number })
}

fn small_number(buf: &mut impl Buf, what: &'static str) -> Result<u16, Error> {
    let value = number(buf)?;
    u16::try_from(value).map_err(|_| Error::Unknown { what, value })
}

pub(super) fn byte(buf: &mut impl Buf) -> Result<u8, Error> {
    buf.try_get_u8().map_err(|_| Error::Truncated)
}

pub(super) fn array<const N: usize>(buf: &mut impl Buf) -> Result<[u8; N], Error> {
    let mut bytes = [0; N];
    buf.try_copy_to_slice(&mut bytes).map_err(|_| Error::Truncated)?;
    Ok(bytes)
}

fn put_message(out: &mut Vec<u8>, message: &Message<Identity>) {
    match message {
        Message::Ping(probe) => out.extend_from_slice(&[0, *probe]),
        Message::Ack(probe) => out.extend_from_slice(&[1, *probe]),
        Message::PingReq { target, probe_number } => put_indirect(out, 2, *probe_number, target),
        Message::IndirectPing { origin, probe_number } => put_indirect(out, 3, *probe_number, origin),
        Message::IndirectAck { target, probe_number } => put_indirect(out, 4, *probe_number, target),
        Message::ForwardedAck { origin, probe_number } => put_indirect(out, 5, *probe_number, origin),
        Message::Announce => out.push(6),
        Message::Feed => out.push(7),
        Message::Gossip => out.push(8),
        Message::Broadcast => out.push(9),
        Message::TurnUndead => out.push(10),
    }
}

fn put_indirect(out: &mut Vec<u8>, kind: u8, probe: u8, other: &Identity) {
    out.extend_from_slice(&[kind, probe]);
    put_identity(out, other);
}

fn message(buf: &mut impl Buf) -> Result<Message<Identity>, Error> {
    Ok(match byte(buf)? {
        0 => Message::Ping(byte(buf)?),
        1 => Message::Ack(byte(buf)?),
        2 => Message::PingReq { probe_number: byte(buf)?, target: identity(buf)? },
        3 => Message::IndirectPing { probe_number: byte(buf)?, origin: identity(buf)? },
        4 => Message::IndirectAck { probe_number: byte(buf)?, target: identity(buf)? },
        5 => Message::ForwardedAck { probe_number: byte(buf)?, origin: identity(buf)? },
        6 => Message::Announce,
        7 => Message::Feed,
        8 => Message::Gossip,
        9 => Message::Broadcast,
        10 => Message::TurnUndead,
        other => return Err(Error::Unknown { what: "kind", value: other.into() }),
    })
}

#[cfg(test)]
mod tests {
    use foca::Codec as _;
    use proptest::prelude::*;

    use super::*;

    fn identities() -> impl Strategy<Value = Identity> {
        (any::<[u8; 16]>(), any::<std::net::IpAddr>(), any::<u16>(), any::<u64>(), any::<u16>()).prop_map(
            |(node, ip, port, generation, renewals)| Identity {
                node: NodeId::from_bytes(node),
                address: SocketAddr::new(ip, port),
                generation,
                renewals,
            },
        )
    }

    fn messages() -> impl Strategy<Value = Message<Identity>> {
        (0..11_u8, any::<u8>(), identities()).prop_map(|(kind, probe_number, other)| match kind {
            0 => Message::Ping(probe_number),
            1 => Message::Ack(probe_number),
            2 => Message::PingReq { probe_number, target: other },
            3 => Message::IndirectPing { probe_number, origin: other },
            4 => Message::IndirectAck { probe_number, target: other },
            5 => Message::ForwardedAck { probe_number, origin: other },
            6 => Message::Announce,
            7 => Message::Feed,
            8 => Message::Gossip,
            9 => Message::Broadcast,
            _ => Message::TurnUndead,
        })
    }

    proptest! {
        #[test]
        fn headers_survive_the_wire(
            src in identities(), src_incarnation: u16, dst in identities(), message in messages(),
        ) {
            let header = Header { src, src_incarnation, dst, message };
            let mut bytes = Vec::new();
            Codec::default().encode_header(&header, &mut bytes).unwrap();
            prop_assert_eq!(&Codec::default().decode_header(bytes.as_slice()).unwrap(), &header);
            for end in 0..bytes.len() {
                prop_assert!(Codec::default().decode_header(&bytes[..end]).is_err(), "cut to {}", end);
            }
        }

        #[test]
        fn members_survive_the_wire(id in identities(), incarnation: u16, state in 0..3) {
            let state = [State::Alive, State::Suspect, State::Down][state as usize];
            let member = Member::new(id, incarnation, state);
            let mut bytes = Vec::new();
            Codec::default().encode_member(&member, &mut bytes).unwrap();
            prop_assert_eq!(Codec::default().decode_member(bytes.as_slice()).unwrap(), member.clone());
            let mut small = vec![0; bytes.len() - 1];
            let mut rest = small.as_mut_slice();
            prop_assert!(Codec::default().encode_member(&member, &mut rest).is_err());
            prop_assert_eq!(rest.len(), bytes.len() - 1, "nothing is written where not all fits");
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes: Vec<u8>) {
            let _ = Codec::default().decode_header(bytes.as_slice());
            let _ = Codec::default().decode_member(bytes.as_slice());
        }
    }

    #[test]
    fn numbers_of_more_than_64_bits_are_refused() {
        assert_eq!(number(&mut [0xff; 9].iter().copied().chain([1]).collect::<Vec<_>>().as_slice()), Ok(u64::MAX));
        assert!(number(&mut [0xff; 9].iter().copied().chain([2]).collect::<Vec<_>>().as_slice()).is_err());
    }

    #[test]
    fn a_probe_is_small() {
        let id = Identity::new(NodeId::from_bytes([7; 16]), "10.0.0.1:7100".parse().unwrap(), 1_790_000_000_000);
        let mut bytes = Vec::new();
        let header = Header { src: id, src_incarnation: 0, dst: id, message: Message::Ping(1) };
        Codec::default().encode_header(&header, &mut bytes).unwrap();
        assert_eq!(bytes.len(), 63);
    }
}
