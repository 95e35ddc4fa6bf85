//! `hookfleet hooks cancel`.

use std::process::ExitCode;

use anyhow::{anyhow, bail};
use clap::Args;

use crate::cli::answer::is_unknown;
use crate::cli::exit::Exit;
use crate::cli::{invocations, output};
use crate::config::Settings;
use crate::domain::id::{EventDigest, HookId, InvocationKey};
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
    /// Also if nothing is known of it, as of what waits for its first run: should it come, it does not run
    #[arg(long)]
    even_if_unknown: bool,
}

pub(in crate::cli) async fn run(settings: &Settings, wish: &Cancel) -> anyhow::Result<ExitCode> {
    let key = key(wish)?;
    let (hook, event, even_if_unknown) = (&key.hook, key.event, wish.even_if_unknown);
    let path = format!("/v1/catalog/hooks/{hook}/cancel?event={event}&even_if_unknown={even_if_unknown}");
    let cancelled: Cancelled = match invocations::post(settings, &path).await {
        Err(error) if is_unknown(&error) => {
            output::err(&format!("error: {error}"));
            return Ok(Exit::Ask.into());
        }
        answer => answer?,
    };
    let Cancelled { invocation, found } = &cancelled;
    let text = match found {
        Found::Done => "has finished: there is nothing to cancel",
        Found::Running => "cancelled: it is running, and its worker stops it when it next renews its claim",
        Found::Pending => "cancelled: its message is dropped when it comes",
        Found::Cancelled => "was cancelled before",
        Found::GivenUp => "was given up before: see `hookfleet dead-letters list`",
        Found::Nothing => "cancelled, though nothing is known of it: if it comes, it is dropped",
    };
    output::answer(&cancelled, || format!("{invocation} {text}"))?;
    Ok(if *found == Found::Done { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn key(Cancel { event, hook, source, .. }: &Cancel) -> anyhow::Result<InvocationKey> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_named_by_id_and_source_or_as_in_logs() {
        let wish = |event: &str, source: Option<&str>| {
            let (event, hook, source) = (event.into(), "h".into(), source.map(str::to_owned));
            let cancel = Cancel { event, hook, source, even_if_unknown: false };
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
