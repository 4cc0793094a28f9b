//! Which files a worker may reach. Rules are made before the fork; entering them is one system call.

use std::{
    ffi::CStr,
    fs, io,
    os::{
        fd::{AsRawFd, OwnedFd, RawFd},
        unix::fs::{FileTypeExt, PermissionsExt},
    },
    path::{Path, PathBuf},
    sync::OnceLock,
};

use landlock::{
    ABI, Access as _, AccessFs, BitFlags, Ruleset, RulesetAttr, RulesetCreated, RulesetCreatedAttr, RulesetError,
    Scope, path_beneath_rules,
};
use rustix::io::FdFlags;

use super::access::Access;

/// The newest version of Landlock whose rights are used; of an older kernel those that it has.
const NEWEST: ABI = ABI::V6;

/// What every program may need of the system, to read and to run. What is not there is left out.
const SYSTEM: &[&str] = &[
    "/usr",
    "/bin",
    "/sbin",
    "/lib",
    "/lib32",
    "/lib64",
    "/libx32",
    "/opt",
    "/sys",
    // Of other processes it shows what everybody may know; the rest is refused because they are outside the domain.
    "/proc",
    "/nix/store",
    "/gnu/store",
    "/run/current-system",
    "/home/linuxbrew/.linuxbrew",
    "/snap",
    // Where links in /etc lead to.
    "/run/systemd/resolve",
    "/run/resolvconf",
    "/run/NetworkManager",
    "/var/lib/ca-certificates",
    "/var/cache/fontconfig",
];

/// Devices that hold nothing.
const DEVICES: &[&str] = &["/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom"];

/// Directories that are a private mount where there are any: rules for them are made in the worker.
const MOUNTED: [(&CStr, bool); 2] = [(c"/proc", false), (c"/dev/shm", true)];

/// What Landlock of a kernel does not refuse, because a later one brought it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Gaps {
    /// Emptying files that a worker may not write to.
    pub(super) truncation: bool,
    /// Signals to processes outside.
    pub(super) signals: bool,
}

impl Gaps {
    /// Of a node without Landlock, where files are what permissions make them.
    pub(super) const WITHOUT_LANDLOCK: Self = Self { truncation: false, signals: true };
}

/// Landlock of this kernel.
pub(super) struct Landlock {
    abi: i32,
    /// What of `/etc` is readable; found once.
    etc: OnceLock<Vec<PathBuf>>,
}

impl Landlock {
    /// # Errors
    /// When the kernel has none, or not for us.
    pub(super) fn new() -> io::Result<Self> {
        // SAFETY: asks for the version only: no memory is passed (landlock_create_ruleset(2)).
        let abi = unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, std::ptr::null::<u8>(), 0usize, 1u32) };
        if abi < 1 {
            return Err(match io::Error::last_os_error().raw_os_error() {
                Some(libc::ENOSYS) => io::Error::other("the kernel has no Landlock; Linux 5.13 brought it"),
                Some(libc::EOPNOTSUPP) => {
                    io::Error::other("the kernel has Landlock, but it was not chosen at boot (lsm=)")
                }
                _ => io::Error::last_os_error(),
            });
        }
        Ok(Self { abi: i32::try_from(abi).unwrap_or(i32::MAX), etc: OnceLock::new() })
    }

    /// What workers can do for all its rules.
    pub(super) fn gaps(&self) -> Gaps {
        Gaps { truncation: self.abi < 3, signals: self.abi < 6 }
    }

    /// `ABI 4`, and what of its gaps nothing else closes.
    pub(super) fn describe(&self, open: Gaps) -> String {
        let lacks = match open {
            Gaps { truncation: true, signals: true } => {
                ": truncating files and signals to other processes are not refused"
            }
            Gaps { truncation: true, signals: false } => ": truncating files is not refused",
            Gaps { truncation: false, signals: true } => ": signals to other processes are not refused",
            Gaps { truncation: false, signals: false } => "",
        };
        format!("ABI {}{lacks}", self.abi)
    }

    /// The rules for a worker with this access and its own temporary directory.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub(super) fn rules(&self, access: &Access, temporary: Option<&Path>, private: bool) -> io::Result<Rules> {
        let rules = Self::empty().and_then(|rules| self.fill(rules, access, temporary)).map_err(io::Error::other)?;
        Ok(Rules { fd: rules.into(), private, is_open: false })
    }

    /// Rules for a worker whose access is not known yet: what it inherits, and what the node fills.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub(super) fn open_rules(private: bool) -> io::Result<(Rules, OpenRules)> {
        let rules = Self::empty().map_err(io::Error::other)?;
        let ours = rules.try_clone()?;
        let fd: Option<OwnedFd> = rules.into();
        let descriptor = fd.as_ref().map(AsRawFd::as_raw_fd);
        Ok((Rules { fd, private, is_open: true }, OpenRules { ours, descriptor }))
    }

    /// Fills the rules of a worker whose access is known now. Says by which descriptor it enters them; `None` where the
    /// kernel enforces nothing.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub(super) fn close(
        &self,
        OpenRules { ours, descriptor }: OpenRules,
        access: &Access,
        temporary: Option<&Path>,
    ) -> io::Result<Option<RawFd>> {
        self.fill(ours, access, temporary).map_err(io::Error::other)?;
        Ok(descriptor)
    }

    fn empty() -> Result<RulesetCreated, RulesetError> {
        Ruleset::default().handle_access(AccessFs::from_all(NEWEST))?.scope(Scope::from_all(NEWEST))?.create()
    }

    fn fill(
        &self,
        rules: RulesetCreated,
        access: &Access,
        temporary: Option<&Path>,
    ) -> Result<RulesetCreated, RulesetError> {
        let (read, all) = (AccessFs::from_read(NEWEST), AccessFs::from_all(NEWEST));
        let device: BitFlags<AccessFs> = AccessFs::ReadFile | AccessFs::WriteFile | AccessFs::IoctlDev;
        let etc = self.etc.get_or_init(|| readable_etc(Path::new("/etc")));
        rules
            .add_rules(path_beneath_rules(SYSTEM, read))?
            .add_rules(path_beneath_rules(etc, read))?
            .add_rules(path_beneath_rules(DEVICES, device))?
            .add_rules(path_beneath_rules(&access.readable, read))?
            .add_rules(path_beneath_rules(access.writable.iter().map(PathBuf::as_path).chain(temporary), all))
    }
}

/// What a worker may reach, ready to be entered between fork and exec.
pub(super) struct Rules {
    fd: Option<OwnedFd>,
    private: bool,
    /// Whether it inherits them, to enter them itself once they are complete.
    is_open: bool,
}

/// The node's hold on the rules that a waiting worker has inherited.
pub(super) struct OpenRules {
    ours: RulesetCreated,
    /// The worker's own; `None` where the kernel enforces nothing.
    descriptor: Option<RawFd>,
}

/// `struct landlock_path_beneath_attr`.
#[repr(C, packed)]
struct Beneath {
    allowed_access: u64,
    parent_fd: i32,
}

impl Rules {
    /// Confines this process and all it starts, or has it inherit the rules. Needs no_new_privs. Async-signal-safe.
    pub(super) fn enter(&self) -> io::Result<()> {
        let Some(rules) = &self.fd else { return Ok(()) };
        if self.private {
            for (path, writable) in MOUNTED {
                allow(rules, path, writable)?;
            }
        }
        if self.is_open {
            return Ok(rustix::io::fcntl_setfd(rules, FdFlags::empty())?);
        }
        // SAFETY: no memory is passed.
        match unsafe { libc::syscall(libc::SYS_landlock_restrict_self, rules.as_raw_fd(), 0u32) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

/// Adds a rule for what is mounted at `path` by now. Async-signal-safe.
fn allow(rules: &OwnedFd, path: &CStr, writable: bool) -> io::Result<()> {
    // Rights that every version of Landlock knows: those that came later are not needed on these.
    let rights = if writable { AccessFs::from_all(ABI::V1) } else { AccessFs::from_read(ABI::V1) };
    // SAFETY: `path` ends in NUL.
    let parent_fd = unsafe { libc::open(path.as_ptr(), libc::O_PATH | libc::O_CLOEXEC) };
    if parent_fd < 0 {
        return Err(io::Error::last_os_error());
    }
    let beneath = Beneath { allowed_access: rights.bits(), parent_fd };
    // SAFETY: the kernel reads one `landlock_path_beneath_attr`, which `Beneath` is; 1 says that it is one.
    let result =
        unsafe { libc::syscall(libc::SYS_landlock_add_rule, rules.as_raw_fd(), 1u32, &raw const beneath, 0u32) };
    let error = io::Error::last_os_error();
    // SAFETY: it was opened above and nobody else knows it.
    unsafe { libc::close(parent_fd) };
    if result == 0 { Ok(()) } else { Err(error) }
}

/// All of `/etc` for a user, from whom its permissions keep the secrets. For root, to whom they mean nothing, what
/// everybody may read: whole directories where that holds for all in them, else their entries.
fn readable_etc(etc: &Path) -> Vec<PathBuf> {
    if !rustix::process::geteuid().is_root() {
        return vec![etc.to_owned()];
    }
    let mut readable = Vec::new();
    if is_public(etc, &mut readable) {
        readable = vec![etc.to_owned()];
    }
    readable
}

/// Whether everybody may read all below `path`; if not, adds what they may.
fn is_public(path: &Path, found: &mut Vec<PathBuf>) -> bool {
    // Links count by where they lead, which has a rule of its own or none.
    let Ok(metadata) = fs::symlink_metadata(path) else { return true };
    let mode = metadata.permissions().mode();
    if metadata.is_symlink() {
        return true;
    }
    if !metadata.is_dir() {
        return mode & 0o004 != 0 || metadata.file_type().is_socket();
    }
    if mode & 0o005 != 0o005 {
        return false;
    }
    let mut parts = Vec::new();
    let mut all = true;
    for entry in fs::read_dir(path).into_iter().flatten().flatten() {
        let mut below = Vec::new();
        if is_public(&entry.path(), &mut below) {
            parts.push(entry.path());
        } else {
            all = false;
            parts.append(&mut below);
        }
    }
    if !all {
        found.append(&mut parts);
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_mode(path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn directory_with_a_secret_is_opened_up_entry_by_entry() {
        let root = tempfile::tempdir().unwrap();
        let path = |name: &str| root.path().join(name);
        with_mode(root.path(), 0o755);
        for directory in ["ssl", "ssl/certs", "ssl/private"] {
            fs::create_dir(path(directory)).unwrap();
            with_mode(&path(directory), 0o755);
        }
        for (file, mode) in [("hosts", 0o644), ("shadow", 0o640), ("ssl/certs/ca", 0o644), ("ssl/private/key", 0o600)] {
            fs::write(path(file), "").unwrap();
            with_mode(&path(file), mode);
        }
        let mut found = Vec::new();
        assert!(!is_public(root.path(), &mut found));
        found.sort();
        assert_eq!(found, [path("hosts"), path("ssl/certs")]);
        with_mode(&path("shadow"), 0o644);
        with_mode(&path("ssl/private/key"), 0o644);
        assert!(is_public(root.path(), &mut Vec::new()));
    }
}
