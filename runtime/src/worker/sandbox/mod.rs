//! What keeps a worker from harming anything but itself (ADR 0020).
//!
//! All is prepared before a worker is forked; between fork and exec it makes only direct system calls. What it is
//! confined to holds for every process it starts. fnmesh isolates faults; it does not claim to isolate hostile tenants.

mod access;
mod kin;
mod landlock;
mod levels;
mod limits;
mod mounts;
mod seccomp;
mod supervisor;
mod temporary;
mod trial;

use std::{
    io,
    os::fd::RawFd,
    path::{Path, PathBuf},
    sync::Arc,
};

pub use self::levels::{Level, Levels, Mode};
pub(crate) use self::{
    access::Access,
    supervisor::Handover,
    temporary::{Temporary, unlinked_bytes, used_bytes},
};
use self::{
    landlock::{Gaps, Landlock, OpenRules, Rules},
    limits::Limits,
    seccomp::Filters,
    supervisor::{Asking, Supervisor},
    temporary::Root,
    trial::trial,
};
use super::cgroup::{Bounds, Cgroups};

/// What this node confines its workers by.
pub(crate) struct Sandbox {
    levels: Levels,
    filters: Option<Arc<Filters>>,
    supervisor: Option<Supervisor>,
    landlock: Option<Landlock>,
    temporaries: Option<Arc<Root>>,
    pub(crate) cgroups: Option<Arc<Cgroups>>,
}

impl Sandbox {
    /// Finds out what works on this machine, by trying it in processes of their own. Temporary directories of
    /// workers will be in `temporaries`. Blocks for some milliseconds.
    pub(crate) fn new(mode: Mode, temporaries: &Path) -> Self {
        let levels = Levels::all(mode, &Level::Off("not asked for".to_owned()));
        let mut sandbox =
            Self { levels, filters: None, supervisor: None, landlock: None, temporaries: None, cgroups: None };
        if mode != Mode::Off {
            sandbox.levels.rlimits = Level::On(None);
            sandbox.find_privileges();
            sandbox.find_landlock(temporaries);
            sandbox.find_filters();
            sandbox.find_cgroups();
        }
        sandbox
    }

    /// What was found.
    pub(crate) fn levels(&self) -> &Levels {
        &self.levels
    }

    /// What a worker with this access and these bounds is confined by.
    ///
    /// # Errors
    /// When the directory or the rules cannot be made.
    pub(crate) fn prepare(&self, access: Option<&Access>, bounds: &Bounds) -> io::Result<Confinement> {
        let temporary = self.temporaries.as_ref().map(Root::directory).transpose()?;
        let place = temporary.as_ref().map(Temporary::path);
        let private = self.levels.private_mounts.is_on();
        let (rules, open) = match (&self.landlock, access) {
            (Some(landlock), Some(access)) => (Some(landlock.rules(access, place, private)?), None),
            (Some(_), None) => {
                let (rules, open) = Landlock::open_rules(private)?;
                (Some(rules), Some(Open { rules: Some(open), temporary: place.map(Path::to_owned) }))
            }
            (None, Some(_)) => (None, None),
            (None, None) => (None, Some(Open { rules: None, temporary: None })),
        };
        let (asking, handover) = self.supervisor.as_ref().map(Supervisor::hire).transpose()?.unzip();
        let entry = self.entry(bounds, rules, asking);
        Ok(Confinement { entry, handover, temporary, open })
    }

    /// Completes the rules that a worker has yet to enter, and says by which of its descriptors; `None` if there are none.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub(crate) fn close(&self, open: Open, access: &Access) -> io::Result<Option<RawFd>> {
        match (&self.landlock, open.rules) {
            (Some(landlock), Some(rules)) => landlock.close(rules, access, open.temporary.as_deref()),
            _ => Ok(None),
        }
    }

    fn entry(&self, bounds: &Bounds, rules: Option<Rules>, asking: Option<Asking>) -> Entry {
        let levels = &self.levels;
        let limits = match levels.mode {
            Mode::Off => Limits::least(),
            Mode::Auto | Mode::Strict => Limits::new(bounds.temporary_bytes, self.cgroups.is_some()),
        };
        Entry {
            limits,
            private_mounts: levels.private_mounts.is_on(),
            drop_capabilities: levels.capabilities.is_on(),
            no_new_privs: levels.no_new_privs.is_on(),
            rules,
            filters: self.filters.clone(),
            asking,
        }
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
        let gaps = self.landlock.as_ref().map_or(Gaps::WITHOUT_LANDLOCK, Landlock::gaps);
        let found = Filters::new(std::process::id(), gaps).map_err(io::Error::other).and_then(|filters| {
            trial(|| limits::no_new_privileges().and_then(|()| filters.install()))?;
            Ok(filters)
        });
        match found {
            Ok(filters) => {
                self.filters = Some(Arc::new(filters));
                self.levels.seccomp = match Self::find_supervisor(gaps) {
                    Ok(supervisor) => {
                        self.supervisor = Some(supervisor);
                        Level::On(None)
                    }
                    Err(error) => {
                        Level::On(Some(format!("threads of other processes can be named to the kernel: {error}")))
                    }
                };
            }
            Err(error) => self.levels.seccomp = Level::Off(error.to_string()),
        }
        if let Some(landlock) = &self.landlock {
            let open = Gaps {
                truncation: gaps.truncation && self.filters.is_none(),
                signals: gaps.signals && self.supervisor.is_none(),
            };
            self.levels.landlock = Level::On(Some(landlock.describe(open)));
        }
    }

    fn find_supervisor(gaps: Gaps) -> io::Result<Supervisor> {
        let program = seccomp::asking(gaps).map_err(io::Error::other)?;
        trial(|| limits::no_new_privileges().and_then(|()| seccomp::install_asking(&program).map(drop)))?;
        Supervisor::start(program)
    }

    fn find_landlock(&mut self, temporaries: &Path) {
        let found = Landlock::new().and_then(|landlock| {
            let rules = landlock.rules(&Access::default(), None, false)?;
            trial(|| limits::no_new_privileges().and_then(|()| rules.enter()))?;
            Ok(landlock)
        });
        self.levels.landlock = match &found {
            Ok(landlock) => Level::On(Some(landlock.describe(landlock.gaps()))),
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

/// What one worker is confined by, and what the node has to do with it.
pub(crate) struct Confinement {
    pub(crate) entry: Entry,
    /// To be completed once the worker has entered.
    pub(crate) handover: Option<Handover>,
    pub(crate) temporary: Option<Temporary>,
    /// Where the access is not known yet: what is left to do then.
    pub(crate) open: Option<Open>,
}

/// What is left to do for a worker that was started before its app was known: with Landlock, its rules.
pub(crate) struct Open {
    rules: Option<OpenRules>,
    /// Its temporary directory.
    temporary: Option<PathBuf>,
}

/// What one worker enters between fork and exec.
pub(crate) struct Entry {
    limits: Limits,
    private_mounts: bool,
    drop_capabilities: bool,
    no_new_privs: bool,
    rules: Option<Rules>,
    filters: Option<Arc<Filters>>,
    asking: Option<Asking>,
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
        if let Some(filters) = &self.filters {
            filters.install()?;
        }
        match &self.asking {
            Some(asking) => asking.enter(),
            None => Ok(()),
        }
    }
}
