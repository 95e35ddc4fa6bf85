//! `hookfleet dead-letters`.

use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Args, Subcommand};
use serde_json::{Value, json};

pub(super) use self::client::Client;
use super::by::By;
use super::hooks::unknown_hook;
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
    },
    /// Letters by cause: what failed, how often, since when
    Groups {
        #[command(flatten)]
        which: Which,
    },
    /// One letter, or those of an event: what failed, when, why, what was sent, and what to do next
    Show {
        /// Of the letter, or of the event
        id: String,
        /// The event itself too
        #[arg(long)]
        body: bool,
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

impl Letters {
    /// Whether the command looks at letters and changes nothing.
    fn only_reads(&self) -> bool {
        match self {
            Self::List { .. } | Self::Groups { .. } | Self::Show { .. } | Self::Export { .. } => true,
            Self::Replay(replay) => replay.only_reads(),
            Self::Edit { .. } | Self::Resolve { .. } | Self::Recover => false,
        }
    }
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
    /// Of hooks of this dialect, such as kheish
    #[arg(long)]
    dialect: Option<String>,
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
        let Self { hook, kind, event, class, dialect, state, since, until, text, session, run, group } = self.clone();
        Asked { hook, kind, event, class, dialect, state, since, until, text, session, run, group }
    }
}

fn ids(ids: &[String]) -> Vec<LetterId> {
    ids.iter().map(|id| LetterId::from(id.as_str())).collect()
}

pub(super) async fn run(settings: &Settings, letters: Letters) -> anyhow::Result<ExitCode> {
    let mut client = Client::open(settings, letters.only_reads()).await?;
    if matches!(&letters, Letters::Replay(replay) if replay.names_hook()) {
        client = client.with_hooks(settings).await;
    }
    let ended = act(&client, letters, settings).await;
    client.close().await;
    ended
}

async fn act(client: &Client, letters: Letters, settings: &Settings) -> anyhow::Result<ExitCode> {
    match letters {
        Letters::List { which, limit, after } => {
            let asked = PageAsked { which: which.asked(), after, limit: Some(limit.to_string()) };
            let page = client.list(&asked).await?;
            list(&page)?;
            if page.items.is_empty() {
                tell_unknown(settings, asked.which.hook.as_deref()).await;
            }
        }
        Letters::Groups { which } => {
            let found = client.groups(&which.asked()).await?;
            groups(&found)?;
            if found.items.is_empty() {
                tell_unknown(settings, which.hook.as_deref()).await;
            }
        }
        Letters::Show { id, body } => return show::run(client, &id, body).await,
        Letters::Export { which, body, ndjson: _ } => {
            client.export(&which.asked(), body, &mut |line| output::out(line)).await?;
        }
        Letters::Replay(replay) => return replay::run(client, replay, settings.claims.window).await,
        Letters::Edit { id, data, patch, by } => {
            let data = data.map(|text| given("--data", &text)).transpose()?.map(Value::String);
            let patch = patch.map(|text| given("--patch", &text)).transpose()?;
            let patch = patch
                .map(|text| serde_json::from_str(text_without_mark(&text)))
                .transpose()
                .context("--patch: expected JSON")?;
            let sent = client.edit(&id, &EditAsked { data, patch, by: Some(by.name()) }).await?;
            output::answer(&sent, || edited(&sent))?;
        }
        Letters::Resolve { ids: named, which, all, reason, by, yes } => {
            let asked =
                ResolveAsked { ids: ids(&named), filter: Some(which.asked()), all, reason, by: Some(by.name()) };
            if !(yes || named.len() == 1 || replay::confirmed("Close these letters?")?) {
                return Ok(ExitCode::FAILURE);
            }
            let closed = client.resolve(&asked).await?;
            output::answer(&closed, || format!("{} letters resolved", closed.resolved))?;
        }
        Letters::Recover => {
            let text = client.recover().await?;
            output::answer(&json!({ "recovered": text }), || text.clone())?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Says that a hook is not in the catalog, where no letter was found for it.
async fn tell_unknown(settings: &Settings, hook: Option<&str>) {
    if let Some(hook) = hook.filter(|hook| !hook.contains('*'))
        && let Some(note) = unknown_hook(settings, hook).await
    {
        output::err(&note);
    }
}

fn edited(sent: &Edited) -> String {
    let Edited { id, generation, event } = sent;
    let (event, source) = (quoted(&event.id), quoted(&event.source));
    format!(
        "{id} sent with other data, as generation {generation}: event {event} of source {source}\nThe letter is resolved when \
         that is done: `hookfleet dead-letters show {id}` tells"
    )
}

/// A text, or what stands in the file that it names.
fn given(flag: &str, text: &str) -> anyhow::Result<String> {
    match text.strip_prefix('@') {
        Some(path) => std::fs::read_to_string(path).with_context(|| format!("cannot read {flag} {path}")),
        None => Ok(text.to_owned()),
    }
}

fn list(page: &Listed) -> anyhow::Result<()> {
    if output::is_json() {
        return output::answer(page, String::new);
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

fn groups(groups: &Grouped) -> anyhow::Result<()> {
    let text = || if groups.items.is_empty() { "no letters".to_owned() } else { replay::causes(&groups.items) };
    output::answer(groups, text)
}

/// What a client wrote, in a column: whole if it is short, and nothing that a terminal takes for a command.
fn one_line(text: &str) -> String {
    escape::sentence(text, CELL_CHARS_MAX)
}

pub(super) fn word(state: &impl serde::Serialize) -> String {
    let word = serde_json::to_value(state).ok();
    word.as_ref().and_then(Value::as_str).unwrap_or_default().to_owned()
}
