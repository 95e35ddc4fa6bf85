//! `hookfleet fleet`.

use std::process::ExitCode;

use clap::Subcommand;
use serde_json::json;

use super::by::By;
use super::connect::tell_if_slow;
use super::exit::usage;
use super::output;
use super::output::time;
use crate::amqp::connection::{close, connect};
use crate::amqp::declare::waiting;
use crate::amqp::topology::Names;
use crate::config::{Backend, BrokerServer, Settings};
use crate::domain::message::Queue;
use crate::executor;
use crate::flow::redis::RedisFlow;
use crate::flow::{Card, Flow, Pause};
use crate::redis::connection::Link;
use crate::telemetry::now_ms;

#[derive(Debug, Subcommand)]
pub(super) enum Fleet {
    /// The workers that are there
    List,
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
    let Backend::Servers { broker, redis } = &settings.backend else {
        return Err(usage(format!(
            "a fleet is known to its Redis: set broker.url and redis.url. One process without servers says at \
             {} how it is, and pauses by being stopped: nothing is lost",
            settings.http.url("/v1/status")
        )));
    };
    executor::install_crypto();
    let flow = RedisFlow::new(Link::new((**redis).clone()), &settings.namespace);
    match fleet {
        Fleet::List => list(settings, broker, &flow).await?,
        Fleet::Pause { message, by } => {
            let pause = Pause { by: by.name(), at_ms: now_ms(), message };
            flow.pause(Some(&pause)).await?;
            output::answer(&json!({ "paused": pause }), || {
                "paused: within a second no worker takes new work; `hookfleet fleet resume` ends it".to_owned()
            })?;
        }
        Fleet::Resume => {
            let was_paused = flow.paused().await?.is_some();
            if was_paused {
                flow.pause(None).await?;
            }
            let text = if was_paused { "the fleet goes on within a second" } else { "the fleet is not paused" };
            output::answer(&json!({ "paused": null, "was_paused": was_paused }), || text.to_owned())?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn list(settings: &Settings, broker: &BrokerServer, flow: &RedisFlow) -> anyhow::Result<()> {
    let (paused, mut crew) = (flow.paused().await?, flow.crew().await?);
    crew.sort_by(|one, other| (&one.host, one.pid).cmp(&(&other.host, other.pid)));
    let backlog = backlog(settings, broker).await;
    let known = backlog.as_ref().map_or(&[][..], Vec::as_slice);
    let queues: Vec<_> = known.iter().map(|(queue, waiting)| json!({ "queue": queue, "waiting": waiting })).collect();
    let answer = json!({ "paused": paused, "items": crew, "backlog": backlog.is_ok().then_some(queues) });
    output::answer(&answer, || {
        let mut parts = Vec::new();
        if let Some(pause) = &paused {
            parts.push(format!("{pause} ({})", time(pause.at_ms)));
        }
        parts.push(if crew.is_empty() {
            "no worker has been heard of within 5 seconds".to_owned()
        } else {
            output::table(&HEAD, crew.iter().map(row))
        });
        parts.push(match &backlog {
            Ok(waiting) if waiting.is_empty() => "nothing waits for a worker".to_owned(),
            Ok(waiting) => output::table(
                &["QUEUE", "WAITING"],
                waiting.iter().map(|(name, count)| vec![name.clone(), count.to_string()]),
            ),
            Err(error) => format!("what waits for a worker is not known: {error}"),
        });
        parts.join("\n\n")
    })
}

/// How much waits in each queue that work comes from, if anything does.
async fn backlog(settings: &Settings, broker: &BrokerServer) -> Result<Vec<(String, u64)>, String> {
    let connecting = connect(broker, "hookfleet fleet list");
    let connection = tell_if_slow(connecting, || "waiting for an answer of the broker".to_owned()).await;
    let connection = connection.map_err(|error| error.to_string())?;
    let names = Names::new(&settings.namespace);
    let mut found = Vec::new();
    for queue in Queue::ALL {
        // One that is not there yet has nothing.
        let waiting = waiting(&connection, &names.queue(queue)).await.unwrap_or_default();
        if waiting > 0 {
            found.push((names.queue(queue), waiting));
        }
    }
    close(&connection).await;
    Ok(found)
}

const HEAD: [&str; 9] = ["WORKER", "HOST", "PID", "VERSION", "LANES", "RUNS", "ATTEMPTS/S", "REVISION", "STATE"];

fn row(card: &Card) -> Vec<String> {
    if card.version.is_empty() {
        let unknown = ["?", "?", "older", "?", "?", "?", "?", ""].map(str::to_owned);
        return std::iter::once(card.worker.clone()).chain(unknown).collect();
    }
    let mut state = vec![format!("since {}", time(card.since_ms))];
    state.extend(card.refused.as_ref().map(|refused| format!("refuses {}", refused.revision)));
    if !card.failing.is_empty() {
        let hooks: Vec<&str> = card.failing.iter().map(|failing| failing.hook.as_str()).collect();
        state.push(format!("only fails: {}", hooks.join(", ")));
    }
    if !card.idle.is_empty() {
        state.push(format!("takes no work: {}", card.idle.join("; ")));
    }
    vec![
        card.worker.clone(),
        card.host.clone(),
        card.pid.to_string(),
        card.version.clone(),
        card.lanes.join(","),
        card.in_flight.to_string(),
        card.attempts_per_second.to_string(),
        card.revision.clone(),
        state.join("; "),
    ]
}
