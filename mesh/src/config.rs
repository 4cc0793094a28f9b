use std::{net::SocketAddr, path::PathBuf};

use crate::{identity::Token, membership, transport::quic::Congestion};

/// How a node takes part in a mesh.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where it listens for peers, UDP. Port 0 takes a free one.
    pub address: SocketAddr,
    /// Where peers reach it, if that is not `address`; port 0 stands for the port it listens on. Default: `address`,
    /// or if that is every interface, the one that leads to the member it joins by or to the default route.
    pub advertise: Option<SocketAddr>,
    /// Its name for people.
    pub name: String,
    /// Its zone, such as a data centre. Default none.
    pub zone: String,
    /// Where its identity, its tokens and the members it knew last are kept. It is made by the first start.
    pub directory: PathBuf,
    /// How to become a node of an existing mesh, when `directory` holds no identity. Default none: a new mesh is made.
    pub join: Option<Join>,
    /// How fast links send.
    pub congestion: Congestion,
    /// How peers are watched. The same on all nodes.
    pub membership: membership::Config,
}

/// Where and with what to join.
#[derive(Clone, Debug)]
pub struct Join {
    /// The mesh address of a member.
    pub address: SocketAddr,
    /// A token of that mesh. Not needed where the identity exists.
    pub token: Option<Token>,
}
