//! `hookfleet bench`: the fleet under load, with a worker, a publisher and a receiver in this process, on the user's own
//! servers or on a file that goes afterwards.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow};
use clap::Args;
use futures_util::StreamExt as _;
use rustix::time::{ClockId, clock_gettime};
use serde::Serialize;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::output;
use super::trial::{self, Trial};
use crate::app::App;
use crate::app::start::Start;
use crate::catalog::watch::Source;
use crate::catalog::{self, Terms};
use crate::config::Settings;
use crate::executor::callback::Callbacks;
use crate::http::Kind;
use crate::publish::{Event, Publisher, PublisherOptions};
use crate::worker::no_listener;
use sink::Sink;

mod sink;

/// The type of the events.
const KIND: &str = "bench.event";

/// A load in a namespace of its own, which is removed in the end.
#[derive(Debug, Args)]
pub(super) struct Bench {
    /// Events to publish
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=5_000_000))]
    events: u32,
    /// Events a second [default: as fast as they are confirmed]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    rate: Option<u32>,
    /// Hooks that want each event
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=100))]
    fan_out: u32,
    /// Bytes of data in each event
    #[arg(long, default_value_t = 850, value_parser = clap::value_parser!(u32).range(0..=500_000))]
    payload_bytes: u32,
    /// Give up after so many seconds; what has not arrived by then counts as lost
    #[arg(long, default_value_t = 120, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=3600))]
    limit: u64,
}

/// What came of it. Latency is from the call of the publisher to the receiver's having the whole request.
#[derive(Debug, Serialize)]
struct Figures {
    broker: &'static str,
    events: u32,
    hooks: u32,
    payload_bytes: u32,
    /// Of publishing, from the first call to the last confirm.
    published_per_second: f64,
    /// From the first call to the last arrival.
    events_per_second: f64,
    p50_ms: f64,
    p90_ms: f64,
    p99_ms: f64,
    max_ms: f64,
    /// Of this whole process: publisher, worker and receiver.
    cpu_us_per_event: f64,
    lost: u64,
    duplicated: u64,
}

pub(super) async fn run(settings: Settings, bench: Bench) -> anyhow::Result<ExitCode> {
    let trial = Trial::new(settings, "bench");
    let interrupted = trial::interrupted()?;
    let measured = tokio::select! {
        measured = measure(&trial, &bench) => measured,
        () = interrupted => Err(anyhow!("interrupted")),
    };
    let figures = trial.end(measured).await?;
    output::answer(&figures, || figures.shown())?;
    Ok(if figures.lost == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn measure(trial: &Trial, bench: &Bench) -> anyhow::Result<Figures> {
    let settings = &trial.settings;
    let sink = Sink::start(bench.events, bench.fan_out)?;
    let terms = Terms { hint_max: settings.hint_max, env: &|_| None, egress: &settings.egress.allow, callbacks: None };
    let hooks = catalog::parse(&hooks(&sink, bench.fan_out), "the hooks of bench", &terms)?.hooks;
    let start = Start::new(settings, Kind::Worker).await?;
    let backends = start.open(settings).await?;
    let body_bytes_max = settings.events.body_bytes_max;
    let options =
        PublisherOptions { patience: Duration::from_secs(bench.limit), body_bytes_max, ..PublisherOptions::default() };
    let publisher = Publisher::new(Arc::clone(&backends.broker), options);
    let app = App::new(settings, start, backends, Source::Fixed(hooks), no_listener(), Callbacks::default()).await?;
    let stop = CancellationToken::new();
    let running = app.run(stop.clone().cancelled_owned());
    let load = async {
        let figures = load(bench, trial.broker(), &sink, &publisher).await;
        stop.cancel();
        figures
    };
    let (ran, figures) = tokio::join!(running, load);
    ran?;
    figures
}

async fn load(bench: &Bench, broker: &'static str, sink: &Sink, publisher: &Publisher) -> anyhow::Result<Figures> {
    let pad = "x".repeat(bench.payload_bytes as usize);
    let began = Instant::now();
    let cpu = cpu_time();
    let deadline = Duration::from_secs(bench.limit);
    let events = trial::paced(bench.events, bench.rate).filter_map(|number| {
        let event = Event::builder(KIND).source("/hookfleet/bench").id(&trial::id(number)).data(&pad).build();
        sink.sent(number);
        std::future::ready(event.ok())
    });
    let publishing = async {
        let mut answers = Box::pin(publisher.publish_all(events));
        while let Some(answer) = answers.next().await {
            answer?;
        }
        Ok::<_, anyhow::Error>(began.elapsed())
    };
    let sending = timeout(deadline, publishing).await.context("publishing took longer than --limit")??;
    let left = deadline.saturating_sub(began.elapsed());
    let _ = timeout(left, sink.all()).await; // what is missing then is counted as lost
    let arrived = sink.arrived();
    let cpu = cpu_time().saturating_sub(cpu);
    let per_second = |took: Duration| round(f64::from(bench.events) / took.as_secs_f64());
    let at = |share: f64| arrived.percentile_ms(share);
    Ok(Figures {
        broker,
        events: bench.events,
        hooks: bench.fan_out,
        payload_bytes: bench.payload_bytes,
        published_per_second: per_second(sending),
        events_per_second: per_second(arrived.last.max(sending)),
        p50_ms: at(0.5),
        p90_ms: at(0.9),
        p99_ms: at(0.99),
        max_ms: at(1.0),
        cpu_us_per_event: round(cpu.as_secs_f64() * 1e6 / f64::from(bench.events)),
        lost: u64::from(bench.events) * u64::from(bench.fan_out) - arrived.distinct,
        duplicated: arrived.duplicated,
    })
}

fn hooks(sink: &Sink, count: u32) -> String {
    let hook = |number: u32| {
        let run = format!("{{ http: {{ url: \"http://{}/{number}\" }} }}", sink.address);
        format!("  - {{ id: bench-{number}, on: {KIND}, concurrency: 256, run: {run} }}\n")
    };
    format!("version: 1\nhooks:\n{}", (0..count).map(hook).collect::<String>())
}

/// User and system time of all threads so far.
fn cpu_time() -> Duration {
    Duration::try_from(clock_gettime(ClockId::ProcessCPUTime)).unwrap_or_default()
}

fn round(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}

impl Figures {
    fn shown(&self) -> String {
        let Self { events, hooks, payload_bytes, lost, duplicated, .. } = self;
        format!(
            "{events} events of {payload_bytes} bytes for {hooks} hooks each, over {}: {:.0} events/s ({:.0}/s published)\n\
             latency p50 {:.1} ms, p90 {:.1} ms, p99 {:.1} ms, max {:.1} ms; {:.0} us of CPU an event, publisher and \
             receiver included\nlost {lost}, duplicated {duplicated}",
            self.broker,
            self.events_per_second,
            self.published_per_second,
            self.p50_ms,
            self.p90_ms,
            self.p99_ms,
            self.max_ms,
            self.cpu_us_per_event
        )
    }
}
