//! `hookfleet bridge`: a command hook of another system, which hands its event to the fleet.

use std::io::Read as _;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, bail};
use bytes::Bytes;
use clap::{Args, Subcommand};
use reqwest::Client;
use serde_json::{Value, json};
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::exit::Exit;
use super::output;
use super::sink::Sink;
use crate::config::Settings;
use crate::dialect;
use crate::domain::asking::TIME_MAX;
use crate::domain::dialect::Dialect;
use crate::publish::{self, Event};
use crate::yaml::scalar::duration;

const DEADLINES: RangeInclusive<Duration> = Duration::from_millis(1)..=TIME_MAX;

/// The system whose hook this is.
#[derive(Debug, Subcommand)]
pub(super) enum Bridge {
    /// A command hook of Kheish: its invocation on stdin, an outcome or nothing on stdout.
    #[command(after_help = "Examples:
  hookfleet bridge kheish                     # publishes, and prints nothing
  hookfleet bridge kheish --gate              # the gates decide
  hookfleet bridge kheish --gate --closed     # a failure blocks
  hookfleet bridge kheish --gate --print-settings

Exit 0: stdout is empty, or an outcome. Exit 2, with --closed: it blocks, and stderr says why.")]
    Kheish(Flags),
}

#[derive(Debug, Args)]
pub(super) struct Flags {
    /// Ask the gates, and answer what they decide
    #[arg(long)]
    gate: bool,
    /// A failure blocks; without it a failure prints nothing
    #[arg(long)]
    closed: bool,
    /// How long it may take in all: less than the hook's timeout
    #[arg(long, default_value = "4s", value_name = "DURATION", value_parser = deadline)]
    deadline: Duration,
    /// A server of the fleet, such as `https://hooks.example.com`; without it the broker or the file of the settings
    #[arg(long, value_name = "URL", requires = "token_file")]
    url: Option<reqwest::Url>,
    /// Where the token for it is: of role decide, or publish without --gate
    #[arg(long, value_name = "FILE", requires = "url")]
    token_file: Option<PathBuf>,
    /// Print what the other system's settings need, and do nothing
    #[arg(long)]
    print_settings: bool,
}

fn deadline(text: &str) -> Result<Duration, String> {
    duration(DEADLINES)(text).map_err(|mismatch| format!("expected {}", mismatch.expected))
}

pub(super) async fn run(settings: &Settings, bridge: Bridge) -> anyhow::Result<ExitCode> {
    let Bridge::Kheish(flags) = bridge;
    if flags.print_settings {
        let printed = settings_of_kheish(&flags);
        output::answer(&printed, || serde_json::to_string_pretty(&printed).unwrap_or_default())?;
        return Ok(Exit::Done.into());
    }
    let handed_on = async {
        let body = stdin(settings.events.body_bytes_max).await?;
        match &flags.url {
            Some(url) => over_http(url, &flags, body).await,
            None => directly(settings, &flags, body).await,
        }
    };
    let ended = match timeout(flags.deadline, handed_on).await {
        Ok(ended) => ended,
        Err(_elapsed) => Err(anyhow::anyhow!("no answer within {:?}", flags.deadline)),
    };
    match ended {
        Ok(outcome) => {
            if let Some(outcome) = outcome {
                output::out(&outcome);
            }
            Ok(Exit::Done.into())
        }
        Err(error) => {
            output::err(&format!("hookfleet: {error:#}"));
            Ok(if flags.closed { Exit::Denied.into() } else { Exit::Done.into() })
        }
    }
}

/// All of stdin. A thread of its own reads it, so that a stdin which is never closed costs the deadline and no more.
async fn stdin(bytes_max: usize) -> anyhow::Result<Bytes> {
    let (sender, read) = oneshot::channel();
    std::thread::spawn(move || {
        let mut body = Vec::new();
        let most = u64::try_from(bytes_max).unwrap_or(u64::MAX).saturating_add(1);
        let done = std::io::stdin().take(most).read_to_end(&mut body).map(|_| body);
        let _ = sender.send(done); // nobody waits behind the deadline
    });
    let body = read.await.context("stdin cannot be read")?.context("stdin cannot be read")?;
    if body.len() > bytes_max {
        bail!("expected at most {bytes_max} bytes on stdin (events.body_bytes_max), found more");
    }
    Ok(body.into())
}

/// By the broker or the file that the settings name. Returns what to answer.
async fn directly(settings: &Settings, flags: &Flags, body: Bytes) -> anyhow::Result<Option<String>> {
    let event = publish::foreign(Dialect::Kheish, &[], &body, None, &settings.events);
    let event: Event = event.map_err(|rejected| anyhow::anyhow!("{}", rejected.sentence()))?;
    let sink = Sink::open(settings).await?;
    let outcome = if flags.gate {
        let decided = sink.publisher.decide(&event, flags.deadline).await;
        decided.map(|decision| Some(dialect::answer(Dialect::Kheish, &decision.to_json()))).map_err(Into::into)
    } else {
        sink.publisher.publish(&event).await.map(|()| None).map_err(Into::into)
    };
    sink.close().await;
    outcome
}

/// By a server of the fleet. The token is read from a file, since everybody on the machine sees arguments.
async fn over_http(url: &reqwest::Url, flags: &Flags, body: Bytes) -> anyhow::Result<Option<String>> {
    let Some(file) = &flags.token_file else { bail!("expected --token-file beside --url") };
    let token = std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    let (path, media_type) = if flags.gate {
        (format!("v1/hooks/kheish?deadline={}ms", flags.deadline.as_millis()), "application/json")
    } else {
        ("v1/events".to_owned(), "application/vnd.hookfleet.kheish+json")
    };
    crate::executor::install_crypto();
    let client = Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none()).build()?;
    let target = url.join(&path).context("expected a URL such as https://hooks.example.com")?;
    let request = client.post(target).bearer_auth(token.trim()).header("content-type", media_type).body(body);
    let answer = request.send().await.context("the fleet's server does not answer")?;
    let status = answer.status();
    let text = answer.text().await.context("the answer of the fleet's server was cut off")?;
    if !status.is_success() {
        let problem: Value = serde_json::from_str(&text).unwrap_or_default();
        bail!(
            "the fleet's server refused it with {status}: {}",
            problem["detail"].as_str().unwrap_or("it says no more")
        );
    }
    Ok(flags.gate.then_some(text))
}

/// A hook of Kheish that calls this command, to be put under the events that the fleet is to have.
fn settings_of_kheish(flags: &Flags) -> Value {
    let mut command = "hookfleet bridge kheish".to_owned();
    for (is_set, flag) in [(flags.gate, " --gate"), (flags.closed, " --closed")] {
        if is_set {
            command += flag;
        }
    }
    let deadline_ms = flags.deadline.as_millis();
    let timeout_ms = u64::try_from(deadline_ms).unwrap_or(u64::MAX).saturating_add(1_000);
    let policy = if flags.closed { "closed" } else { "open" };
    json!({
        "name": "hookfleet",
        "failure_policy": { "mode": policy, "max_retries": 0 },
        "executor": { "type": "command", "command": format!("{command} --deadline {deadline_ms}ms"), "timeout_ms": timeout_ms.min(30_000) },
    })
}
