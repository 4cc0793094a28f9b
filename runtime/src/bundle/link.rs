//! Where links lead.

use std::{
    ffi::OsString,
    fs,
    path::{Component, Path, PathBuf},
};

/// As many links follow each other as the kernel follows.
const MAX_LINKS: usize = 40;

/// Parts of paths that are looked at for one link, far more than any useful one has.
const MAX_STEPS: usize = 4096;

/// Whether a link in the directory `within` of `root`, which says `target`, leads out of `root`, in the end or on the
/// way there, by itself or through other links. What does not exist leads where its name says.
pub(super) fn leads_out(root: &Path, within: &Path, target: &Path) -> bool {
    let mut at = within.to_owned();
    let Some(mut steps) = steps(target) else { return true };
    let mut links = 1;
    for _ in 0..MAX_STEPS {
        let Some(step) = steps.pop() else { return false };
        let Step::Into(name) = step else {
            if at.pop() {
                continue;
            }
            return true;
        };
        at.push(name);
        let Ok(next) = fs::read_link(root.join(&at)) else { continue };
        links += 1;
        if links > MAX_LINKS {
            // Nobody can follow it.
            return false;
        }
        at.pop();
        match self::steps(&next) {
            Some(next) => steps.extend(next),
            None => return true,
        }
    }
    true
}

enum Step {
    Up,
    Into(OsString),
}

/// The parts of `path`, the first one last; `None` when it is absolute.
fn steps(path: &Path) -> Option<Vec<Step>> {
    let mut steps = Vec::new();
    for part in path.components().rev() {
        match part {
            Component::Prefix(_) | Component::RootDir => return None,
            Component::CurDir => {}
            Component::ParentDir => steps.push(Step::Up),
            Component::Normal(name) => steps.push(Step::Into(name.to_owned())),
        }
    }
    Some(steps)
}

/// The directory in which `path`, relative, lies.
pub(super) fn parent(path: &Path) -> PathBuf {
    path.parent().map(Path::to_owned).unwrap_or_default()
}
