//! Where tracing events go: stderr, as text, as JSON, or as `fnmesh dev` shows them.

mod dev;

use tracing_subscriber::{
    Layer, Registry,
    filter::{ParseError, Targets},
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
/// When `levels` cannot be read.
pub(crate) fn install(format: Format, levels: &str) -> Result<(), ParseError> {
    let levels: Targets = levels.parse()?;
    let layer: Box<dyn Layer<Registry> + Send + Sync> = match format {
        Format::Text => fmt::layer().with_writer(Line::default).boxed(),
        Format::Json => fmt::layer().json().flatten_event(true).with_writer(Line::default).boxed(),
        Format::Dev => dev::Lines.boxed(),
    };
    // A second node in this process keeps the first one's subscriber.
    let _ = tracing_subscriber::registry().with(layer.with_filter(levels)).try_init();
    Ok(())
}
