use std::{fmt, str::FromStr};

use serde::{Serialize, Serializer};

/// How much confinement of workers is asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// None but a process of their own, its end with the node's, and no core dumps.
    Off,
    /// Every level that this machine has; what it lacks is reported and left out.
    #[default]
    Auto,
    /// As [`Mode::Auto`], but [`Levels::missing`] must be empty for a node to start.
    Strict,
}

impl FromStr for Mode {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "off" => Ok(Self::Off),
            "auto" => Ok(Self::Auto),
            "strict" => Ok(Self::Strict),
            _ => Err("write off, auto or strict".to_owned()),
        }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Off => "off",
            Self::Auto => "auto",
            Self::Strict => "strict",
        })
    }
}

/// Whether one kind of confinement is in force. As JSON: `{"on": true, "detail": "ABI 7"}`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Level {
    /// It is, in this form where there are several.
    On(Option<String>),
    /// It is not, for this reason.
    Off(String),
}

impl Level {
    /// Whether it is in force.
    pub fn is_on(&self) -> bool {
        matches!(self, Self::On(_))
    }

    pub(super) fn of<E: fmt::Display>(result: &Result<(), E>) -> Self {
        match result {
            Ok(()) => Self::On(None),
            Err(error) => Self::Off(error.to_string()),
        }
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::On(None) => f.write_str("on"),
            Self::On(Some(detail)) => write!(f, "on ({detail})"),
            Self::Off(reason) => write!(f, "off ({reason})"),
        }
    }
}

impl Serialize for Level {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Shown<'a> {
            on: bool,
            #[serde(skip_serializing_if = "Option::is_none")]
            detail: Option<&'a str>,
        }
        let detail = match self {
            Self::On(detail) => detail.as_deref(),
            Self::Off(reason) => Some(reason.as_str()),
        };
        Shown { on: self.is_on(), detail }.serialize(serializer)
    }
}

/// How far workers of this node are confined, as `/_/health` shows it.
#[derive(Clone, Debug, Serialize)]
pub struct Levels {
    /// What was asked for.
    pub mode: Mode,
    /// Bounds on open files, on the size of one file, on core dumps, and on processes where a cgroup has none.
    pub rlimits: Level,
    /// Programs that a worker starts gain no rights.
    pub no_new_privs: Level,
    /// Of root's capabilities a worker has only those that concern files.
    pub capabilities: Level,
    /// System calls that no function needs are refused.
    pub seccomp: Level,
    /// A worker sees its own app, its interpreter and the system; it writes to its own temporary directory.
    pub landlock: Level,
    /// `/proc` shows a worker only its own processes, and `/dev/shm` is its own.
    pub private_mounts: Level,
    /// Memory and processes of an instance have hard bounds, and all of them end together.
    pub cgroup: Level,
}

impl Levels {
    /// The same level throughout.
    pub(super) fn all(mode: Mode, level: &Level) -> Self {
        let level = || level.clone();
        Self {
            mode,
            rlimits: level(),
            no_new_privs: level(),
            capabilities: level(),
            seccomp: level(),
            landlock: level(),
            private_mounts: level(),
            cgroup: level(),
        }
    }

    /// Levels that [`Mode::Strict`] demands and this machine lacks, each with the reason.
    ///
    /// Capabilities are root's alone, and only root can have private mounts: neither is demanded.
    pub fn missing(&self) -> Vec<String> {
        self.named()
            .into_iter()
            .filter(|(name, level)| !matches!(*name, "capabilities" | "private_mounts") && !level.is_on())
            .map(|(name, level)| format!("{name} is {level}"))
            .collect()
    }

    fn named(&self) -> [(&'static str, &Level); 7] {
        [
            ("rlimits", &self.rlimits),
            ("no_new_privs", &self.no_new_privs),
            ("capabilities", &self.capabilities),
            ("seccomp", &self.seccomp),
            ("landlock", &self.landlock),
            ("private_mounts", &self.private_mounts),
            ("cgroup", &self.cgroup),
        ]
    }
}

/// One line: `landlock on (ABI 7), cgroup off (…)`.
impl fmt::Display for Levels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (name, level)) in self.named().into_iter().enumerate() {
            let separator = if index == 0 { "" } else { ", " };
            write!(f, "{separator}{name} {level}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strict_names_what_is_missing_and_why() {
        let mut levels = Levels::all(Mode::Strict, &Level::On(None));
        assert_eq!(levels.missing(), [""; 0]);
        levels.capabilities = Level::Off("not root".into());
        levels.landlock = Level::Off("Linux 5.13 or newer is needed".into());
        assert_eq!(levels.missing(), ["landlock is off (Linux 5.13 or newer is needed)"]);
    }

    #[test]
    fn levels_as_json_say_why_they_are_off() {
        let mut levels = Levels::all(Mode::Auto, &Level::On(None));
        levels.cgroup = Level::Off("no delegation".into());
        levels.landlock = Level::On(Some("ABI 7".into()));
        let json = serde_json::to_value(&levels).unwrap();
        assert_eq!(json["mode"], "auto");
        assert_eq!(json["cgroup"], serde_json::json!({"on": false, "detail": "no delegation"}));
        assert_eq!(json["landlock"], serde_json::json!({"on": true, "detail": "ABI 7"}));
        assert_eq!(json["seccomp"], serde_json::json!({"on": true}));
    }

    #[test]
    fn modes_are_read_as_they_are_written() {
        for mode in [Mode::Off, Mode::Auto, Mode::Strict] {
            assert_eq!(mode.to_string().parse(), Ok(mode));
        }
        assert!("on".parse::<Mode>().is_err());
    }
}
