//! Hosts of a test: network namespaces on a bridge, which itself is in one more namespace. Where ways between hosts are
//! to delay and lose what they carry, the hosts are on a switch, too, and the bridge is beside it.

use std::{
    env,
    fs::{self, File},
    os::fd::AsFd as _,
    panic::resume_unwind,
    process::{self, Command},
    sync::atomic::{AtomicU32, Ordering::Relaxed},
    thread,
};

use fnmesh_switch::{DEVICE, Switch};
use rustix::{
    process::{Pid, Signal, kill_process},
    thread::{LinkNameSpaceType, move_into_link_name_space},
};

use crate::support::wait_until;

/// Namespaces of tests are called so, then the test's process, its network and the host.
const PREFIX: &str = "fnmesh-test-";
/// Set where these tests must not be left out.
const REQUIRED: &str = "FNMESH_REQUIRE_NAMESPACES";

/// The dice of all switches.
const SEED: u64 = 1;

/// Some hosts that see each other at their [`address`]. The thread that made it is on the bridge, and reaches all of them
/// at their [`Network::front`].
pub(crate) struct Network {
    prefix: String,
    hosts: usize,
    /// What joins the hosts, if the bridge does not.
    switch: Option<Switch>,
    /// Where the thread was before.
    outside: File,
}

impl Network {
    /// `hosts` hosts; none, with a word about it, where namespaces cannot be made and need not be.
    pub(crate) fn new(hosts: usize) -> Option<Self> {
        Self::build(hosts, Self::join_by_bridge)
    }

    /// The same, joined by a switch whose ways can be given a condition. The bridge does not join the hosts.
    pub(crate) fn switched(hosts: usize) -> Option<Self> {
        Self::build(hosts, Self::join_by_switch)
    }

    fn build(hosts: usize, join: impl FnOnce(&mut Self) -> Result<(), String>) -> Option<Self> {
        static NETWORKS: AtomicU32 = AtomicU32::new(0);
        sweep();
        let number = NETWORKS.fetch_add(1, Relaxed);
        let outside = File::open("/proc/thread-self/ns/net").unwrap();
        let prefix = format!("{PREFIX}{}-{number}-", process::id());
        let mut network = Self { prefix, hosts, switch: None, outside };
        match join(&mut network) {
            Ok(()) => {
                enter(&network.bridge());
                Some(network)
            }
            Err(error) if env::var_os(REQUIRED).is_some() => panic!("{REQUIRED} is set, but {error}"),
            Err(error) => {
                eprintln!(
                    "NOT RUN: {error}; it takes root, the right to make network namespaces, ip, nft and /dev/net/tun"
                );
                None
            }
        }
    }

    fn join_by_bridge(&mut self) -> Result<(), String> {
        self.make_hosts("10.0.0", DEVICE)
    }

    fn join_by_switch(&mut self) -> Result<(), String> {
        self.make_hosts("10.0.1", "eth1")?;
        let hosts: Vec<_> = (0..self.hosts).map(|host| format!("/run/netns/{}", self.host(host))).collect();
        self.switch = Some(Switch::start(&hosts, SEED).map_err(|error| error.to_string())?);
        for host in 0..self.hosts {
            run("ip", &["-n", &self.host(host), "link", "set", DEVICE, "up"])?;
            self.ip(host, &["address", "add", &format!("{}/24", address(host)), "dev", DEVICE]);
        }
        Ok(())
    }

    /// Hosts on a bridge, each with this device there.
    fn make_hosts(&self, network: &str, device: &str) -> Result<(), String> {
        let (bridge, own) = (self.bridge(), format!("{network}.254"));
        run("ip", &["netns", "add", &bridge])?;
        run("ip", &["-n", &bridge, "link", "add", "bridge", "type", "bridge"])?;
        run("ip", &["-n", &bridge, "address", "add", &format!("{own}/24"), "dev", "bridge"])?;
        run("ip", &["-n", &bridge, "link", "set", "bridge", "up"])?;
        // So that a missing nft is found before a test has begun.
        run("ip", &["netns", "exec", &bridge, "nft", "list", "tables"])?;
        for host in 0..self.hosts {
            let (name, port) = (self.host(host), format!("port{host}"));
            let peer = ["type", "veth", "peer", "name", device, "netns", &name];
            run("ip", &["netns", "add", &name])?;
            run("ip", &[&["-n", &bridge, "link", "add", &port][..], &peer].concat())?;
            run("ip", &["-n", &bridge, "link", "set", &port, "master", "bridge", "up"])?;
            run("ip", &["-n", &name, "link", "set", "lo", "up"])?;
            run("ip", &["-n", &name, "link", "set", device, "up"])?;
            self.ip(host, &["address", "add", &format!("{network}.{}/24", host + 1), "dev", device]);
            self.ip(host, &["route", "add", "default", "via", &own]);
        }
        Ok(())
    }

    /// Where a host is reached from the bridge.
    pub(crate) fn front(&self, host: usize) -> String {
        if self.switch.is_some() { format!("10.0.1.{}", host + 1) } else { address(host) }
    }

    /// What joins the hosts of [`Network::switched`].
    pub(crate) fn switch(&self) -> &Switch {
        self.switch.as_ref().expect("the hosts of this network are joined by a switch")
    }

    /// Does `work` on a host.
    pub(crate) fn within<T: Send>(&self, host: usize, work: impl FnOnce() -> T + Send) -> T {
        let name = self.host(host);
        let on_host = move || {
            enter(&name);
            work()
        };
        thread::scope(|scope| scope.spawn(on_host).join()).unwrap_or_else(|panic| resume_unwind(panic))
    }

    /// `ip` on a host.
    pub(crate) fn ip(&self, host: usize, arguments: &[&str]) {
        run("ip", &[&["-n", &self.host(host)], arguments].concat()).unwrap();
    }

    /// Drops what host `from` sends to host `to`, and lets through what `to` sends to `from`.
    pub(crate) fn cut(&self, from: usize, to: usize) {
        let rule = format!("ip saddr {} drop;", address(from));
        // At the receiver: where it is sent the sender would see an error.
        let chain = format!("chain input {{ type filter hook input priority 0; {rule} }}");
        self.nft(to, &format!("table inet from{from} {{ {chain}; }}"));
    }

    /// Takes a cut back.
    pub(crate) fn heal(&self, from: usize, to: usize) {
        self.nft(to, &format!("delete table inet from{from}"));
    }

    fn nft(&self, host: usize, commands: &str) {
        run("ip", &["netns", "exec", &self.host(host), "nft", commands]).unwrap();
    }

    fn host(&self, host: usize) -> String {
        format!("{}{host}", self.prefix)
    }

    fn bridge(&self) -> String {
        format!("{}bridge", self.prefix)
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        // It may be a panic that ends the test: the next test sweeps up what stays.
        let _ = move_into_link_name_space(self.outside.as_fd(), Some(LinkNameSpaceType::Network));
        self.switch = None;
        for name in (0..self.hosts).map(|host| self.host(host)).chain([self.bridge()]) {
            if !thread::panicking() {
                // The workers of a killed node end by themselves.
                wait_until(|| processes(&name).is_empty(), || format!("{name} is left by {:?}", processes(&name)));
            }
            remove(&name);
        }
    }
}

/// The address of a host for others at first.
pub(crate) fn address(host: usize) -> String {
    format!("10.0.0.{}", host + 1)
}

/// Moves the calling thread, and what it starts from now on.
fn enter(name: &str) {
    let namespace = File::open(format!("/run/netns/{name}")).unwrap();
    move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
}

/// Removes what tests have left that were killed.
fn sweep() {
    for entry in fs::read_dir("/run/netns").into_iter().flatten() {
        let name = entry.unwrap().file_name().into_string().unwrap_or_default();
        let owner = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next());
        if owner.is_some_and(|owner| fs::metadata(format!("/proc/{owner}")).is_err()) {
            remove(&name);
        }
    }
}

/// Ends what runs in a namespace, and removes it; another test may be faster.
fn remove(name: &str) {
    for process in processes(name) {
        let _ = kill_process(process, Signal::KILL);
    }
    let _ = run("ip", &["netns", "delete", name]);
}

fn processes(name: &str) -> Vec<Pid> {
    let listed = run("ip", &["netns", "pids", name]).unwrap_or_default();
    listed.lines().filter_map(|line| Pid::from_raw(line.trim().parse().ok()?)).collect()
}

/// Runs a command to its end; what it prints, or why it failed.
fn run(program: &str, arguments: &[&str]) -> Result<String, String> {
    let command = format!("{program} {}", arguments.join(" "));
    let failed = |reason: String| format!("{command} fails: {reason}");
    let output = Command::new(program).args(arguments).output().map_err(|error| failed(error.to_string()))?;
    if !output.status.success() {
        return Err(failed(String::from_utf8_lossy(&output.stderr).trim().to_owned()));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
