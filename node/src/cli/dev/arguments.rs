use std::{ffi::OsString, net::SocketAddr};

use super::super::options::Node;

/// The arguments that make another process's options the same as these, listening at `listen`. Directories are left
/// out.
pub(super) fn of(options: &Node, listen: SocketAddr) -> Vec<OsString> {
    let Node {
        directories: _,
        listen: _,
        threads,
        python,
        node,
        cache,
        log,
        cors_origin,
        max_body,
        max_connections,
        drain_timeout,
        sandbox,
        json,
        python_extension,
    } = options;
    let mut arguments = Vec::new();
    let mut add = |name: &str, value: Option<OsString>| {
        if let Some(value) = value {
            let mut argument = OsString::from(format!("--{name}="));
            argument.push(value);
            arguments.push(argument);
        }
    };
    add("listen", Some(listen.to_string().into()));
    add("threads", threads.map(|threads| threads.to_string().into()));
    add("python", python.clone().map(Into::into));
    add("node", node.clone().map(Into::into));
    add("cache", cache.clone().map(Into::into));
    add("log", log.clone().map(Into::into));
    add("cors-origin", Some(cors_origin.into()));
    add("max-body", Some(max_body.as_u64().to_string().into()));
    add("max-connections", Some(max_connections.to_string().into()));
    add("drain-timeout", Some(humantime::format_duration(*drain_timeout).to_string().into()));
    add("sandbox", Some(sandbox.to_string().into()));
    add("python-extension", python_extension.clone().map(Into::into));
    if *json {
        arguments.push("--json".into());
    }
    arguments
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::cli::options::{Cli, Command};

    fn parse(arguments: impl IntoIterator<Item = OsString>) -> Node {
        let line = ["fnmesh", "dev"].into_iter().map(OsString::from).chain(arguments);
        let Command::Dev(dev) = Cli::try_parse_from(line).unwrap().command else { panic!() };
        dev.node
    }

    #[test]
    fn options_are_passed_on_as_they_are() {
        let every = "--listen 127.0.0.1:9000 --threads 3 --python /a --node /b --cache /c --log debug \
                     --cors-origin none --max-body 5MiB --max-connections 7 --drain-timeout 1m30s --sandbox off --json \
                     --python-extension /d";
        for line in [every, ""] {
            let options = parse(line.split_whitespace().map(OsString::from));
            let again = parse(of(&options, options.listen));
            assert_eq!(format!("{again:?}"), format!("{options:?}"));
        }
    }
}
