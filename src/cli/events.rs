//! `hookfleet events`.

use std::process::ExitCode;

use clap::{Args, Subcommand};

use super::answer::is_unknown;
use super::exit::Exit;
use super::invocations;
use super::output::{self, table, time};
use crate::config::Settings;
use crate::domain::at_hook::HookState;
use crate::domain::escape::quoted;
use crate::operations::events::{AtHook, EventKnown, Known, LetterKnown};

#[derive(Debug, Subcommand)]
pub(super) enum Events {
    /// Where an event is, hook by hook: running, waiting, parked, done, cancelled, or in a letter. Exit 3 if nothing is known
    Show(Show),
}

#[derive(Debug, Args)]
pub(super) struct Show {
    /// The event's id; or, without --source, what log lines show as `invocation` before the slash
    id: String,
    /// The event's source: with the id it names the event; without it only letters and a file are searched
    #[arg(long)]
    source: Option<String>,
}

pub(super) async fn run(settings: &Settings, events: Events) -> anyhow::Result<ExitCode> {
    let Events::Show(Show { id, source }) = events;
    let mut query = url::form_urlencoded::Serializer::new(String::new());
    query.append_pair("id", &id);
    if let Some(source) = &source {
        query.append_pair("source", source);
    }
    let path = format!("/v1/events?{}", query.finish());
    let known: Known = match invocations::get(settings, &path).await {
        Err(error) if is_unknown(&error) => {
            output::err(&error.to_string());
            return Ok(Exit::Ask.into());
        }
        answer => answer?,
    };
    output::answer(&known, || known.items.iter().map(shown).collect::<Vec<_>>().join("\n\n"))?;
    if !output::is_json() {
        for note in &known.notes {
            output::err(&format!("note: {note}"));
        }
    }
    Ok(Exit::Done.into())
}

/// One event: what is known of it, as a table, and how many hooks know nothing.
fn shown(known: &EventKnown) -> String {
    let EventKnown { event, id, source, kind, hooks, letters } = known;
    let named = |what: &str, text: &Option<String>| text.as_deref().map(|text| format!(" {what} {}", quoted(text)));
    let attributes = [named("id", id), named("source", source), named("type", kind)].into_iter().flatten();
    let mut lines = vec![format!("event {event}{}", attributes.collect::<String>())];
    lines.extend(letters.iter().map(|letter| format!("refused as a whole: letter {}", sentence(letter))));
    let known: Vec<&AtHook> = hooks.iter().filter(|at| at.state != HookState::Unknown).collect();
    if !known.is_empty() {
        lines.push(table(&["HOOK", "STATE", "GENERATION", "ATTEMPT", "DUE", "LETTER"], known.iter().map(|at| row(at))));
    }
    match hooks.len() - known.len() {
        0 => {}
        others => lines.push(format!("of {others} other hooks of the catalog nothing is known")),
    }
    lines.join("\n")
}

fn row(at: &AtHook) -> Vec<String> {
    let number = |number: Option<u32>| number.map_or_else(|| "-".to_owned(), |number| number.to_string());
    vec![
        at.hook.clone(),
        word(at.state).to_owned(),
        number(at.generation),
        number(at.attempt),
        at.due_ms.map_or_else(|| "-".to_owned(), time),
        at.letter.as_ref().map_or_else(|| "-".to_owned(), sentence),
    ]
}

fn sentence(LetterKnown { id, state, class, error, .. }: &LetterKnown) -> String {
    let state = super::letters::word(state);
    format!("{id} ({state}, {}): {error}", class.name())
}

const fn word(state: HookState) -> &'static str {
    match state {
        HookState::Running => "running",
        HookState::Waiting => "waiting",
        HookState::Parked => "parked",
        HookState::Done => "done",
        HookState::DeadLetter => "in letters",
        HookState::Cancelled => "cancelled",
        HookState::Unknown => "unknown",
    }
}
