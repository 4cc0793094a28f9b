use std::{
    fmt::{self, Write as _},
    time::Duration,
};

use anstyle::Style;
use tracing::{
    Event, Level, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::{Layer, layer::Context};

use crate::{
    report::elapsed,
    terminal::{self, DIM, ERROR, GOOD, HEADING, NAME, WARNING},
};

/// Digits of an invocation's id that tell it apart from its neighbours.
const SHORT_ID: usize = 8;

/// Prints app logs, requests and everything else, each in its own short form.
#[derive(Debug)]
pub(super) struct Lines;

impl<S: Subscriber> Layer<S> for Lines {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let metadata = event.metadata();
        let line = match metadata.target() {
            "fnmesh::app" => app(*metadata.level(), &fields),
            // Probes and scrapers would drown what the apps do.
            "fnmesh::request" if fields.text("path").starts_with("/_/") => return,
            "fnmesh::request" => request(&fields),
            target => other(*metadata.level(), target, &fields),
        };
        terminal::print_error(line.as_bytes());
    }
}

/// An event's fields as text, in their order.
#[derive(Default)]
struct Fields(Vec<(&'static str, String)>);

impl Fields {
    fn text(&self, name: &str) -> &str {
        self.0.iter().find(|(field, _)| *field == name).map_or("", |(_, value)| value)
    }

    fn number(&self, name: &str) -> u64 {
        self.text(name).parse().unwrap_or_default()
    }
}

impl Visit for Fields {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.push((field.name(), value.to_owned()));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.0.push((field.name(), format!("{value:?}")));
    }
}

/// `shop 1a2b3c4d │ one line`
fn app(level: Level, fields: &Fields) -> String {
    let style = level_style(level);
    let invocation = fields.text("invocation");
    let short = invocation.get(..SHORT_ID).unwrap_or(invocation);
    let (app, line) = (fields.text("app"), fields.text("line"));
    format!("{NAME}{app}{NAME:#} {DIM}{short:<SHORT_ID$}{DIM:#} {style}│{style:#} {line}\n")
}

/// `POST /shop/total 200 1.2 ms`
fn request(fields: &Fields) -> String {
    let status = fields.number("status");
    let style = match status {
        500.. => ERROR,
        400.. => WARNING,
        _ => GOOD,
    };
    let time = elapsed(Duration::from_micros(fields.number("elapsed_us")));
    let (method, path) = (fields.text("method"), fields.text("path"));
    format!("{HEADING}{method:<4}{HEADING:#} {path} {style}{status}{style:#} {DIM}{time}{DIM:#}\n")
}

/// `WARN worker died app=shop signal=9`
fn other(level: Level, target: &str, fields: &Fields) -> String {
    let style = level_style(level);
    let mut line = format!("{style}{level}{style:#} {}", fields.text("message"));
    for (name, value) in fields.0.iter().filter(|(name, _)| *name != "message") {
        // Writing to a String cannot fail.
        let _ = write!(line, " {DIM}{name}={DIM:#}{value}");
    }
    if !target.starts_with("fnmesh") {
        let _ = write!(line, " {DIM}({target}){DIM:#}");
    }
    line + "\n"
}

fn level_style(level: Level) -> Style {
    match level {
        Level::ERROR => ERROR,
        Level::WARN => WARNING,
        Level::INFO => GOOD,
        _ => DIM,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(pairs: &[(&'static str, &str)]) -> Fields {
        Fields(pairs.iter().map(|(name, value)| (*name, (*value).to_owned())).collect())
    }

    fn plain(text: &str) -> String {
        anstream::adapter::strip_str(text).to_string()
    }

    #[test]
    fn app_line_shows_app_and_short_invocation() {
        let id = "0123456789abcdef0123456789abcdef";
        let line = app(Level::INFO, &fields(&[("app", "shop"), ("invocation", id), ("line", "hello")]));
        assert_eq!(plain(&line), "shop 01234567 │ hello\n");
        let line = app(Level::WARN, &fields(&[("app", "shop"), ("line", "no call")]));
        assert_eq!(plain(&line), "shop          │ no call\n");
    }

    #[test]
    fn request_line_shows_status_and_time() {
        let pairs = [("method", "POST"), ("path", "/shop/total"), ("status", "200"), ("elapsed_us", "1234")];
        assert_eq!(plain(&request(&fields(&pairs))), "POST /shop/total 200 1.2 ms\n");
    }

    #[test]
    fn other_events_keep_all_fields() {
        let line = other(Level::WARN, "fnmesh::runtime", &fields(&[("message", "worker died"), ("signal", "9")]));
        assert_eq!(plain(&line), "WARN worker died signal=9\n");
    }
}
