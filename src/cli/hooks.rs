//! `hookfleet hooks`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Subcommand;
use serde_json::json;

use super::by::By;
use super::exit::{Exit, usage};
use super::output;
use super::place::Place;
use crate::catalog::files::Files;
use crate::catalog::{self, Catalog, Document, Terms, variable};
use crate::config::{Backend, CatalogFrom, Settings};
use crate::domain::escape;
use crate::domain::event_type::EventTypes;
use crate::yaml::problem::{Mismatch, Problem};
use shared::Shared;

mod cancel;
mod import;
mod list;
mod shared;
mod test;

#[derive(Debug, Subcommand)]
pub(super) enum Hooks {
    /// Read a hooks file as a worker would, and tell everything that is wrong with it
    Check {
        /// [default: the hooks file of the settings]
        file: Option<PathBuf>,
    },
    /// Make a hooks file of the hooks of another system, and tell what is not the same here
    Import(import::Import),
    /// The hooks as a table: what runs when, where, and how often it is tried
    List(list::List),
    /// Tell what an event would do, without doing it
    Test(test::Test),
    /// End an invocation that is still to run
    Cancel(cancel::Cancel),
    /// Make a file, or the *.yaml of a folder, the catalog of the whole fleet
    Apply {
        path: PathBuf,
        #[command(flatten)]
        change: Change,
        /// Check it, tell what would change, and change nothing
        #[arg(long)]
        dry_run: bool,
    },
    /// What `apply` would change: hooks added (+), removed (-) and changed (~), and the texts
    Diff { path: PathBuf },
    /// The texts of the fleet's catalog
    Show {
        /// [default: the current one]
        #[arg(long, value_name = "N", value_parser = number)]
        revision: Option<u64>,
        /// Write its files into this folder, over none that is there
        #[arg(long, value_name = "DIR")]
        output: Option<PathBuf>,
    },
    /// Who changed the fleet's catalog and when, newest first
    History,
    /// Make an older revision the current one again, under a new number
    Rollback {
        #[arg(value_name = "N", value_parser = number)]
        revision: u64,
        #[command(flatten)]
        change: Change,
    },
}

impl Hooks {
    /// What the command talks to: the catalog in Redis, or hooks on disk.
    pub(super) fn place(&self, settings: &Settings) -> Place {
        if let Self::Import(import) = self {
            return Place::hooks(&import.file());
        }
        let file = match self {
            Self::Check { file } => file.as_deref().or(Some(&settings.hooks)),
            Self::List(list::List { file: Some(file) }) => Some(file.as_path()),
            Self::List(_) | Self::Test(_) if settings.catalog.from == CatalogFrom::File => {
                Some(settings.hooks.as_path())
            }
            _ => None,
        };
        file.map_or_else(|| Place::of(settings), Place::hooks)
    }
}

/// What is said about a change.
#[derive(Debug, clap::Args)]
pub(super) struct Change {
    /// Change nothing if another revision than this is the current one; 0: if there is any
    #[arg(long, value_name = "N", value_parser = number)]
    expect_revision: Option<u64>,
    /// Why, for those who read the history
    #[arg(long, value_name = "TEXT")]
    message: Option<String>,
    #[command(flatten)]
    by: By,
    /// Do not ask the gates on `config_change`; the history says so
    #[arg(long)]
    skip_hooks: bool,
}

/// The documents of the catalog that these settings name.
async fn documents(settings: &Settings) -> anyhow::Result<Vec<Document>> {
    match settings.catalog.from {
        CatalogFrom::File => Ok(Files::of(settings).open()?),
        CatalogFrom::Redis => shared(settings)?.documents().await,
    }
}

/// The event types that the fleet's catalog declares: none where there is no hooks file here. What is wrong is told and
/// checks nothing, since workers check again.
pub(super) async fn event_types(settings: &Settings) -> EventTypes {
    if settings.catalog.from == CatalogFrom::File && !settings.hooks.exists() {
        return EventTypes::default();
    }
    let read = documents(settings).await.and_then(|documents| Ok(catalog::event_types(&documents)?));
    read.unwrap_or_else(|error| {
        output::err(&format!("warning: events are not checked against their types here: {error:#}"));
        EventTypes::default()
    })
}

/// A note if the catalog of these settings, as far as it can be read here, has no hook of this name.
pub(super) async fn unknown_hook(settings: &Settings, id: &str) -> Option<String> {
    let documents = documents(settings).await.ok()?;
    let hooks = catalog::read_for_others(&documents, settings.hint_max).ok()?.hooks;
    if hooks.get(id).is_some() {
        return None;
    }
    let ids: Vec<&str> = hooks.hooks().iter().map(|hook| hook.id.as_str()).collect();
    let meant = Mismatch::new("a hook").did_you_mean(id, ids.iter().copied()).help.unwrap_or_default();
    let (id, meant) = (escape::name(id), if meant.is_empty() { meant } else { format!(": {meant}") });
    Some(format!("note: the catalog has no hook {id}{meant}"))
}

/// Of a revision, with or without its letter.
fn number(text: &str) -> Result<u64, String> {
    let digits = text.strip_prefix('r').unwrap_or(text);
    digits.parse().map_err(|_| format!("expected the number of a revision such as 17, found \"{text}\""))
}

pub(super) async fn run(settings: &Settings, hooks: Hooks) -> anyhow::Result<ExitCode> {
    match hooks {
        Hooks::Check { file } => return check(settings, &file.unwrap_or_else(|| settings.hooks.clone())),
        Hooks::Import(import) => return import::run(&import, settings.hint_max),
        Hooks::List(list) => {
            let documents = if let Some(file) = &list.file {
                Files::at(file, settings).open()?
            } else {
                documents(settings).await?
            };
            list::run(&catalog::read_for_others(&documents, settings.hint_max)?.hooks)?;
        }
        Hooks::Test(wish) => {
            let documents = documents(settings).await?;
            // What is not known here is hidden anyway, as long as nothing is sent.
            let read = if wish.send { catalog::read } else { catalog::read_partly };
            test::run(&wish, settings, &read(&documents, &terms(settings))?.hooks).await?;
        }
        Hooks::Cancel(cancel) => return cancel::run(settings, &cancel).await,
        Hooks::Apply { path, change, dry_run } => shared(settings)?.apply(&path, change, dry_run).await?,
        Hooks::Diff { path } => shared(settings)?.diff(&path).await?,
        Hooks::Show { revision, output } => shared(settings)?.show(revision, output.as_deref()).await?,
        Hooks::History => shared(settings)?.history().await?,
        Hooks::Rollback { revision, change } => shared(settings)?.rollback(revision, change).await?,
    }
    Ok(ExitCode::SUCCESS)
}

/// The catalog in Redis.
fn shared(settings: &Settings) -> anyhow::Result<Shared<'_>> {
    let Backend::Servers { redis, .. } = &settings.backend else {
        return Err(usage(format!(
            "a catalog of many workers is kept in Redis: set broker.url and redis.url. One process without servers \
             follows its hooks file: change {} (`hookfleet hooks check` tells what is wrong with it)",
            settings.hooks.display()
        )));
    };
    Ok(Shared::new(redis, settings))
}

/// As workers with these settings read a catalog.
fn terms(settings: &Settings) -> Terms<'_> {
    Terms { hint_max: settings.hint_max, env: &variable, egress: &settings.egress.allow, callbacks: None }
}

/// What a worker would say of this file. Its owner may see all of it but the secrets in it.
fn check(settings: &Settings, file: &Path) -> anyhow::Result<ExitCode> {
    let sentences = |problems: &[Problem]| problems.iter().map(Problem::sentence).collect::<Vec<_>>();
    match Files::at(file, settings).load(&terms(settings)) {
        Ok(Catalog { hooks: set, warnings, .. }) => {
            for warning in warnings.iter().filter(|_| !output::is_json()) {
                output::err(&format!("{}\n", warning.for_owner()));
            }
            let (count, revision) = (set.hooks().len(), set.revision().to_string());
            let answer =
                json!({ "hooks": count, "revision": revision, "warnings": sentences(&warnings), "problems": [] });
            output::answer(&answer, || format!("{}: {count} hooks, revision {revision}", file.display()))?;
            Ok(Exit::Done.into())
        }
        Err(problems) => {
            if output::is_json() {
                let list = sentences(problems.list());
                output::answer(&json!({ "warnings": [], "problems": list }), String::new)?;
            } else {
                output::err(&problems.for_owner());
            }
            Ok(Exit::Failed.into())
        }
    }
}
