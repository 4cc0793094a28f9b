//! The switch between network namespaces. See `node/tests/namespaces` for what that takes, and for when it may be missing.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[allow(dead_code, reason = "nothing is cut within a host here")]
#[path = "../../../../node/tests/namespaces/network.rs"]
mod network;
mod support;

use std::{
    fs,
    io::ErrorKind,
    net::UdpSocket,
    time::{Duration, Instant},
};

use fnmesh_switch::{Condition, DEVICE, Direction, Switch};
use network::{Network, address};
use support::{PATIENCE, wait_until};

/// Where the second host listens.
const PORT: u16 = 7000;

/// A socket on each of two hosts: the first sends to the second.
struct Pair {
    sender: UdpSocket,
    receiver: UdpSocket,
    network: Network,
}

impl Pair {
    fn new() -> Option<Self> {
        let network = Network::switched(2)?;
        (0..2).for_each(|host| say_nothing_by_itself(&network, host));
        let bind = |host, port| network.within(host, || UdpSocket::bind((address(host), port)).unwrap());
        let (sender, receiver) = (bind(0, 0), bind(1, PORT));
        sender.connect((address(1), PORT)).unwrap();
        for socket in [&sender, &receiver] {
            socket.set_read_timeout(Some(PATIENCE)).unwrap();
        }
        Some(Self { sender, receiver, network })
    }

    fn switch(&self) -> &Switch {
        self.network.switch()
    }

    /// Sends these numbers, and waits until the switch has all of them.
    fn send_all(&self, numbers: std::ops::Range<u32>) {
        let expected = self.switch().counts().sent + numbers.len() as u64;
        numbers.for_each(|number| self.send(number));
        wait_until(|| self.switch().counts().sent >= expected, || format!("{:?}", self.switch().counts()));
        assert_eq!(self.switch().counts().sent, expected, "something else has sent");
    }

    fn send(&self, number: u32) {
        self.sender.send(&number.to_be_bytes()).unwrap();
    }

    /// The number of the next datagram.
    fn receive(&self) -> u32 {
        let mut number = [0; 4];
        self.receiver.recv(&mut number).unwrap();
        u32::from_be_bytes(number)
    }

    fn round_trip(&self, number: u32) -> Duration {
        let start = Instant::now();
        self.send(number);
        let mut answer = [0; 4];
        let (_, from) = self.receiver.recv_from(&mut answer).unwrap();
        self.receiver.send_to(&answer, from).unwrap();
        self.sender.recv(&mut answer).unwrap();
        assert_eq!(u32::from_be_bytes(answer), number);
        start.elapsed()
    }

    /// Whether a datagram is there already.
    fn has_received(&self) -> bool {
        self.receiver.set_nonblocking(true).unwrap();
        let received = self.receiver.recv(&mut [0; 4]);
        self.receiver.set_nonblocking(false).unwrap();
        match received {
            Ok(_) => true,
            Err(error) if error.kind() == ErrorKind::WouldBlock => false,
            Err(error) => panic!("{error}"),
        }
    }
}

/// Sees to it that a host sends nothing but what a test does: that would throw dice, too.
fn say_nothing_by_itself(network: &Network, host: usize) {
    let mac = |host| format!("02:00:00:00:00:0{host}");
    let no_ipv6 = format!("/proc/sys/net/ipv6/conf/{DEVICE}/disable_ipv6");
    // Where it is not there, there is no IPv6.
    let _ = network.within(host, || fs::write(no_ipv6, "1"));
    network.ip(host, &["link", "set", DEVICE, "address", &mac(host)]);
    let other = 1 - host;
    let known = ["lladdr", &mac(other), "dev", DEVICE, "nud", "permanent"];
    network.ip(host, &[&["neighbour", "replace", &address(other)][..], &known].concat());
}

#[test]
fn round_trips_take_both_delays() {
    let Some(pair) = Pair::new() else { return };
    let quick = (0..10).map(|number| pair.round_trip(number)).min().unwrap();
    pair.switch().set(0, Direction::From, "delay=15ms jitter=1ms".parse().unwrap());
    pair.switch().set(0, Direction::To, "delay=10ms".parse().unwrap());
    pair.switch().set(1, Direction::To, "delay=25ms".parse().unwrap());
    let slow = (0..10).map(|number| pair.round_trip(number)).min().unwrap();
    assert!(slow >= Duration::from_millis(50), "{slow:?}");
    // The fastest of ten: a busy machine is not busy all the time.
    assert!(slow < quick + Duration::from_millis(60), "{slow:?} beside {quick:?} without delay");
}

#[test]
fn dice_say_which_datagrams_are_lost() {
    let Some(pair) = Pair::new() else { return };
    let condition: Condition = "loss=0.1".parse().unwrap();
    pair.switch().set(0, Direction::From, condition);
    let mut way = pair.switch().way(0, Direction::From);
    let mut lost = 0;
    // As many at a time as a socket has room for.
    for batch in (0..500).step_by(50).map(|first| first..first + 50) {
        let expected: Vec<_> = batch.clone().filter(|_| way.pass(46, Instant::now()).is_some()).collect();
        pair.send_all(batch);
        let received: Vec<_> = expected.iter().map(|_| pair.receive()).collect();
        assert_eq!(received, expected);
        lost += 50 - received.len();
    }
    assert!((10..100).contains(&lost), "{lost}");
    assert!(!pair.has_received());
}

#[test]
fn unplugged_host_gets_nothing_until_it_is_back() {
    let Some(pair) = Pair::new() else { return };
    pair.round_trip(0);
    pair.switch().cut(1, true);
    pair.send_all(1..100);
    pair.switch().cut(1, false);
    pair.send(100);
    assert_eq!(pair.receive(), 100);
    assert!(!pair.has_received());
}
