//! Where tracing events go: stderr, as text, as JSON, or as `fnmesh dev` shows them.

mod dev;

use tracing_subscriber::{
    Layer, Registry,
    filter::{LevelFilter, Targets},
    fmt,
    layer::SubscriberExt as _,
    util::SubscriberInitExt as _,
};

use crate::terminal::Line;

/// How log events are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    /// A line for people, with time, level and target.
    Text,
    /// A JSON object per line.
    Json,
    /// What happens, as short as can be.
    Dev,
}

/// Sends all events of this process that `levels` lets through to stderr.
///
/// `levels` is a level, or levels by target: `info,fnmesh::request=debug`.
///
/// # Errors
/// The part of `levels` that cannot be read.
pub(crate) fn install(format: Format, levels: &str) -> Result<(), String> {
    let levels = parse(levels)?;
    let layer: Box<dyn Layer<Registry> + Send + Sync> = match format {
        Format::Text => fmt::layer().with_writer(Line::default).boxed(),
        Format::Json => fmt::layer().json().flatten_event(true).with_writer(Line::default).boxed(),
        Format::Dev => dev::Lines.boxed(),
    };
    // A second node in this process keeps the first one's subscriber.
    let _ = tracing_subscriber::registry().with(layer.with_filter(levels)).try_init();
    Ok(())
}

fn parse(levels: &str) -> Result<Targets, String> {
    let mut targets = Targets::new();
    for part in levels.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let (target, level) = part.split_once('=').map_or((None, part), |(target, level)| (Some(target), level));
        let level: LevelFilter = level.parse().map_err(|_| part.to_owned())?;
        targets = match target {
            Some(target) => targets.with_target(target, level),
            None => targets.with_default(level),
        };
    }
    Ok(targets)
}

#[cfg(test)]
mod tests {
    use tracing::Level;

    use super::*;

    #[test]
    fn levels_hold_by_target() {
        let levels = parse("warn, fnmesh::request=debug").unwrap();
        assert!(levels.would_enable("fnmesh::request", &Level::DEBUG));
        assert!(!levels.would_enable("fnmesh::app", &Level::INFO));
    }

    #[test]
    fn part_that_is_no_level_is_named() {
        assert_eq!(parse("info,loud").unwrap_err(), "loud");
        assert_eq!(parse("fnmesh::app=loud").unwrap_err(), "fnmesh::app=loud");
    }
}
