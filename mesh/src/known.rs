//! The members a node knew last, so that it finds its mesh again after a restart.

use std::path::Path;

use crate::{
    identity::{Error, join::PeerAddress, read_file, replace_file},
    membership::Membership,
};

const FILE: &str = "members.json";

/// This node and the members of now.
pub(crate) fn of(membership: &Membership) -> Vec<PeerAddress> {
    let all = std::iter::once(membership.identity()).chain(membership.members());
    all.map(|member| PeerAddress { node: member.node, address: member.address }).collect()
}

/// Writes them to `directory`. Blocks on the disk.
///
/// # Errors
/// If the file cannot be written.
pub(crate) fn write(directory: &Path, members: &[PeerAddress]) -> Result<(), Error> {
    let text = serde_json::to_string_pretty(members).expect("ids and addresses are JSON");
    replace_file(&directory.join(FILE), &text)
}

/// Those that were written last; none if none ever were. Blocks on the disk.
///
/// # Errors
/// If the file cannot be read, or is not one of this kind.
pub(crate) fn read(directory: &Path) -> Result<Vec<PeerAddress>, Error> {
    let path = directory.join(FILE);
    let Some(text) = read_file(&path)? else { return Ok(Vec::new()) };
    let damaged = |error| Error::Damaged {
        path,
        reason: format!("it does not list members ({error}): remove it and start with --join and a member's address"),
    };
    serde_json::from_str(&text).map_err(damaged)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::NodeId;

    #[test]
    fn members_are_read_as_written() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(read(directory.path()).unwrap(), []);
        let members = [PeerAddress { node: NodeId::from_bytes([7; 16]), address: "[::1]:7100".parse().unwrap() }];
        write(directory.path(), &members).unwrap();
        assert_eq!(read(directory.path()).unwrap(), members);
    }

    #[test]
    fn damaged_file_is_named() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join(FILE), "[1]").unwrap();
        let error = read(directory.path()).unwrap_err().to_string();
        assert!(error.contains("members.json: it does not list members"), "{error}");
    }
}
