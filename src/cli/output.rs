//! Where the program speaks to its user; everything else logs.

use std::io::{IsTerminal as _, Write as _};
use std::sync::OnceLock;

use anyhow::Context as _;
use serde::Serialize;
use serde_json::Value;

use super::place::Place;
use crate::telemetry::logs::is_coloured;

mod layout;

/// How this process was asked to answer. Set once, before the command runs.
static ASKED: OnceLock<Asked> = OnceLock::new();

struct Asked {
    json: bool,
    place: Option<Place>,
}

/// Sets how this process answers, and says what it talks to: a line on stderr, or the member `place` of its JSON.
pub(super) fn begin(json: bool, place: Option<Place>) {
    if let Some(place) = place.as_ref().filter(|_| !json) {
        err(&format!("using {place}"));
    }
    let _ = ASKED.set(Asked { json, place }); // a process runs one command
}

/// Whether JSON is to be printed, and nothing else on standard output.
pub(super) fn is_json() -> bool {
    ASKED.get().is_some_and(|asked| asked.json)
}

/// What this command talks to, if to anything.
pub(super) fn place() -> Option<&'static Place> {
    ASKED.get().and_then(|asked| asked.place.as_ref())
}

/// What came of a command: one JSON object on one line, if JSON was asked for, else a text.
///
/// # Errors
/// It is no JSON object.
pub(super) fn answer(json: &impl Serialize, text: impl FnOnce() -> String) -> anyhow::Result<()> {
    if !is_json() {
        out(&text());
        return Ok(());
    }
    let mut object = match serde_json::to_value(json)? {
        Value::Object(object) => object,
        other => anyhow::bail!("expected an object to print, found {other}"),
    };
    if let Some(place) = place() {
        object.insert("place".to_owned(), serde_json::to_value(place).context("the place is no JSON")?);
    }
    out(&Value::Object(object).to_string());
    Ok(())
}

/// One line or more to standard output. A closed pipe is no error of ours: `hookfleet … | head` ends quietly.
pub(super) fn out(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{}", text.trim_end_matches('\n'));
    let _ = out.flush();
}

/// One line or more to standard error.
pub(super) fn err(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{}", text.trim_end_matches('\n'));
}

/// Rows below each other, as a terminal has room for them: see [`layout::table`]. Elsewhere every row is one line.
pub(super) fn table(head: &[&str], rows: impl Iterator<Item = Vec<String>>) -> String {
    let stdout = std::io::stdout();
    let width = stdout.is_terminal().then(terminal_size::terminal_size).flatten();
    let table = layout::table(head, &rows.collect::<Vec<_>>(), width.map(|(width, _)| width.0));
    match table.split_once('\n') {
        Some((first, rest)) if is_coloured(&stdout) => format!("{}\n{rest}", Colour::Bold.on(first)),
        _ => table,
    }
}

/// Rows on standard error, for people only: 80 columns wide, wherever they go.
pub(super) fn table_for_people(head: &[&str], rows: &[Vec<String>]) -> String {
    layout::table(head, rows, Some(80))
}

/// How a word stands out on a terminal.
#[derive(Debug, Clone, Copy)]
pub(super) enum Colour {
    Bold,
    Red,
    Yellow,
    Green,
}

impl Colour {
    fn on(self, text: &str) -> String {
        let code = match self {
            Self::Bold => 1,
            Self::Red => 31,
            Self::Yellow => 33,
            Self::Green => 32,
        };
        format!("\u{1b}[{code}m{text}\u{1b}[0m")
    }

    /// The text in this colour, if standard output shows colours.
    pub(super) fn wanted(self, text: &str) -> String {
        if is_coloured(&std::io::stdout()) { self.on(text) } else { text.to_owned() }
    }
}

/// A time as people read it, from milliseconds since 1970.
pub(super) fn time(ms: u64) -> String {
    let seconds = i64::try_from(ms / 1000).ok().and_then(|seconds| jiff::Timestamp::from_second(seconds).ok());
    seconds.map_or_else(|| ms.to_string(), |time| time.to_string())
}
