//! Shows a node's events to people, or as JSON lines to programs.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    net::SocketAddr,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use anstyle::Style;
use fnmesh_invoke::{AppStatus, Failure, Function};
use indicatif::ProgressBar;

use crate::{
    event::Event,
    table::{self, Row},
    terminal::{self, DIM, ERROR, GOOD, HEADING, NAME, WARNING},
};

/// A duration with the digits a person wants.
pub(crate) fn elapsed(time: Duration) -> String {
    let us = time.as_micros();
    match us {
        0..1_000 => format!("{us} µs"),
        1_000..10_000 => format!("{:.1} ms", time.as_secs_f64() * 1e3),
        10_000..1_000_000 => format!("{} ms", us / 1_000),
        _ => format!("{:.1} s", time.as_secs_f64()),
    }
}

/// The stack of a failure without the line that says again what was raised.
pub(crate) fn stack_lines<'a>(kind: &str, message: &str, stack: &'a str) -> impl Iterator<Item = &'a str> {
    let raised = format!("{kind}: {message}");
    let lines = stack.trim_end().lines();
    lines.filter(move |line| *line != raised)
}

/// Prints each event to stdout as one JSON line.
pub(crate) fn json(event: &Event) {
    // All keys are strings and all maps are ours, so this cannot fail.
    if let Ok(line) = serde_json::to_string(event) {
        terminal::print(&(line + "\n"));
    }
}

/// Prints events for people.
#[derive(Debug, Default)]
pub(crate) struct Report {
    state: Mutex<State>,
    /// Whether nobody is to start more nodes beside this one, or to name it more apps.
    is_complete: bool,
}

#[derive(Debug, Default)]
struct State {
    url: String,
    /// One per app whose dependencies are being installed; only on a terminal.
    bars: BTreeMap<String, ProgressBar>,
}

impl Report {
    /// Without hints at what could be started, too.
    pub(crate) fn complete() -> Self {
        Self { is_complete: true, ..Self::default() }
    }

    /// Prints one event.
    pub(crate) fn show(&self, event: &Event) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        match event {
            Event::Listening { url, .. } => {
                state.url.clone_from(url);
                if self.is_complete {
                    return terminal::print(&listening(url));
                }
            }
            Event::Meshed { node, address, .. } if self.is_complete => {
                return terminal::print(&meshed(node, *address, None));
            }
            Event::Installing { app, step } if terminal::is_stderr() => return state.progress(app, step),
            Event::Ready { app, .. } | Event::Reloaded { app, .. } => state.finish(&app.name),
            Event::Failed { app, .. } => state.finish(app),
            _ => {}
        }
        terminal::print(&text(event, &state.url));
    }
}

impl State {
    fn progress(&mut self, app: &str, step: &str) {
        let bar = self.bars.entry(app.to_owned()).or_insert_with(|| {
            let bar = terminal::progress().add(ProgressBar::new_spinner());
            bar.enable_steady_tick(Duration::from_millis(100));
            bar
        });
        bar.set_message(format!("{app}: {step}"));
    }

    fn finish(&mut self, app: &str) {
        if let Some(bar) = self.bars.remove(app) {
            bar.finish_and_clear();
        }
    }
}

fn text(event: &Event, url: &str) -> String {
    match event {
        Event::Listening { url, apps, .. } => listening(url) + &loading(apps),
        Event::Meshed { node, address, join } => meshed(node, *address, join.as_deref()),
        Event::Installing { app, step } => format!("{NAME}{app}{NAME:#}: {step}\n"),
        Event::Ready { app, elapsed_ms } => {
            format!("{GOOD}ready{GOOD:#} {NAME}{}{NAME:#} {}\n", app.name, took(*elapsed_ms, &app.version))
        }
        Event::Reloaded { app, elapsed_ms, added, removed } => reloaded(app, *elapsed_ms, added, removed),
        Event::Failed { app, error, serving, .. } => failed(app, error, serving.as_deref()),
        Event::Removed { app } => {
            format!("{WARNING}removed{WARNING:#} {NAME}{app}{NAME:#}: this node serves it no longer\n")
        }
        Event::Settled { apps } => routes(apps, url),
        Event::DirectoryGone { app, directory } => format!(
            "{WARNING}gone{WARNING:#} {NAME}{app}{NAME:#}: {directory} is no longer there; \
             its last version keeps serving until it is back\n"
        ),
        Event::DirectoryBack { app, directory } => {
            format!("{GOOD}back{GOOD:#} {NAME}{app}{NAME:#}: {directory} is there again\n")
        }
        Event::Draining { in_flight } => {
            let calls = if *in_flight == 1 { "call" } else { "calls" };
            format!("draining, {in_flight} {calls} in flight; press Ctrl-C again to stop now\n")
        }
        Event::Stopped { cut_off: 0 } => "stopped\n".to_owned(),
        Event::Stopped { cut_off } => format!("{WARNING}stopped{WARNING:#}, calls cut off: {cut_off}\n"),
    }
}

fn listening(url: &str) -> String {
    format!("{HEADING}fnmesh {}{HEADING:#} listens on {NAME}{url}{NAME:#}\n", env!("CARGO_PKG_VERSION"))
}

fn loading(apps: &[String]) -> String {
    if apps.is_empty() {
        "no app named; fnmesh serve DIR... serves directories of functions, fnmesh deploy DIR deploys them to a mesh\n"
            .to_owned()
    } else {
        format!("{DIM}loading {}{DIM:#}\n", apps.join(", "))
    }
}

fn meshed(node: &str, address: SocketAddr, join: Option<&str>) -> String {
    let mut out = format!("node {NAME}{node}{NAME:#} at {address}\n");
    if let Some(join) = join {
        let _ = writeln!(out, "one more machine joins within 10 minutes with\n  fnmesh serve {join}");
    }
    out
}

fn took(elapsed_ms: u64, version: &str) -> String {
    format!("{DIM}in {} (v: {version}){DIM:#}", elapsed(Duration::from_millis(elapsed_ms)))
}

fn reloaded(app: &AppStatus, elapsed_ms: u64, added: &[String], removed: &[String]) -> String {
    let mut out = format!("{GOOD}reloaded{GOOD:#} {NAME}{}{NAME:#} {}\n", app.name, took(elapsed_ms, &app.version));
    for name in added {
        let signature = app.functions.iter().find(|function| function.id.to_string() == *name);
        let signature = signature.map(|function| function.signature.to_string()).unwrap_or_default();
        let _ = writeln!(out, "  {GOOD}+{GOOD:#} {name} {signature}");
    }
    for name in removed {
        let _ = writeln!(out, "  {ERROR}-{ERROR:#} {name}");
    }
    out
}

fn failed(app: &str, error: &Failure, serving: Option<&str>) -> String {
    let mut out = format!("{ERROR}failed{ERROR:#} {NAME}{app}{NAME:#}: {error}\n");
    for line in stack_lines(&error.kind, &error.message, &error.stack) {
        let _ = writeln!(out, "  {line}");
    }
    match serving {
        Some(version) => out + &format!("  {DIM}the last good version (v: {version}) keeps serving{DIM:#}\n"),
        None => out + &format!("  {DIM}calls of {app} are answered with this error{DIM:#}\n"),
    }
}

fn routes(apps: &[AppStatus], url: &str) -> String {
    let rows: Vec<_> = apps.iter().flat_map(|app| &app.functions).map(|function| route(function, url)).collect();
    if rows.is_empty() {
        String::new()
    } else {
        format!("\n{}\n", table::render(&["METHOD", "URL", "SIGNATURE"], rows))
    }
}

fn route(function: &Function, url: &str) -> Row {
    let method = match function {
        Function { public: false, .. } => "private",
        function if function.signature.takes_request => "any",
        _ => "GET POST",
    };
    let cells = vec![method.to_owned(), format!("{url}/{}", function.id), function.signature.to_string()];
    Row { cells, first: DIM, last: Style::new() }
}

#[cfg(test)]
mod tests;
