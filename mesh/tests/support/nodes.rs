//! Whole nodes of a mesh in this process, without functions.

#[path = "nothing.rs"]
mod nothing;

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::Path,
    rc::Rc,
    thread,
    time::{Duration, Instant, SystemTime},
};

use fnmesh_mesh::{
    Config, Join, Mesh, identity::TokenOptions, membership, membership::Profile, transport::quic::Congestion,
};
use nothing::Nothing;

const SUSPICION: Duration = Duration::from_secs(120);

pub(crate) fn start(directory: &Path, name: &str, join: Option<Join>) -> Mesh {
    let config = Config {
        address: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
        advertise: None,
        name: name.to_owned(),
        zone: String::new(),
        directory: directory.join(name),
        join,
        congestion: Congestion::Cubic,
        // Who is silent is suspected for longer than any test waits: only who says goodbye is gone.
        membership: membership::Config { suspicion: SUSPICION, ..membership::Config::default() },
    };
    Mesh::start(config, Profile::default(), || Rc::new(Nothing)).unwrap()
}

pub(crate) fn joined(directory: &Path, name: &str, member: &Mesh, shares_authority: bool) -> Mesh {
    let handle = member.handle();
    let options = TokenOptions { shares_authority, ..TokenOptions::default() };
    let authority = handle.identity().authority().unwrap();
    let token = handle.tokens().create(authority, options, SystemTime::now()).unwrap();
    start(directory, name, Some(Join { address: handle.address(), token: Some(token) }))
}

pub(crate) fn wait_until(is_so: impl Fn() -> bool, what: &str) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !is_so() {
        assert!(Instant::now() < deadline, "waited in vain: {what}");
        thread::sleep(Duration::from_millis(10));
    }
}

pub(crate) fn sees(mesh: &Mesh, count: usize) -> bool {
    mesh.handle().members().iter().filter(|member| member.is_reachable && member.record.is_some()).count() == count
}

pub(crate) fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(future)
}
