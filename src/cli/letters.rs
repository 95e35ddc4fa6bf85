//! `hookfleet dead-letters`.

use std::process::ExitCode;

use anyhow::anyhow;
use clap::Subcommand;
use reqwest::Method;
use serde_json::{Value, json};

use super::remote::Remote;
use super::{operator, output};
use crate::app::Backends;
use crate::config::{Backend, Settings};
use crate::dead_letters::Recovered;
use crate::desk::Desk;
use crate::domain::dead_letter::LetterId;
use crate::domain::redaction::Pointer;
use crate::embedded;

const PATH: &str = "/v1/runtime/hooks/dead-letter";

#[derive(Debug, Subcommand)]
pub(super) enum Letters {
    /// Every letter with its state, oldest first
    List {
        #[arg(long)]
        json: bool,
    },
    /// One letter in full
    Show {
        id: String,
        /// The event itself too
        #[arg(long)]
        body: bool,
    },
    /// Send the work of letters out again; doing it twice does it once
    Replay {
        #[arg(required = true)]
        ids: Vec<String>,
        /// Run it although it was finished, under an Idempotency-Key of its own
        #[arg(long)]
        force: bool,
    },
    /// Append again what the broker's stream lost in a power cut, from the copies of the last hour
    Recover,
}

/// The letters where they are: in reach, or behind the process that owns the file.
pub(super) enum Reach {
    Desk(Desk, Backends),
    Owner(Remote),
}

pub(super) async fn run(settings: &Settings, letters: Letters) -> anyhow::Result<ExitCode> {
    let reach = Reach::open(settings).await?;
    let code = match letters {
        Letters::List { json } => list(&reach.list().await?, json),
        Letters::Show { id, body } => {
            let entry = reach.show(&id, body, &settings.redact).await?;
            output::out(&serde_json::to_string_pretty(&entry)?);
            ExitCode::SUCCESS
        }
        Letters::Replay { ids, force } => replay(&reach, &ids, force).await,
        Letters::Recover => {
            output::out(&reach.recover().await?);
            ExitCode::SUCCESS
        }
    };
    reach.close().await;
    Ok(code)
}

async fn replay(reach: &Reach, ids: &[String], force: bool) -> ExitCode {
    let mut code = ExitCode::SUCCESS;
    for id in ids {
        match reach.replay(id, force).await {
            Ok(generation) => output::out(&format!("{id} replayed as generation {generation}")),
            Err(error) => {
                output::err(&format!("error: {error:#}"));
                code = ExitCode::FAILURE;
            }
        }
    }
    code
}

fn list(entries: &[Value], json: bool) -> ExitCode {
    if json {
        output::out(&Value::Array(entries.to_vec()).to_string());
        return ExitCode::SUCCESS;
    }
    if entries.is_empty() {
        output::out("no letters");
        return ExitCode::SUCCESS;
    }
    output::out(&format!("{:<24}  {:<9}  {:<14}  {:<20}  {:<16}  ERROR", "ID", "STATE", "CLASS", "HOOK", "TYPE"));
    for entry in entries {
        let text = |pointer: &str| entry.pointer(pointer).and_then(Value::as_str).unwrap_or("-").to_owned();
        output::out(&format!(
            "{:<24}  {:<9}  {:<14}  {:<20}  {:<16}  {}",
            text("/letter/id"),
            text("/state"),
            text("/letter/class"),
            text("/letter/hook"),
            text("/letter/event/type"),
            text("/letter/error"),
        ));
    }
    ExitCode::SUCCESS
}

impl Reach {
    async fn open(settings: &Settings) -> anyhow::Result<Self> {
        if let Backend::Embedded { path } = &settings.backend
            && let Some(address) = embedded::owner(path)
        {
            return Ok(Self::Owner(Remote::new(address, &settings.http)?));
        }
        let backends = Backends::open(settings).await?;
        Ok(Self::Desk(backends.desk(), backends))
    }

    pub(super) async fn list(&self) -> anyhow::Result<Vec<Value>> {
        match self {
            Self::Desk(desk, _) => {
                let entries = desk.entries().await?;
                Ok(entries.iter().map(|entry| entry.view(false)).collect())
            }
            Self::Owner(remote) => {
                let answer = remote.call(Method::GET, PATH, None).await?;
                let items = answer.get("items").and_then(Value::as_array).cloned();
                items.ok_or_else(|| anyhow!("the answer has no items"))
            }
        }
    }

    async fn show(&self, id: &str, body: bool, without: &[Pointer]) -> anyhow::Result<Value> {
        match self {
            Self::Desk(desk, _) => Ok(desk.find(&LetterId::from(id)).await?.view_without(body, without)),
            Self::Owner(remote) => remote.call(Method::GET, &format!("{PATH}/{id}?body={body}"), None).await,
        }
    }

    async fn replay(&self, id: &str, force: bool) -> anyhow::Result<Value> {
        let by = operator();
        match self {
            Self::Desk(desk, _) => Ok(json!(desk.replay(&LetterId::from(id), force, &by).await?.generation)),
            Self::Owner(remote) => {
                let by: String = url::form_urlencoded::byte_serialize(by.as_bytes()).collect();
                let path = format!("{PATH}/{id}/replay?force={force}&by={by}");
                let answer = remote.call(Method::POST, &path, None).await?;
                Ok(answer.get("generation").cloned().unwrap_or_default())
            }
        }
    }

    async fn recover(&self) -> anyhow::Result<String> {
        match self {
            Self::Desk(desk, backends) if backends.file.is_none() => {
                let Recovered { copies, appended } = desk.letters.recover().await?;
                Ok(format!("{copies} copies compared, {appended} records were missing and are back"))
            }
            Self::Desk(..) | Self::Owner(_) => {
                Ok("nothing to recover: the file is on disk before a letter is confirmed".to_owned())
            }
        }
    }

    async fn close(self) {
        if let Self::Desk(desk, backends) = self {
            desk.broker.close().await;
            if let Some(file) = backends.file {
                file.close().await;
            }
        }
    }
}
