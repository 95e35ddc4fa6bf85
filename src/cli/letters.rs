//! `hookfleet dead-letters`.

use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Args, Subcommand};
use serde_json::Value;

pub(super) use self::client::Client;
use super::by::By;
use super::output;
use super::output::{table, time};
use crate::config::Settings;
use crate::domain::escape::{self, quoted};
use crate::domain::fold::Entry;
use crate::domain::id::LetterId;
use crate::domain::json::text_without_mark;
use crate::operations::Edited;
use crate::operations::api_types::{Asked, EditAsked, Grouped, Listed, PageAsked, ResolveAsked};

mod client;
mod replay;
mod show;

#[derive(Debug, Subcommand)]
pub(super) enum Letters {
    /// Letters with their state, newest first
    List {
        #[command(flatten)]
        which: Which,
        /// How many at most
        #[arg(long, value_name = "N", default_value_t = crate::operations::api_types::PAGE)]
        limit: usize,
        /// Where the page before ended
        #[arg(long, value_name = "CURSOR")]
        after: Option<String>,
        #[arg(long)]
        json: bool,
    },
    /// Letters by cause: what failed, how often, since when
    Groups {
        #[command(flatten)]
        which: Which,
        #[arg(long)]
        json: bool,
    },
    /// One letter, or those of an event: what failed, when, why, what was sent, and what to do next
    Show {
        /// Of the letter, or of the event
        id: String,
        /// The event itself too
        #[arg(long)]
        body: bool,
        /// All of it
        #[arg(long)]
        json: bool,
    },
    /// Letters in full, one a line, oldest first
    Export {
        #[command(flatten)]
        which: Which,
        /// The events themselves too
        #[arg(long)]
        body: bool,
        /// Newline-delimited JSON, which is the only format
        #[arg(long)]
        ndjson: bool,
    },
    /// Send the work of letters out again; doing it twice does it once, and asking again goes on with what is left
    Replay(replay::Replay),
    /// Send a letter's event out with other data, as a new event
    Edit {
        id: String,
        /// The new data as JSON, or @FILE
        #[arg(long, value_name = "JSON|@FILE", required_unless_present = "patch", conflicts_with = "patch")]
        data: Option<String>,
        /// An object to merge (RFC 7396) or a list of operations (RFC 6902), or @FILE
        #[arg(long, value_name = "JSON|@FILE")]
        patch: Option<String>,
        #[command(flatten)]
        by: By,
        #[arg(long)]
        json: bool,
    },
    /// Close letters: nothing is to be done about them any more
    Resolve {
        ids: Vec<String>,
        #[command(flatten)]
        which: Which,
        /// Every letter that is not closed
        #[arg(long)]
        all: bool,
        /// Why; it is kept with your name
        #[arg(long, value_name = "TEXT")]
        reason: String,
        #[command(flatten)]
        by: By,
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
    /// Append again what the broker's stream lost in a power cut, from the copies of the last hour
    Recover,
}

/// Longest text of a client's in a column, in characters.
const CELL_CHARS_MAX: usize = 64;

/// Which letters: those that everything given holds for.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Which letters")]
pub(super) struct Which {
    /// Of this hook; `*` is any run of characters
    #[arg(long, value_name = "ID")]
    hook: Option<String>,
    /// Of events of this type; `*` is any run of characters
    #[arg(long = "type", value_name = "TYPE")]
    kind: Option<String>,
    /// Of the event with this id, or of one that was edited from it
    #[arg(long, value_name = "ID")]
    event: Option<String>,
    /// exhausted, rejected, target_blocked, unreadable, unidentified, invalid, unrouted, poisoned, hook_removed,
    /// hook_disabled, expired
    #[arg(long)]
    class: Option<String>,
    /// all, unresolved, open, replaying, resolved
    #[arg(long)]
    state: Option<String>,
    /// Written then or later: 2026-11-21T10:00:00Z, or 2h ago
    #[arg(long, value_name = "TIME|AGO")]
    since: Option<String>,
    /// Written before then
    #[arg(long, value_name = "TIME|AGO")]
    until: Option<String>,
    /// Found in the error, the target, or the event's id, source or subject
    #[arg(long)]
    text: Option<String>,
    /// Of this session: the event's data.session_id, or its attribute sessionid
    #[arg(long, value_name = "ID")]
    session: Option<String>,
    /// Of this run: the event's data.run_id, or its attribute runid
    #[arg(long, value_name = "ID")]
    run: Option<String>,
    /// Of this group, as `groups` names it
    #[arg(long, value_name = "GROUP")]
    group: Option<String>,
}

impl Which {
    fn asked(&self) -> Asked {
        let Self { hook, kind, event, class, state, since, until, text, session, run, group } = self.clone();
        Asked { hook, kind, event, class, state, since, until, text, session, run, group }
    }
}

fn ids(ids: &[String]) -> Vec<LetterId> {
    ids.iter().map(|id| LetterId::from(id.as_str())).collect()
}

pub(super) async fn run(settings: &Settings, letters: Letters) -> anyhow::Result<ExitCode> {
    let mut client = Client::open(settings).await?;
    if matches!(&letters, Letters::Replay(replay) if replay.names_hook()) {
        client = client.with_hooks(settings).await;
    }
    let ended = act(&client, letters, settings).await;
    client.close().await;
    ended
}

async fn act(client: &Client, letters: Letters, settings: &Settings) -> anyhow::Result<ExitCode> {
    match letters {
        Letters::List { which, limit, after, json } => {
            let asked = PageAsked { which: which.asked(), after, limit: Some(limit.to_string()) };
            list(&client.list(&asked).await?, json)?;
        }
        Letters::Groups { which, json } => groups(&client.groups(&which.asked()).await?, json)?,
        Letters::Show { id, body, json } => return show::run(client, &id, body, json).await,
        Letters::Export { which, body, ndjson: _ } => {
            client.export(&which.asked(), body, &mut |line| output::out(line)).await?;
        }
        Letters::Replay(replay) => return replay::run(client, replay, settings.claims.window).await,
        Letters::Edit { id, data, patch, by, json } => {
            let data = data.map(|text| given("--data", &text)).transpose()?.map(Value::String);
            let patch = patch.map(|text| given("--patch", &text)).transpose()?;
            let patch = patch
                .map(|text| serde_json::from_str(text_without_mark(&text)))
                .transpose()
                .context("--patch: expected JSON")?;
            let sent = client.edit(&id, &EditAsked { data, patch, by: Some(by.name()) }).await?;
            output::out(&edited(&sent, json)?);
        }
        Letters::Resolve { ids: named, which, all, reason, by, yes } => {
            let asked =
                ResolveAsked { ids: ids(&named), filter: Some(which.asked()), all, reason, by: Some(by.name()) };
            if !(yes || named.len() == 1 || replay::confirmed("Close these letters?")?) {
                return Ok(ExitCode::FAILURE);
            }
            output::out(&format!("{} letters resolved", client.resolve(&asked).await?.resolved));
        }
        Letters::Recover => output::out(&client.recover().await?),
    }
    Ok(ExitCode::SUCCESS)
}

fn edited(sent: &Edited, json: bool) -> anyhow::Result<String> {
    if json {
        return Ok(serde_json::to_string(sent)?);
    }
    let Edited { id, generation, event } = sent;
    let (event, source) = (quoted(&event.id), quoted(&event.source));
    Ok(format!(
        "{id} sent with other data, as generation {generation}: event {event} of source {source}\nThe letter is resolved when \
         that is done: `hookfleet dead-letters show {id}` tells"
    ))
}

/// A text, or what stands in the file that it names.
fn given(flag: &str, text: &str) -> anyhow::Result<String> {
    match text.strip_prefix('@') {
        Some(path) => std::fs::read_to_string(path).with_context(|| format!("cannot read {flag} {path}")),
        None => Ok(text.to_owned()),
    }
}

fn list(page: &Listed, json: bool) -> anyhow::Result<()> {
    if json {
        output::out(&serde_json::to_string(page)?);
        return Ok(());
    }
    if page.items.is_empty() {
        output::out("no letters");
        return Ok(());
    }
    let row = |entry: &Entry| {
        let letter = &entry.letter;
        let dash = || "-".to_owned();
        vec![
            letter.id.to_string(),
            time(letter.at_ms),
            word(&entry.state),
            letter.class.name(),
            letter.hook.as_deref().map_or_else(dash, str::to_owned),
            letter.event.as_ref().map_or_else(dash, |event| one_line(&event.id)),
            letter.event.as_ref().map_or_else(dash, |event| event.kind.to_string()),
            letter.event.as_ref().and_then(|event| event.subject.as_deref()).map_or_else(dash, one_line),
            entry.count.to_string(),
            letter.error.to_string(),
        ]
    };
    let head = ["ID", "WRITTEN", "STATE", "CLASS", "HOOK", "EVENT", "TYPE", "SUBJECT", "COUNT", "ERROR"];
    output::out(&table(&head, page.items.iter().map(row)));
    if let Some(next) = &page.next {
        output::err(&format!("there are more: --after {next}"));
    }
    Ok(())
}

fn groups(groups: &Grouped, json: bool) -> anyhow::Result<()> {
    if json {
        output::out(&serde_json::to_string(groups)?);
    } else if groups.items.is_empty() {
        output::out("no letters");
    } else {
        output::out(&replay::causes(&groups.items));
    }
    Ok(())
}

/// What a client wrote, in a column: whole if it is short, and nothing that a terminal takes for a command.
fn one_line(text: &str) -> String {
    escape::sentence(text, CELL_CHARS_MAX)
}

pub(super) fn word(state: &impl serde::Serialize) -> String {
    let word = serde_json::to_value(state).ok();
    word.as_ref().and_then(Value::as_str).unwrap_or_default().to_owned()
}
