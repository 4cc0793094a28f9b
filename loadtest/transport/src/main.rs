//! Calls over the mesh's transport and over tonic gRPC, both with mutual TLS, between two processes. `run` in this
//! directory starts them in turns and compares.

mod grpc;
mod identities;
mod load;
mod mesh;

use std::{
    io::{self, Read},
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    process, thread,
};

use anyhow::Result;
use clap::{Args, Parser, ValueEnum};
use fnmesh_mesh::NodeId;
use serde::Serialize;
use tokio::{runtime, task::LocalSet};

/// A free port of this machine.
const ANY: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

#[derive(Parser)]
#[command(about = "Calls over the mesh's transport and over tonic gRPC, side by side")]
enum Command {
    /// Makes a mesh of two nodes, whose certificates both transports use, in DIRECTORY/server and DIRECTORY/client
    Identities { directory: PathBuf },
    /// Answers until stdin ends; says on one line of stdout where
    Server {
        #[command(flatten)]
        side: Side,
        /// Where to listen
        #[arg(long, default_value = "127.0.0.1:0")]
        listen: SocketAddr,
    },
    /// Calls, and prints the figures as JSON
    Client {
        #[command(flatten)]
        side: Side,
        /// Where the server listens
        address: SocketAddr,
        /// The server's node id, the name its certificate must have
        node: NodeId,
        #[command(flatten)]
        load: load::Options,
    },
}

/// What both processes are told.
#[derive(Args)]
struct Side {
    transport: Transport,
    #[arg(long)]
    runtime: Runtime,
    /// The identity of this process
    #[arg(long)]
    identity: PathBuf,
    /// How fast the mesh's transport sends
    #[arg(long, value_enum, default_value_t)]
    congestion: mesh::Congestion,
}

#[derive(Clone, Copy, ValueEnum)]
enum Transport {
    Quic,
    Tonic,
}

#[derive(Clone, Copy, ValueEnum)]
enum Runtime {
    /// tokio's multi-thread runtime, a worker for each core
    Multi,
    /// tokio's current-thread runtime
    Current,
    /// For the client a thread for each core with a current-thread runtime and a connection of its own, as the threads of
    /// a node have; a multi-thread runtime for a server that is not bound to a thread
    Threads,
}

/// What a server says of itself once it listens.
#[derive(Serialize)]
struct Listening {
    address: SocketAddr,
    node: NodeId,
}

impl Runtime {
    fn run<T>(self, work: impl Future<Output = Result<T>>) -> Result<T> {
        let mut builder = match self {
            Self::Multi | Self::Threads => runtime::Builder::new_multi_thread(),
            Self::Current => runtime::Builder::new_current_thread(),
        };
        LocalSet::new().block_on(&builder.enable_all().build()?, work)
    }
}

fn main() -> Result<()> {
    match Command::parse() {
        Command::Identities { directory } => Runtime::Current.run(identities::make(&directory)),
        Command::Server { side, listen } => {
            // Never outlives whoever started it.
            thread::spawn(|| {
                let _ = io::stdin().read(&mut [0]);
                process::exit(0);
            });
            match side.transport {
                // It is bound to a thread, and a node has its endpoint on that thread, too.
                Transport::Quic => Runtime::Current.run(mesh::serve(&side.identity, listen, side.congestion)),
                Transport::Tonic => side.runtime.run(grpc::serve(&side.identity, listen)),
            }
        }
        Command::Client { side, address, node, load } => {
            let call = async |load, window| match side.transport {
                Transport::Quic => {
                    let client = mesh::Client::connect(&side.identity, address, node, side.congestion).await?;
                    load::run(client, load, window).await
                }
                Transport::Tonic => {
                    load::run(grpc::Client::connect(&side.identity, address, node).await?, load, window).await
                }
            };
            let figures = load::measure(&load, |window| match side.runtime {
                Runtime::Threads => thread::scope(|scope| {
                    let shares = load.load.split(thread::available_parallelism()?.get());
                    let threads: Vec<_> =
                        shares.map(|share| scope.spawn(move || Runtime::Current.run(call(share, window)))).collect();
                    threads.into_iter().map(|thread| thread.join().expect("it does not panic")).collect()
                }),
                runtime => Ok(vec![runtime.run(call(load.load, window))?]),
            })?;
            println!("{}", serde_json::to_string(&figures)?);
            Ok(())
        }
    }
}

fn listening(address: SocketAddr, node: NodeId) -> Result<()> {
    println!("{}", serde_json::to_string(&Listening { address, node })?);
    Ok(())
}
