//! `hookfleet hooks cancel`.

use std::process::ExitCode;

use anyhow::{anyhow, bail};
use clap::Args;

use crate::app::routes;
use crate::cli::api::Api;
use crate::cli::remote::Remote;
use crate::cli::{connect, output};
use crate::config::{Backend, Settings};
use crate::domain::id::{EventDigest, HookId, InvocationKey};
use crate::embedded;
use crate::http::Routes;
use crate::operations::cancel::{Cancelled, Found};

/// An event that is still to be handled by a hook is so no more. No dead letter is written.
#[derive(Debug, Args)]
pub(in crate::cli) struct Cancel {
    /// The event's id; or, without --source, what log lines show as `invocation` before the slash
    event: String,
    /// The hook's id
    hook: String,
    /// The event's source: with the id it names the event
    #[arg(long)]
    source: Option<String>,
}

pub(in crate::cli) async fn run(settings: &Settings, wish: &Cancel) -> anyhow::Result<ExitCode> {
    let key = key(wish)?;
    let cancelled = send(settings, &key).await?;
    let Cancelled { invocation, found } = &cancelled;
    let text = match found {
        Found::Done => "has finished: there is nothing to cancel",
        Found::Running => "cancelled: it is running, and its worker stops it when it next renews its claim",
        Found::Pending => "cancelled: its message is dropped when it comes",
        Found::Cancelled => "was cancelled before",
        Found::GivenUp => "was given up before: see `hookfleet dead-letters list`",
        Found::Nothing => {
            "cancelled, though no worker has begun with it: if it comes, it is dropped. Check event, source and hook if \
             that is a surprise"
        }
    };
    output::answer(&cancelled, || format!("{invocation} {text}"))?;
    Ok(if *found == Found::Done { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn key(Cancel { event, hook, source }: &Cancel) -> anyhow::Result<InvocationKey> {
    let hook = HookId::new(hook).map_err(|sentence| anyhow!("HOOK: {sentence}"))?;
    let event = match source {
        Some(source) => EventDigest::of(source, event),
        None => match event.parse() {
            Ok(digest) => digest,
            Err(_) => bail!(
                "an id names an event together with its source only: say --source too, or the 32 digits that \
                             log lines show as `invocation` before the slash"
            ),
        },
    };
    Ok(InvocationKey { event, hook })
}

/// Asks the process that owns the file, if one does, else the store of claims.
async fn send(settings: &Settings, key: &InvocationKey) -> anyhow::Result<Cancelled> {
    let path = format!("/v1/runtime/hooks/{}/cancel?event={}", key.hook, key.event);
    if let Backend::Embedded { path: file } = &settings.backend
        && let Some(owner) = embedded::owner(file)
    {
        return Api::Loopback(Remote::new(owner, &settings.http)?).post(&path, &()).await;
    }
    let backends = connect::open(settings).await?;
    let api = Api::in_process(Routes::Invocations(routes::invocations(settings, &backends)));
    let cancelled = api.post(&path, &()).await;
    backends.broker.close().await;
    if let Some(file) = backends.file {
        file.close().await;
    }
    cancelled
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_named_by_id_and_source_or_as_in_logs() {
        let wish = |event: &str, source: Option<&str>| {
            let cancel = Cancel { event: event.into(), hook: "h".into(), source: source.map(str::to_owned) };
            key(&cancel).map(|key| key.to_string()).map_err(|error| error.to_string())
        };
        let digest = EventDigest::of("/shop", "17").to_string();
        assert_eq!(wish("17", Some("/shop")).unwrap(), format!("{digest}/h"));
        assert_eq!(wish(&digest, None).unwrap(), format!("{digest}/h"));
        assert_ne!(wish(&digest, Some("/shop")).unwrap(), format!("{digest}/h"), "an id may look like anything");
        for alone in ["17", "", &digest.to_uppercase(), &digest[..31]] {
            assert!(wish(alone, None).unwrap_err().contains("--source"), "{alone}");
        }
    }
}
