//! What keeps a worker from harming anything but itself (ADR 0020).
//!
//! All is prepared before a worker is forked; between fork and exec it makes only direct system calls. What it is
//! confined to holds for every process it starts. fnmesh isolates faults; it does not claim to isolate hostile tenants.

mod access;
mod landlock;
mod levels;
mod limits;
mod mounts;
mod seccomp;
mod temporary;
mod trial;

use std::{io, path::Path, sync::Arc};

pub use self::levels::{Level, Levels, Mode};
pub(crate) use self::{
    access::Access,
    temporary::{Temporary, unlinked_bytes, used_bytes},
};
use self::{
    landlock::{Landlock, Rules},
    limits::Limits,
    seccomp::Filters,
    temporary::Root,
    trial::trial,
};
use super::cgroup::{Bounds, Cgroups};

/// What this node confines its workers by.
pub(crate) struct Sandbox {
    levels: Levels,
    filters: Option<Arc<Filters>>,
    landlock: Option<Landlock>,
    temporaries: Option<Arc<Root>>,
    pub(crate) cgroups: Option<Arc<Cgroups>>,
}

impl Sandbox {
    /// Finds out what works on this machine, by trying it in processes of their own. Temporary directories of
    /// workers will be in `temporaries`. Blocks for some milliseconds.
    pub(crate) fn new(mode: Mode, temporaries: &Path) -> Self {
        let levels = Levels::all(mode, &Level::Off("not asked for".to_owned()));
        let mut sandbox = Self { levels, filters: None, landlock: None, temporaries: None, cgroups: None };
        if mode != Mode::Off {
            sandbox.levels.rlimits = Level::On(None);
            sandbox.find_privileges();
            sandbox.find_filters();
            sandbox.find_landlock(temporaries);
            sandbox.find_cgroups();
        }
        sandbox
    }

    /// What was found.
    pub(crate) fn levels(&self) -> &Levels {
        &self.levels
    }

    /// All that a worker with this access and these bounds needs to enter, and its temporary directory.
    ///
    /// # Errors
    /// When the directory or the rules cannot be made.
    pub(crate) fn prepare(&self, access: &Access, bounds: &Bounds) -> io::Result<(Entry, Option<Temporary>)> {
        let levels = &self.levels;
        let temporary = self.temporaries.as_ref().map(Root::directory).transpose()?;
        let private_mounts = levels.private_mounts.is_on();
        let place = temporary.as_ref().map(Temporary::path);
        let rules = self.landlock.as_ref().map(|it| it.rules(access, place, private_mounts)).transpose()?;
        let limits = match levels.mode {
            Mode::Off => Limits::least(),
            Mode::Auto | Mode::Strict => Limits::new(bounds.temporary_bytes, self.cgroups.is_some()),
        };
        let entry = Entry {
            limits,
            private_mounts,
            drop_capabilities: levels.capabilities.is_on(),
            no_new_privs: levels.no_new_privs.is_on(),
            rules,
            filters: self.filters.clone(),
        };
        Ok((entry, temporary))
    }

    fn find_privileges(&mut self) {
        self.levels.no_new_privs = Level::of(&trial(limits::no_new_privileges));
        self.levels.private_mounts = Level::of(&trial(mounts::enter));
        self.levels.capabilities = if rustix::process::geteuid().is_root() {
            Level::of(&trial(limits::drop_capabilities))
        } else {
            Level::Off("the node is not root and has none".to_owned())
        };
    }

    fn find_filters(&mut self) {
        let found = Filters::new(std::process::id()).map_err(io::Error::other).and_then(|filters| {
            trial(|| limits::no_new_privileges().and_then(|()| filters.install()))?;
            Ok(filters)
        });
        match found {
            Ok(filters) => {
                self.levels.seccomp = Level::On(None);
                self.filters = Some(Arc::new(filters));
            }
            Err(error) => self.levels.seccomp = Level::Off(error.to_string()),
        }
    }

    fn find_landlock(&mut self, temporaries: &Path) {
        let found = Landlock::new().and_then(|landlock| {
            let rules = landlock.rules(&Access::default(), None, false)?;
            trial(|| limits::no_new_privileges().and_then(|()| rules.enter()))?;
            Ok(landlock)
        });
        self.levels.landlock = match &found {
            Ok(landlock) => Level::On(Some(landlock.describe())),
            Err(error) => Level::Off(error.to_string()),
        };
        self.landlock = found.ok();
        match Root::new(temporaries) {
            Ok(root) => self.temporaries = Some(root),
            // Without it a worker would have no place to write to.
            Err(error) => {
                self.landlock = None;
                let reason = format!("no temporary directories in {}: {error}", temporaries.display());
                self.levels.landlock = Level::Off(reason);
            }
        }
    }

    fn find_cgroups(&mut self) {
        match Cgroups::of_this_process() {
            Ok(cgroups) => {
                self.levels.cgroup = Level::On(Some(cgroups.describe()));
                self.cgroups = Some(cgroups);
            }
            Err(error) => self.levels.cgroup = Level::Off(error.to_string()),
        }
    }
}

impl std::fmt::Debug for Sandbox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sandbox").field("levels", &self.levels).finish_non_exhaustive()
    }
}

/// What one worker enters between fork and exec.
pub(crate) struct Entry {
    limits: Limits,
    private_mounts: bool,
    drop_capabilities: bool,
    no_new_privs: bool,
    rules: Option<Rules>,
    filters: Option<Arc<Filters>>,
}

impl Entry {
    /// Confines this process and all it starts. Async-signal-safe.
    pub(crate) fn enter(&self) -> io::Result<()> {
        self.limits.enter()?;
        if self.private_mounts {
            mounts::enter()?;
        }
        if self.drop_capabilities {
            limits::drop_capabilities()?;
        }
        if self.no_new_privs {
            limits::no_new_privileges()?;
        }
        if let Some(rules) = &self.rules {
            rules.enter()?;
        }
        // Last: what is entered before is refused from here on.
        match &self.filters {
            Some(filters) => filters.install(),
            None => Ok(()),
        }
    }
}
