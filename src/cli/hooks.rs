//! `hookfleet hooks`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Subcommand;

use super::output;
use crate::catalog::{self, Catalog, Terms};
use crate::config::Settings;
use crate::domain::event_type::EventTypes;

mod cancel;
mod list;
mod test;

#[derive(Debug, Subcommand)]
pub(super) enum Hooks {
    /// Read a hooks file as a worker would, and tell everything that is wrong with it
    Check {
        /// [default: the hooks file of the settings]
        file: Option<PathBuf>,
    },
    /// The hooks as a table: what runs when, where, and how often it is tried
    List(list::List),
    /// Tell what an event would do, without doing it
    Test(test::Test),
    /// End an invocation that is still to run
    Cancel(cancel::Cancel),
}

/// A variable of this process, for `${env:NAME}`.
pub(super) fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// The event types that the fleet's catalog declares: none where there is no hooks file here. One that is wrong is told
/// and checks nothing, since workers check again.
pub(super) fn event_types(settings: &Settings) -> EventTypes {
    if !settings.hooks.exists() {
        return EventTypes::default();
    }
    let read = catalog::open(&settings.hooks).and_then(|documents| catalog::event_types(&documents));
    read.unwrap_or_else(|problems| {
        output::err(&format!("{problems}\nwarning: events are not checked against their types here"));
        EventTypes::default()
    })
}

pub(super) async fn run(settings: &Settings, hooks: Hooks) -> anyhow::Result<ExitCode> {
    match hooks {
        Hooks::Check { file } => Ok(check(settings, &file.unwrap_or_else(|| settings.hooks.clone()))),
        Hooks::List(list) => {
            let file = list.file.as_ref().unwrap_or(&settings.hooks);
            list::run(&list, &catalog::load(file, &Terms { hint_max: settings.hint_max, env: &variable })?.hooks);
            Ok(ExitCode::SUCCESS)
        }
        Hooks::Test(test) => {
            let terms = Terms { hint_max: settings.hint_max, env: &variable };
            test::run(&test, &catalog::load(&settings.hooks, &terms)?.hooks, &settings.events)?;
            Ok(ExitCode::SUCCESS)
        }
        Hooks::Cancel(cancel) => cancel::run(settings, &cancel).await,
    }
}

fn check(settings: &Settings, file: &Path) -> ExitCode {
    match catalog::load(file, &Terms { hint_max: settings.hint_max, env: &variable }) {
        Ok(Catalog { hooks: set, warnings, .. }) => {
            for warning in warnings {
                output::err(&format!("{warning}\n"));
            }
            output::out(&format!("{}: {} hooks, revision {}", file.display(), set.hooks().len(), set.revision()));
            ExitCode::SUCCESS
        }
        Err(problems) => {
            output::err(&problems.to_string());
            ExitCode::FAILURE
        }
    }
}
