//! `hookfleet decide`.

use std::ops::RangeInclusive;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, ValueEnum};
use tokio::time::{Instant, timeout};

use super::output;
use super::publish::{About, Sink};
use crate::amqp::connection::ConnectError;
use crate::config::Settings;
use crate::domain::asking::TIME_MAX;
use crate::domain::decision::{Decision, Verdict};
use crate::publish::{OnUnavailable, Undecided};
use crate::yaml::scalar::duration;

const DEADLINES: RangeInclusive<Duration> = Duration::from_millis(1)..=TIME_MAX;
/// Exit code of a refusal.
const DENIED: u8 = 2;
/// Exit code where somebody else is to be asked.
const ASK: u8 = 3;

#[derive(Debug, Args)]
pub(super) struct Decide {
    /// What is to happen, such as deploy.requested
    #[arg(long = "type", value_name = "TYPE")]
    kind: String,
    #[command(flatten)]
    about: About,
    /// How long to wait for the decision
    #[arg(long, default_value = "30s", value_name = "DURATION", value_parser = deadline)]
    deadline: Duration,
    /// What holds where nobody decides in time: an error (exit 1), or a decision
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

/// Prints the decision; exit 0: it may be done, 2: it may not, 3: somebody else is to be asked, the reason on stderr.
pub(super) async fn run(settings: &Settings, decide: Decide) -> anyhow::Result<ExitCode> {
    let event = decide.about.event(&decide.kind)?;
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
        Err(_) => Err(Undecided::Unanswered(decide.deadline)),
    };
    let decided = match decided {
        Err(Undecided::Unanswered(_)) => on_unavailable.decision(Undecided::Unanswered(decide.deadline)),
        Err(error @ Undecided::Unavailable(_)) => on_unavailable.decision(error),
        decided => decided,
    };
    let decision: Decision = decided?;
    output::out(&decision.to_json());
    let reason = |otherwise: &str| decision.reason.clone().unwrap_or_else(|| otherwise.to_owned());
    Ok(match decision.verdict {
        Verdict::Allow => ExitCode::SUCCESS,
        Verdict::Deny => {
            output::err(&reason("refused, without a reason"));
            ExitCode::from(DENIED)
        }
        Verdict::Ask => {
            output::err(&reason("somebody else is to be asked"));
            ExitCode::from(ASK)
        }
    })
}
