//! `hookfleet fleet`.

use std::process::ExitCode;

use anyhow::bail;
use clap::Subcommand;
use serde_json::json;

use super::by::By;
use super::output;
use super::output::time;
use crate::config::{Backend, Settings};
use crate::executor;
use crate::flow::redis::RedisFlow;
use crate::flow::{Card, Flow, Pause};
use crate::redis::connection::Link;
use crate::telemetry::now_ms;

#[derive(Debug, Subcommand)]
pub(super) enum Fleet {
    /// The workers that are there
    List {
        #[arg(long)]
        json: bool,
    },
    /// Take no new work, on any worker, until `resume`; what runs goes on, and publishing too
    Pause {
        /// Why, for those who look
        #[arg(long, value_name = "TEXT")]
        message: Option<String>,
        #[command(flatten)]
        by: By,
    },
    /// End a pause
    Resume,
}

pub(super) async fn run(settings: &Settings, fleet: Fleet) -> anyhow::Result<ExitCode> {
    let Backend::Servers { redis, .. } = &settings.backend else {
        bail!(
            "a fleet is known to its Redis: set broker.url and redis.url. One process without servers says at \
             {} how it is, and pauses by being stopped: nothing is lost",
            settings.http.url("/v1/status")
        );
    };
    executor::install_crypto();
    let flow = RedisFlow::new(Link::new((**redis).clone()), &settings.namespace);
    match fleet {
        Fleet::List { json } => list(&flow, json).await?,
        Fleet::Pause { message, by } => {
            flow.pause(Some(&Pause { by: by.name(), at_ms: now_ms(), message })).await?;
            output::out("paused: within a second no worker takes new work; `hookfleet fleet resume` ends it");
        }
        Fleet::Resume if flow.paused().await?.is_none() => output::out("the fleet is not paused"),
        Fleet::Resume => {
            flow.pause(None).await?;
            output::out("the fleet goes on within a second");
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn list(flow: &RedisFlow, json: bool) -> anyhow::Result<()> {
    let (paused, mut crew) = (flow.paused().await?, flow.crew().await?);
    crew.sort_by(|one, other| (&one.host, one.pid).cmp(&(&other.host, other.pid)));
    if json {
        output::out(&serde_json::to_string_pretty(&json!({ "paused": paused, "workers": crew }))?);
        return Ok(());
    }
    if let Some(pause) = paused {
        output::out(&format!("{pause} ({})\n", time(pause.at_ms)));
    }
    if crew.is_empty() {
        output::out("no worker has been heard of within 5 seconds");
        return Ok(());
    }
    let row = |cells: [&str; 8]| {
        let [worker, host, pid, version, lanes, runs, revision, rest] = cells;
        let line =
            format!("{worker:<16}  {host:<20}  {pid:>7}  {version:<8}  {lanes:<12}  {runs:>5}  {revision:<12}  {rest}");
        output::out(line.trim_end());
    };
    row(["WORKER", "HOST", "PID", "VERSION", "LANES", "RUNS", "REVISION", "SINCE"]);
    for card in &crew {
        let Card { worker, host, pid, version, lanes, in_flight, revision, since_ms, idle, refused, .. } = card;
        if version.is_empty() {
            row([worker, "?", "?", "older", "?", "?", "?", ""]);
            continue;
        }
        let idle = if idle.is_empty() { String::new() } else { format!("  takes no work: {}", idle.join("; ")) };
        let refused = refused.as_ref().map(|refused| format!("  refuses {}", refused.revision)).unwrap_or_default();
        let (pid, runs, since) = (pid.to_string(), in_flight.to_string(), time(*since_ms) + &refused + &idle);
        row([worker, host, &pid, version, &lanes.join(","), &runs, revision, &since]);
    }
    Ok(())
}
