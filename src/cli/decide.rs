//! `hookfleet decide`.

use std::ops::RangeInclusive;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, ValueEnum};
use serde_json::Value;
use tokio::time::{Instant, timeout};

use super::exit::Exit;
use super::output;
use super::publish::About;
use super::sink::Sink;
use crate::amqp::connection::ConnectError;
use crate::config::Settings;
use crate::dialect;
use crate::domain::asking::TIME_MAX;
use crate::domain::decision::{Decision, Verdict};
use crate::domain::dialect::Dialect;
use crate::publish::{OnUnavailable, Undecided};
use crate::yaml::scalar::duration;

const DEADLINES: RangeInclusive<Duration> = Duration::from_millis(1)..=TIME_MAX;
#[derive(Debug, Args)]
pub(super) struct Decide {
    /// What is to happen, such as deploy.requested
    #[arg(long = "type", value_name = "TYPE", required_unless_present = "dialect")]
    kind: Option<String>,
    #[command(flatten)]
    about: About,
    /// The data are what this system hands to its hooks, such as kheish; its gates are asked and answer as there
    #[arg(long, requires = "data", conflicts_with_all = ["kind", "source", "subject"], value_parser = Dialect::named)]
    dialect: Option<Dialect>,
    /// How long to wait for the decision
    #[arg(long, default_value = "30s", value_name = "DURATION", value_parser = deadline)]
    deadline: Duration,
    /// Allow nothing that no gate was asked about: exit 3 where no gate matches
    #[arg(long)]
    require_gate: bool,
    /// What holds where nobody decides in time: an error (exit 75, or 69 if a server is away), or a decision
    #[arg(long, default_value = "fail", value_name = "WHAT")]
    on_unavailable: Unavailable,
}

fn deadline(text: &str) -> Result<Duration, String> {
    duration(DEADLINES)(text).map_err(|mismatch| format!("expected {}", mismatch.expected))
}

/// As on the command line.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Unavailable {
    Fail,
    Allow,
    Deny,
}

/// Prints the decision; exit 0: it may be done, 2: it may not, 3: somebody else is to be asked, the reason on stderr. Where
/// no gate matches, stderr says so; that is undecided with `--require-gate`.
pub(super) async fn run(settings: &Settings, decide: Decide) -> anyhow::Result<ExitCode> {
    let event = match (&decide.kind, decide.dialect) {
        (_, Some(dialect)) => decide.about.foreign(dialect, &settings.events)?,
        (kind, None) => decide.about.event(kind.as_deref().unwrap_or_default())?,
    };
    let dialect = decide.dialect.unwrap_or_default();
    let on_unavailable = match decide.on_unavailable {
        Unavailable::Fail => OnUnavailable::Fail,
        Unavailable::Allow => OnUnavailable::Allow,
        Unavailable::Deny => OnUnavailable::Deny,
    };
    let began = Instant::now();
    let opened = timeout(decide.deadline, Sink::open(settings)).await;
    let decided = match opened {
        Ok(Ok(sink)) => {
            let decided = sink.publisher.decide(&event, decide.deadline.saturating_sub(began.elapsed())).await;
            sink.close().await;
            decided
        }
        // What no waiting can mend is no question of who is there.
        Ok(Err(error)) if !matches!(error.downcast_ref(), Some(ConnectError::Away(_))) => return Err(error),
        Ok(Err(error)) => Err(Undecided::Unavailable(format!("{error:#}"))),
        Err(_) => Err(Undecided::Unavailable(format!("no connection within {:?}", decide.deadline))),
    };
    let decision: Decision = match decided {
        Ok(decision) => decision,
        Err(Undecided::Unanswered(_)) => {
            return finish(&on_unavailable.decision(Undecided::Unanswered(decide.deadline))?, dialect);
        }
        Err(error @ Undecided::Unavailable(_)) => return finish(&on_unavailable.decision(error)?, dialect),
        Err(error) => return Err(error.into()),
    };
    let nobody_asked = decision.matched_hooks.is_empty() && decision.hooks.is_empty();
    if decision.verdict == Verdict::Allow && nobody_asked {
        output::err(&format!(
            "no gate wants events of type {}: `hookfleet hooks list` shows which there are",
            event.kind()
        ));
        if decide.require_gate {
            return Ok(Exit::Ask.into());
        }
    }
    finish(&decision, dialect)
}

fn finish(decision: &Decision, dialect: Dialect) -> anyhow::Result<ExitCode> {
    let text = dialect::answer(dialect, &decision.to_json());
    output::answer(&serde_json::from_str::<Value>(&text)?, || text)?;
    let reason = |otherwise: &str| decision.reason.clone().unwrap_or_else(|| otherwise.to_owned());
    Ok(match decision.verdict {
        Verdict::Allow => Exit::Done.into(),
        Verdict::Deny => {
            output::err(&reason("refused, without a reason"));
            Exit::Denied.into()
        }
        Verdict::Ask => {
            output::err(&reason("somebody else is to be asked"));
            Exit::Ask.into()
        }
    })
}
