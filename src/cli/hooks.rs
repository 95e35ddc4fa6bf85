//! `hookfleet hooks`.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Subcommand;

use super::output;
use crate::catalog::{self, Catalog, Terms};
use crate::config::Settings;

#[derive(Debug, Subcommand)]
pub(super) enum Hooks {
    /// Read a hooks file as a worker would, and tell everything that is wrong with it
    Check {
        /// [default: the hooks file of the settings]
        file: Option<PathBuf>,
    },
}

/// A variable of this process, for `${env:NAME}`.
pub(super) fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

pub(super) fn run(settings: &Settings, hooks: &Hooks) -> ExitCode {
    let Hooks::Check { file } = hooks;
    let file = file.as_ref().unwrap_or(&settings.hooks);
    let terms = Terms { hint_max: settings.hint_max, env: &variable, egress: &settings.egress.allow };
    match catalog::load(file, &terms) {
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
