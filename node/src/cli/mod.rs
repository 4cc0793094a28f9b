//! The command line: what a user types, and nothing that another crate could want.

mod answer;
mod arguments;
mod call;
mod client;
mod deploy;
mod dev;
mod drain;
mod inspect;
mod listing;
mod ls;
mod nodes;
mod options;
mod own;
mod pretty;
mod ps;
mod routes;
mod serve;
mod token;

use std::{ffi::OsString, process::ExitCode};

use clap::{Parser as _, error::ErrorKind};
use tokio::signal::unix::SignalKind;

use options::{Cli, Command};

use crate::{logs, terminal::ERROR};

/// Success.
const OK: u8 = 0;
/// The node, a call or an app failed.
const FAILED: u8 = 1;
/// The command line makes no sense.
const USAGE: u8 = 2;
/// No node answers at the address.
const UNREACHABLE: u8 = 3;

/// With the number of a signal: it ended the command, as shells have it.
const SIGNALLED: u8 = 128;

/// Runs one command line, program name first, and says how the process exits.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(error) => {
            // A closed stdout or stderr leaves nobody to tell.
            let _ = error.print();
            let help = matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
            return ExitCode::from(if help { OK } else { USAGE });
        }
    };
    let code = match cli.command {
        Command::Serve(options) => serve::serve(*options),
        Command::Dev(options) => dev::dev(options),
        Command::DevNode(options) => dev::node(*options),
        Command::Call(options) => client::block_on(call::call(options)),
        Command::Ls(options) => client::block_on(ls::ls(options)),
        Command::Ps(options) => client::block_on(ps::ps(options)),
        Command::Inspect(options) => client::block_on(inspect::inspect(options)),
        Command::Deploy(options) => client::block_on(deploy::deploy(options)),
        Command::Rm(options) => client::block_on(deploy::remove(options)),
        Command::Deployments(options) => client::block_on(deploy::deployments(options)),
        Command::Drain(options) => client::block_on(drain::drain(options)),
        Command::Nodes(options) => client::block_on(nodes::nodes(options)),
        Command::Routes(options) => client::block_on(routes::routes(options)),
        Command::Token(options) => client::block_on(token::token(options)),
        Command::Version(options) => version(options.json),
    };
    match code {
        Ok(code) => ExitCode::from(code),
        Err(stop) => {
            anstream::eprintln!("{ERROR}error:{ERROR:#} {}", stop.message);
            ExitCode::from(stop.code)
        }
    }
}

/// Why a command ended early, and with which exit code.
#[derive(Debug)]
struct Stop {
    code: u8,
    message: String,
}

impl Stop {
    fn failed(message: impl Into<String>) -> Self {
        Self { code: FAILED, message: message.into() }
    }

    fn usage(message: impl Into<String>) -> Self {
        Self { code: USAGE, message: message.into() }
    }

    fn signalled(signal: SignalKind, message: impl Into<String>) -> Self {
        let number = u8::try_from(signal.as_raw_value()).unwrap_or_default();
        Self { code: SIGNALLED.saturating_add(number), message: message.into() }
    }

    fn unreachable(message: impl Into<String>) -> Self {
        Self { code: UNREACHABLE, message: message.into() }
    }
}

fn version(json: bool) -> Result<u8, Stop> {
    let version = env!("CARGO_PKG_VERSION");
    if json {
        anstream::println!("{}", serde_json::json!({"name": "fnmesh", "version": version}));
    } else {
        anstream::println!("fnmesh {version}");
    }
    Ok(OK)
}
