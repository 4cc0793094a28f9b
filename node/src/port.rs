//! Who listens on a port, for a better error than "in use".

use std::{collections::HashSet, fs, path::Path};

/// The process that listens on `port`, as `name (pid 12)`, as far as this user may see it.
pub(crate) fn holder(port: u16) -> Option<String> {
    let sockets: HashSet<_> = ["/proc/net/tcp", "/proc/net/tcp6"]
        .iter()
        .filter_map(|table| fs::read_to_string(table).ok())
        .flat_map(|table| table.lines().filter_map(|line| listener(line, port)).collect::<Vec<_>>())
        .collect();
    if sockets.is_empty() {
        return None;
    }
    let processes = fs::read_dir("/proc").ok()?.flatten();
    processes.filter_map(|entry| holds(&entry.path(), &sockets)).next()
}

/// What `/proc/pid/fd` calls the socket of this line of `/proc/net/tcp`, if it listens on `port` (proc_pid_net(5)).
fn listener(line: &str, port: u16) -> Option<String> {
    const LISTEN: &str = "0A";
    let fields: Vec<_> = line.split_whitespace().collect();
    let (_, local_port) = fields.get(1)?.rsplit_once(':')?;
    let is_it = *fields.get(3)? == LISTEN && u16::from_str_radix(local_port, 16).ok()? == port;
    is_it.then(|| fields.get(9).map(|inode| format!("socket:[{inode}]")))?
}

fn holds(process: &Path, sockets: &HashSet<String>) -> Option<String> {
    let pid: u32 = process.file_name()?.to_str()?.parse().ok()?;
    let files = fs::read_dir(process.join("fd")).ok()?.flatten();
    let links = files.filter_map(|file| fs::read_link(file.path()).ok());
    links.filter_map(|link| link.to_str().map(str::to_owned)).find(|link| sockets.contains(link))?;
    let name = fs::read_to_string(process.join("comm")).ok()?;
    Some(format!("{} (pid {pid})", name.trim_end()))
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn own_listener_is_found() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let holder = holder(listener.local_addr().unwrap().port()).unwrap();
        assert!(holder.ends_with(&format!("(pid {})", std::process::id())), "{holder}");
    }

    #[test]
    fn free_port_has_no_holder() {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        assert_eq!(holder(port), None);
    }
}
