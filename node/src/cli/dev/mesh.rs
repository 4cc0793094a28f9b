//! Several nodes of one mesh, each a process of its own, which end with this one.
//!
//! The first one makes the mesh, deploys the apps to all of its nodes and again when they change. A node that is killed
//! is one that the others go on without. Each has a pipe of this process as its stdin: it ends when that is closed, and
//! so when this process is killed.

use std::{
    ffi::OsString,
    io,
    net::{IpAddr, SocketAddr, TcpListener},
    num::NonZeroU32,
    path::Path,
    process::ExitStatus,
    time::Duration,
};

use rustix::process::Signal;
use serde::Deserialize;
use serde_json::json;
use tempfile::TempDir;
use tokio::{
    task::JoinSet,
    time::{sleep, timeout},
};

use super::{
    super::{FAILED, OK, SIGNALLED, Stop, options::Dev},
    arguments,
    child::{Child, Label},
};
use crate::{
    shutdown::{Phase, Signals, Switch},
    socket::{self, AskError, Request},
    terminal::{self, HEADING, WARNING},
};

/// How often the first node is asked for a token until it answers.
const ASK_AGAIN: Duration = Duration::from_millis(20);
/// How long the token for the other nodes is valid.
const TOKEN_LIFE: Duration = Duration::from_secs(600);
/// How long nodes may take to stop at once.
const LAST_MOMENT: Duration = Duration::from_secs(10);

pub(super) async fn run(options: Dev) -> Result<u8, Stop> {
    let failed = |error: io::Error| Stop::failed(format!("cannot start the nodes: {error}"));
    let root = tempfile::Builder::new().prefix("fnmesh-dev-").tempdir().map_err(failed)?;
    let switch = Switch::default();
    let mut signals = Signals::install().map_err(failed)?;
    say_where(&options, &root);
    let mut nodes = Nodes { options, root, running: Vec::new(), ends: JoinSet::new(), code: OK };
    let ended = tokio::select! {
        ended = nodes.serve(&switch) => ended,
        never = signals.forward(switch.clone()) => match never {},
    };
    let Nodes { root, code, .. } = nodes;
    match root.close() {
        // Nodes that end at once remove it, too.
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            terminal::print_error(format!("{WARNING}warning:{WARNING:#} {error}; remove it\n").as_bytes());
        }
        _ => {}
    }
    ended.map_err(failed).map(|()| code)
}

fn say_where(options: &Dev, root: &TempDir) {
    let (nodes, data) = (options.nodes, root.path());
    terminal::print(&if options.node.json {
        format!("{}\n", json!({ "event": "mesh", "nodes": nodes, "data": data }))
    } else {
        let data = data.display();
        format!(
            "{HEADING}{nodes} nodes{HEADING:#} in one mesh; commands for them, such as fnmesh drain n2, take --data {data}/n1\n"
        )
    });
}

/// All nodes. Dropped, they end at once.
struct Nodes {
    options: Dev,
    root: TempDir,
    running: Vec<Child>,
    ends: JoinSet<(String, io::Result<ExitStatus>)>,
    /// What this process exits with.
    code: u8,
}

impl Nodes {
    /// Starts them, and stops them when that is asked for, or when the first one has ended or another one has failed.
    async fn serve(&mut self, switch: &Switch) -> io::Result<()> {
        self.start(1, self.options.node.listen, None)?;
        let began = tokio::select! {
            token = token(self.root.path(), self.options.nodes) => token.map(Some),
            ended = self.ends.join_next() => { self.note(ended); Ok(None) }
            () = switch.asked(Phase::Drain) => Ok(None),
        };
        let joined = began.and_then(|token| token.map_or(Ok(false), |token| self.start_others(&token).map(|()| true)));
        if matches!(joined, Ok(true)) {
            self.wait(switch).await;
        }
        tokio::select! {
            () = self.stop() => {}
            () = switch.asked(Phase::Stop) => {}
        }
        self.give_up().await;
        joined.map(drop)
    }

    fn start(&mut self, number: u8, listen: SocketAddr, token: Option<&Token>) -> io::Result<()> {
        let Dev { node, nodes } = &self.options;
        let name = format!("n{number}");
        let mut arguments = vec![OsString::from("dev-node")];
        arguments.extend(arguments::of(node, listen));
        let mut add = |option: &str, value: OsString| arguments.extend([OsString::from(option), value]);
        add("--nodes", nodes.to_string().into());
        add("--mesh", SocketAddr::new(listen.ip(), 0).to_string().into());
        add("--data", self.root.path().join(&name).into());
        if let Some(token) = token {
            add("--join", token.address.to_string().into());
        }
        if terminal::is_stdout() {
            arguments.push("--color".into());
        }
        if number == 1 {
            arguments.push("--".into());
            arguments.extend(node.directories.iter().map(OsString::from));
        }
        let label = Label { node: name.clone(), width: format!("n{nodes}").len(), json: node.json };
        let (child, ended) = Child::start(&label, &arguments, token.map(|token| token.token.as_str()))?;
        self.running.push(child);
        self.ends.spawn(async move { (name, ended.await) });
        Ok(())
    }

    fn start_others(&mut self, token: &Token) -> io::Result<()> {
        let mut listen = self.options.node.listen;
        for number in 2..=self.options.nodes {
            if listen.port() != 0 {
                listen.set_port(free_port(listen.ip(), listen.port())?);
            }
            self.start(number, listen, Some(token))?;
        }
        Ok(())
    }

    /// Waits until there is a reason to stop.
    async fn wait(&mut self, switch: &Switch) {
        loop {
            tokio::select! {
                ended = self.ends.join_next() => if self.note(ended) { return },
                () = switch.asked(Phase::Drain) => return,
            }
        }
    }

    /// Takes note of a node's end; whether the others end with it.
    fn note(&mut self, ended: Option<Result<(String, io::Result<ExitStatus>), tokio::task::JoinError>>) -> bool {
        let Some(Ok((name, status))) = ended else { return true };
        self.running.retain(|child| child.name != name);
        let code = status.as_ref().map_or(Some(FAILED.into()), ExitStatus::code);
        if let Some(code) = code.filter(|code| *code != 0) {
            self.code = u8::try_from(code).unwrap_or(FAILED);
            return true;
        }
        let is_first = name == "n1";
        if is_first {
            self.code = FAILED;
        }
        let what = status.map_or_else(|error| error.to_string(), |status| status.to_string());
        let then = if is_first { "it watches the apps: the others stop, too" } else { "the others go on without it" };
        terminal::print_error(format!("{WARNING}{name} has ended{WARNING:#} ({what}); {then}\n").as_bytes());
        is_first
    }

    /// Ends all, the first one last: what it serves, too, need not be taken over by others. Calls in flight end first.
    async fn stop(&mut self) {
        if !self.running.iter().any(|child| child.name == "n1") {
            return;
        }
        self.running.iter().skip(1).for_each(|child| child.signal(Signal::TERM));
        self.until_left(1).await;
        self.running.iter().for_each(|child| child.signal(Signal::TERM));
        self.until_left(0).await;
    }

    /// Ends those at once that still run.
    async fn give_up(&mut self) {
        self.running.iter_mut().for_each(Child::give_up);
        if timeout(LAST_MOMENT, self.until_left(0)).await.is_err() {
            self.running.iter().for_each(|child| child.signal(Signal::KILL));
            self.until_left(0).await;
        }
    }

    async fn until_left(&mut self, count: usize) {
        while self.running.len() > count {
            let Some(Ok((name, status))) = self.ends.join_next().await else { return };
            self.running.retain(|child| child.name != name);
            // One that had not joined yet has ended as it was told to, too.
            let is_told = |code| code == i32::from(SIGNALLED) + Signal::TERM.as_raw();
            if !status.is_ok_and(|status| status.success() || status.code().is_some_and(is_told)) {
                self.code = self.code.max(FAILED);
            }
        }
    }
}

/// How nodes join.
#[derive(Debug, Deserialize)]
struct Token {
    token: String,
    address: SocketAddr,
}

/// Asks the first node for a token, until it can answer.
async fn token(root: &Path, nodes: u8) -> io::Result<Token> {
    loop {
        let (expires_in_s, uses) = (TOKEN_LIFE.as_secs(), NonZeroU32::new(u32::from(nodes)));
        let request = Request::CreateToken { expires_in_s, uses, shares_authority: false };
        match socket::ask(&root.join("n1"), request, |_| {}).await {
            Ok(token) => return serde_json::from_value(token).map_err(io::Error::from),
            Err(AskError::Refused(reason)) => return Err(io::Error::other(reason)),
            Err(AskError::Unreachable(_)) => sleep(ASK_AGAIN).await,
        }
    }
}

/// The first port above `port` that nobody listens at.
fn free_port(ip: IpAddr, port: u16) -> io::Result<u16> {
    let free = (port..=u16::MAX).skip(1).find(|port| TcpListener::bind((ip, *port)).is_ok());
    free.ok_or_else(|| io::Error::other(format!("no port above {port} is free; choose a lower one with --listen")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_that_are_taken_are_left_out() {
        let ip = IpAddr::from([127, 0, 0, 1]);
        let taken = TcpListener::bind((ip, 0)).unwrap();
        let port = taken.local_addr().unwrap().port();
        assert!(free_port(ip, port - 1).unwrap() > port);
        assert!(free_port(ip, u16::MAX).is_err());
    }
}
