//! Where the groups of this process are: `/proc/self/cgroup` and `/proc/self/mountinfo`, cgroups(7) and proc(5).

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use super::Directories;

/// The group of this process.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// In hierarchies of their own; that of `cpu` need not be there.
    One { bounds: Directories, cpu: Option<PathBuf> },
    /// In the unified hierarchy.
    Two(PathBuf),
}

/// # Errors
/// When the memory and pids controllers are not mounted.
pub(super) fn find() -> io::Result<Found> {
    let groups = fs::read_to_string("/proc/self/cgroup")?;
    let mounts = fs::read_to_string("/proc/self/mountinfo")?;
    let has_controllers = |directory: &Path| {
        let controllers = fs::read_to_string(directory.join("cgroup.controllers")).unwrap_or_default();
        ["memory", "pids"].iter().all(|wanted| controllers.split_ascii_whitespace().any(|it| it == *wanted))
    };
    choose(&groups, &mounts, has_controllers).ok_or_else(|| {
        io::Error::other("the memory and pids controllers are not there for this node; see docs/sandbox.md")
    })
}

fn choose(groups: &str, mounts: &str, has_controllers: impl Fn(&Path) -> bool) -> Option<Found> {
    if let Some(directory) = directory(groups, mounts, None).filter(|directory| has_controllers(directory)) {
        return Some(Found::Two(directory));
    }
    let one = |controller| directory(groups, mounts, Some(controller));
    let bounds = Directories { memory: one("memory")?, pids: one("pids")? };
    let is_shared = |directory: &PathBuf| bounds.each().any(|it| it == directory);
    Some(Found::One { cpu: one("cpu").filter(|cpu| !is_shared(cpu)), bounds })
}

/// The directory of this process's group: with this controller in version 1, else in version 2.
fn directory(groups: &str, mounts: &str, controller: Option<&str>) -> Option<PathBuf> {
    let has = |list: &str| list.split(',').any(|name| Some(name) == controller);
    let group = groups.lines().find_map(|line| {
        let mut fields = line.splitn(3, ':').skip(1);
        let (controllers, path) = (fields.next()?, fields.next()?);
        (if controller.is_some() { has(controllers) } else { controllers.is_empty() }).then_some(path)
    })?;
    mounts.lines().find_map(|line| {
        let (mount, filesystem) = line.split_once(" - ")?;
        let mut filesystem = filesystem.split(' ');
        let kind = filesystem.next()?;
        let is_it = if controller.is_some() { kind == "cgroup" && has(filesystem.nth(1)?) } else { kind == "cgroup2" };
        let mut mount = mount.split(' ').skip(3);
        let (root, place) = (mount.next()?, mount.next()?);
        // In a container the mount may begin below the hierarchy's root.
        let below = Path::new(group).strip_prefix(root).ok().filter(|_| is_it)?;
        Some(Path::new(place).join(below))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: &str = "\
30 29 0:26 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
31 29 0:27 / /sys/fs/cgroup/pids rw,relatime - cgroup cgroup rw,pids
33 29 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct
32 29 0:28 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
";
    const TWO: &str = "26 25 0:23 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n";

    #[test]
    fn version_2_is_taken_where_it_has_the_controllers() {
        let groups = "0::/user.slice/user-1000.slice/session-3.scope\n";
        let place = "/sys/fs/cgroup/user.slice/user-1000.slice/session-3.scope";
        assert_eq!(choose(groups, TWO, |_| true), Some(Found::Two(place.into())));
        assert_eq!(choose(groups, TWO, |_| false), None);
    }

    #[test]
    fn version_1_is_taken_from_a_mixed_machine() {
        let groups = "9:name=systemd:/\n8:pids:/a\n4:memory:/b/c\n0::/\n";
        let bounds = Directories { memory: "/sys/fs/cgroup/memory/b/c".into(), pids: "/sys/fs/cgroup/pids/a".into() };
        let expected = Found::One { bounds: bounds.clone(), cpu: None };
        assert_eq!(choose(groups, ONE, |_| false), Some(expected));
        let groups = format!("{groups}2:cpu,cpuacct:/d\n");
        let expected = Found::One { bounds, cpu: Some("/sys/fs/cgroup/cpu,cpuacct/d".into()) };
        assert_eq!(choose(&groups, ONE, |_| false), Some(expected));
    }

    #[test]
    fn controllers_may_share_a_hierarchy_and_a_mount_may_begin_below_its_root() {
        let groups = "3:cpu,memory,pids:/docker/abc/inner\n";
        let mounts = "30 29 0:26 /docker/abc /sys/fs/cgroup/all rw - cgroup cgroup rw,cpu,memory,pids\n";
        let place = PathBuf::from("/sys/fs/cgroup/all/inner");
        let expected = Found::One { bounds: Directories { memory: place.clone(), pids: place }, cpu: None };
        assert_eq!(choose(groups, mounts, |_| false), Some(expected));
    }

    #[test]
    fn machine_without_controllers_has_none() {
        assert_eq!(choose("0::/\n", "", |_| true), None);
        assert_eq!(choose("8:pids:/\n0::/\n", ONE, |_| false), None);
    }
}
