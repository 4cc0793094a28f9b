use std::{
    net::{Ipv4Addr, SocketAddr},
    num::NonZeroUsize,
    time::Duration,
};

/// What bounds the gateway. Every limit has a default that suits a public port.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where to listen; port 0 takes a free one. Default `127.0.0.1:8080`.
    pub address: SocketAddr,
    /// Threads, each with its own listener and runtime. Default: one per available core.
    pub threads: NonZeroUsize,
    /// Open connections. A further 64 may ask for the node's state and are refused calls; those beyond are
    /// closed. From 7/8 of it on, idle connections are closed after a second. Default 8,192.
    pub max_connections: NonZeroUsize,
    /// Bytes of bodies over 64 KiB that may be held: requests that come or run, and answers that clients have
    /// yet to take. While it is more, calls are refused with 503. Default 512 MiB.
    pub max_held_bytes: usize,
    /// Largest request body, in bytes. Default 6 MiB.
    pub max_body_bytes: usize,
    /// Largest request line with all headers, in bytes; more than 60 KiB counts as 60 KiB. Default 16 KiB.
    pub max_head_bytes: usize,
    /// How long a request head may take from its first byte to its last, and a new connection may
    /// take to begin one. Default 10 s.
    pub header_timeout: Duration,
    /// How long a request body may pause. Default 30 s.
    pub body_timeout: Duration,
    /// How long a request body may take in all. Default 5 min.
    pub upload_timeout: Duration,
    /// How long a client may take for the next 64 KiB of an answer, or what is left of it. Default 30 s.
    pub write_timeout: Duration,
    /// How long a connection may wait for its next request. Default 75 s.
    pub idle_timeout: Duration,
    /// The `Access-Control-Allow-Origin` of answers to browsers; `None` sends no CORS headers. Default `*`.
    pub cors_origin: Option<String>,
}

impl Config {
    // The request target is a part of the head, and the `http` crate takes at most 65,534 bytes of it.
    const MOST_HEAD_BYTES: usize = 60 * 1024;

    pub(crate) fn head_limit(&self) -> usize {
        self.max_head_bytes.min(Self::MOST_HEAD_BYTES)
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            address: SocketAddr::from((Ipv4Addr::LOCALHOST, 8080)),
            threads: std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN),
            max_connections: NonZeroUsize::new(8192).expect("it is not 0"),
            max_held_bytes: 512 * 1024 * 1024,
            max_body_bytes: 6 * 1024 * 1024,
            max_head_bytes: 16 * 1024,
            header_timeout: Duration::from_secs(10),
            body_timeout: Duration::from_secs(30),
            upload_timeout: Duration::from_secs(300),
            write_timeout: Duration::from_secs(30),
            idle_timeout: Duration::from_secs(75),
            cors_origin: Some("*".to_owned()),
        }
    }
}
