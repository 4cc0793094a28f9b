//! A network between network namespaces with delay, loss, reordering and cuts.

use std::io::{BufRead, Write, stdin, stdout};

use anyhow::{Context, Result, bail};
use clap::Parser;
use fnmesh_switch::{Condition, Direction, Switch};

/// A network between network namespaces with delay, loss, reordering and cuts.
///
/// Makes a device eth0 in each of them, and says "ready". Conditions are words such as "delay=10ms jitter=1ms loss=0.01
/// reorder=0.001 rate=100000000 cut". While it runs, each line of stdin is a command, answered by one line: "from HOST
/// CONDITION" and "to HOST CONDITION" change the ways from and to a host, "cut HOST" and "heal HOST" cut both and take
/// that back, "counts" says what has become of frames. The end of stdin ends it.
#[derive(Parser)]
#[command(version, verbatim_doc_comment)]
struct Options {
    /// The same dice are thrown for the same seed
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Of what hosts send
    #[arg(long, value_name = "CONDITION", default_value = "")]
    from: Condition,
    /// Of what hosts get
    #[arg(long, value_name = "CONDITION", default_value = "")]
    to: Condition,
    /// Names of network namespaces, as `ip netns` lists them
    #[arg(required = true, value_name = "HOST")]
    hosts: Vec<String>,
}

fn main() -> Result<()> {
    let options = Options::parse();
    let namespaces: Vec<_> = options.hosts.iter().map(|host| format!("/run/netns/{host}")).collect();
    let switch = Switch::start(&namespaces, options.seed)?;
    for host in 0..namespaces.len() {
        switch.set(host, Direction::From, options.from);
        switch.set(host, Direction::To, options.to);
    }
    say("ready")?;
    for line in stdin().lock().lines() {
        match obey(&switch, &options.hosts, &line?) {
            Ok(answer) => say(&answer)?,
            Err(error) => say(&format!("error: {error:#}"))?,
        }
    }
    Ok(())
}

fn say(line: &str) -> Result<()> {
    writeln!(stdout(), "{line}").context("writing to stdout")
}

fn obey(switch: &Switch, hosts: &[String], line: &str) -> Result<String> {
    let (command, rest) = line.split_once(' ').unwrap_or((line, ""));
    if command == "counts" {
        return Ok(serde_json::to_string(&switch.counts())?);
    }
    let (name, condition) = rest.split_once(' ').unwrap_or((rest, ""));
    let host = || hosts.iter().position(|host| host == name).with_context(|| format!("{name:?} is no host"));
    match command {
        "from" => switch.set(host()?, Direction::From, condition.parse()?),
        "to" => switch.set(host()?, Direction::To, condition.parse()?),
        "cut" => switch.cut(host()?, true),
        "heal" => switch.cut(host()?, false),
        _ => bail!("{command:?} is no command; there are from, to, cut, heal and counts"),
    }
    Ok("ok".to_owned())
}
