//! `hookfleet backup`.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use serde_json::json;

use super::exit::usage;
use super::output;
use crate::config::{Backend, Settings};
use crate::embedded;

#[derive(Debug, Args)]
pub(super) struct Backup {
    /// Where the copy goes: a file that is not there yet
    file: PathBuf,
}

/// Copies the file in which everything is kept without a broker.
pub(super) async fn run(settings: &Settings, backup: Backup) -> anyhow::Result<ExitCode> {
    let Backend::Embedded { path } = &settings.backend else {
        return Err(usage(
            "there is no file to copy: the settings name a broker, which keeps messages and dead letters, and a Redis, \
             which keeps claims; back these up by their own means",
        ));
    };
    let (from, to) = (path.clone(), backup.file.clone());
    let bytes = tokio::task::spawn_blocking(move || embedded::backup(&from, &to)).await??;
    let answer = json!({ "copy": backup.file, "of": path, "bytes": bytes });
    output::answer(&answer, || format!("{} is a copy of {}, {bytes} bytes", backup.file.display(), path.display()))?;
    Ok(ExitCode::SUCCESS)
}
